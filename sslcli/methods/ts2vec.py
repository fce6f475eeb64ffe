"""TS2Vec: contrast of the frames of two overlapping crops, over samples and over time, at all scales of max pooling.

Yue et al., "TS2Vec: Towards Universal Representation of Time Series", AAAI 2022. https://arxiv.org/abs/2106.10466
B batch of this process, M global batch, N frames of the overlap, D width. Negatives prevent collapse: the same frame of other
samples and the other frames of the same sample. The mean of the weights after each step is evaluated, as in the authors' code.
Deviations from it: frames without a value are neither anchors nor negatives; the crops of a step, of equal length in a batch,
are a function of seed and step.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import all_reduce_mean, gather, rank
from sslcli.nn.ema import Teacher
from sslcli.nn.precision import full_precision
from sslcli.nn.stats import spread
from sslcli.nn.step_counter import StepCounter


class TS2Vec(Method):
    requires = frozenset({"time"})
    compares = True
    negatives = 2

    def __init__(self, backbone: nn.Module, mask_ratio: float = 0.5, alpha: float = 0.5, max_frames: int = 512):
        super().__init__(backbone)
        if self.backbone.num_frames < 2:
            raise ValueError("two overlapping crops require at least 2 frames: a smaller backbone.stride")
        if not 0 <= mask_ratio < 1 or not 0 <= alpha <= 1:
            raise ValueError("mask_ratio must be at least 0 and below 1, alpha from 0 to 1")
        if max_frames < 2:
            raise ValueError(f"max_frames must be at least 2, got {max_frames}")
        self.mask_ratio, self.alpha, self.max_frames = mask_ratio, alpha, max_frames
        self.average = Teacher(backbone, copy_buffers=True)
        self.clock = StepCounter()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        present = self.backbone.present(x)
        n = present.shape[1]
        shared = replace(batch.draw, ids=torch.tensor([self.clock.now()])).uniform("crop", 4)[0].tolist()
        start, left, right, end = crop_bounds(min(n, self.max_frames), shared)
        places = n - (end - start) + 1  # of the two crops in a sample
        offset = (batch.uniform("offset") * places).long()  # (B,)
        first = self.crop(batch, x, offset, right - start, "first mask")[:, left - start :]
        second = self.crop(batch, x, offset + left - start, end - left, "second mask")[:, : right - left]
        at = (offset + left - start)[:, None] + torch.arange(right - left, device=x.device)
        loss = hierarchical_loss(first, second, present.gather(1, at), self.alpha)
        return {"loss": loss, "spread": spread(first.amax(dim=1))}

    def crop(self, batch: Batch, x: Tensor, start: Tensor, count: int, purpose: str) -> Tensor:
        """(B, count, D): `count` frames from `start` (B,) on, some of which are hidden."""
        hidden = batch.uniform(purpose, count) < self.mask_ratio
        frames: Tensor = self.backbone.frames(self.backbone.crop(x, start, count), hidden)
        return frames

    def after_step(self, progress: float) -> None:
        self.average.update(self.backbone, momentum=1 - 1 / self.clock.tick())

    @property
    def eval_backbone(self) -> nn.Module:
        average: nn.Module = self.average.parts[0]
        return average

    def details(self) -> dict[str, str]:
        n = self.backbone.num_frames
        return {"frames": f"{n}, in crops of 2 to {min(n, self.max_frames)}", "evaluated": "the mean of the weights"}


def crop_bounds(n: int, uniform: list[float]) -> tuple[int, int, int, int]:
    """Sec. 3.3: 0 <= start <= left < right <= end <= n. The first crop is start..right, the second left..end; they share
    left..right, 2 frames or more. `uniform`: four numbers in [0, 1)."""
    length = 2 + int(uniform[0] * (n - 1))
    left = int(uniform[1] * (n - length + 1))
    right = left + length
    start = int(uniform[2] * (left + 1))
    end = right + int(uniform[3] * (n - right + 1))
    return start, left, right, end


@full_precision
def hierarchical_loss(z1: Tensor, z2: Tensor, present: Tensor, alpha: float = 0.5) -> Tensor:
    """Algorithm 1: alpha x the contrast over samples (eq. 2) + (1 - alpha) x that over time (eq. 1), averaged over scales. From
    each scale to the next, the maximum of two frames; the last has one frame. (B, N, D), and `present` (B, N)."""
    losses = []
    while True:
        mine = [z.transpose(0, 1) for z in (z1, z2)]  # (N, B, D)
        every = [gather(z).transpose(0, 1) for z in (z1, z2)]  # (N, M, D)
        here = gather(present.to(z1.dtype)).transpose(0, 1) > 0
        samples = contrast(mine, every, here, rank() * len(z1))
        losses.append(alpha * samples + (1 - alpha) * contrast([z1, z2], [z1, z2], present, 0))
        if z1.shape[1] == 1:
            return torch.stack(losses).mean()
        z1, z2 = (max_of_pairs(z, present) for z in (z1, z2))
        present = present[:, : 2 * z1.shape[1]].unflatten(1, (-1, 2)).any(dim=2)


def contrast(mine: list[Tensor], every: list[Tensor], present: Tensor, first: int) -> Tensor:
    """-log softmax of dot products, the mean over the rows of both views that are present.

    `mine`: two views (G, R, D) of R rows in each of G groups; `every` (G, S, D): all rows of the groups, of which `mine` are those
    from number `first` on; `present` (G, S). The positive of a row is itself in the other view; negatives are the other rows that
    are present, in both views."""
    groups, rows = mine[0].shape[:2]
    positive = first + torch.arange(rows, device=present.device)
    itself = positive[:, None] == torch.arange(present.shape[1], device=present.device)  # (R, S)
    valid = present[:, positive].to(mine[0].dtype)
    total = mine[0].new_zeros(())
    for i in (0, 1):
        other = (mine[i] @ every[1 - i].transpose(1, 2)).masked_fill(~present[:, None] & ~itself, float("-inf"))
        same = (mine[i] @ every[i].transpose(1, 2)).masked_fill(~present[:, None] | itself, float("-inf"))
        logits = torch.cat([other, same], dim=2).flatten(0, 1)
        each = F.cross_entropy(logits, positive.repeat(groups), reduction="none").view(groups, rows)
        total = total + (each * valid).sum()
    return total / (2 * all_reduce_mean(valid.sum()).clamp(min=1))


def max_of_pairs(z: Tensor, present: Tensor) -> Tensor:
    """(B, N, D) -> (B, N // 2, D): the maximum of two neighboring frames that are present, 0 where none is."""
    pairs = z.shape[1] // 2
    here = present[:, : 2 * pairs, None].unflatten(1, (pairs, 2))
    z = z[:, : 2 * pairs].unflatten(1, (pairs, 2)).masked_fill(~here, float("-inf")).amax(dim=2)
    return torch.where(here.any(dim=2), z, 0.0)
