"""A teacher whose weights are an exponential moving average of a student's."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


def cosine_momentum(progress: float, start: float, end: float) -> float:
    """From `start` at progress 0 to `end` at progress 1 along half a cosine (BYOL, Sec. 3.3; there `end` is 1)."""
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2


class Teacher(nn.Module):
    """A copy of some modules that no gradient reaches: `teacher(x)` runs them in sequence.

    `update(students, momentum)` moves every parameter: new = momentum * old + (1 - momentum) * student. Buffers:
    running statistics of batch norm are the teacher's own (it runs in training mode and normalises with its own
    batches, as in the code of MoCo and BYOL); with `copy_buffers=True` they are copied from the student, for teachers
    that never run in training.
    """

    def __init__(self, *students: nn.Module, copy_buffers: bool = False):
        super().__init__()
        self.parts = nn.ModuleList(copy.deepcopy(s) for s in students)
        self.parts.requires_grad_(False)
        self.copy_buffers = copy_buffers

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    @torch.no_grad()
    def update(self, *students: nn.Module, momentum: float) -> None:
        for part, student in zip(self.parts, students, strict=True):
            mine: list[Tensor] = list(part.parameters())
            theirs: list[Tensor] = list(student.parameters())
            torch._foreach_lerp_(mine, theirs, 1.0 - momentum)
            if self.copy_buffers:
                for old, new in zip(part.buffers(), student.buffers(), strict=True):
                    old.copy_(new)
