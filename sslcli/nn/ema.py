"""Momentum encoder: a teacher whose weights are an exponential moving average (EMA) of a student's."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


def cosine_momentum(progress: float, start: float, end: float) -> float:
    """Cosine schedule from `start` at progress 0 to `end` at progress 1 (BYOL, Sec. 3.3; there `end` is 1)."""
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2


class Teacher(nn.Module):
    """A copy of modules without gradients: `teacher(x)` applies them in sequence.

    `update(students, momentum)`: new = momentum * old + (1 - momentum) * student, for every parameter. The running statistics of
    batch norm are the teacher's own (it runs in training mode and normalizes with its own batches, as in the code of MoCo and
    BYOL); with `copy_buffers=True` buffers are copied from the student, for teachers that never run in training mode.
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
            teacher: list[Tensor] = list(part.parameters())
            target: list[Tensor] = list(student.parameters())
            torch._foreach_lerp_(teacher, target, 1.0 - momentum)
            if self.copy_buffers:
                for old, new in zip(part.buffers(), student.buffers(), strict=True):
                    old.copy_(new)
