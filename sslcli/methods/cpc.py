"""Contrastive predictive coding (CPC): InfoNCE of predictions of later frames from the context of a causal network.

van den Oord, Li & Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018. https://arxiv.org/abs/1807.03748
B batch of this process, N frames, A anchors of a sample, K steps, P projection width. Negatives, the targets of other anchors of
the same and of other samples of the global batch, prevent collapse. The backbone, which is evaluated, is the context network g_ar
and must be causal, such as `gru`. Deviations from the paper: the encoder g_enc of targets is a perceptron on the values of one
frame, and the context network reads these values itself; A random frames of each sample are anchors, not all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.dist import all_reduce_mean, gather, rank
from sslcli.nn.heads import Width, mlp
from sslcli.nn.precision import full_precision


class CPC(Method):
    requires = frozenset({"continuous", "order", "time"})
    min_batch = 1
    compares = True

    def __init__(self, backbone: nn.Module, steps: int = 12, anchors: int = 4, proj_dim: Width = "auto"):
        super().__init__(backbone)
        if not getattr(self.backbone, "causal", False):
            raise ValueError("predicting later frames requires a causal backbone, such as backbone=gru")
        if self.backbone.num_frames < 2:
            raise ValueError("predicting later frames requires at least 2 frames: a smaller backbone.stride")
        if steps < 1 or anchors < 1:
            raise ValueError("steps and anchors must be at least 1")
        self.steps = min(steps, self.backbone.num_frames // 2)
        self.anchors = anchors
        width = self.head_width(proj_dim, 128)
        self.encoder = mlp(self.backbone.frame_size, 2 * width, width, norm=False)
        self.predictor = nn.Linear(self.backbone.frame_dim, self.steps * width, bias=False)  # W_1, ..., W_K

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        values = self.backbone.frame_values(x)
        present = self.backbone.present(x)  # (B, N)
        steps = min(self.steps, present.shape[1] - 1)  # K, of views that may be shorter
        at = anchor_frames(batch.uniform("anchors", self.anchors), present, steps)  # (B, A)
        context = take(self.backbone.frames(x), at)  # (B, A, D)
        predicted = self.predictor(context).unflatten(2, (self.steps, -1))[:, :, :steps]  # (B, A, K, P)
        later = at[:, :, None] + torch.arange(1, steps + 1, device=x.device)  # (B, A, K)
        target = take(self.encoder(self.backbone.values.complete(values)), later.flatten(1))
        target = target.unflatten(1, later.shape[1:])  # (B, A, K, P)
        exists = take(present[:, :, None], later.flatten(1)).view_as(later)
        loss, accuracy = info_nce_of_steps(predicted, target, later, exists)
        return {"loss": loss, "accuracy": accuracy}

    def details(self) -> dict[str, str]:
        return {"prediction": f"{self.steps} frames after each of {self.anchors} anchors of a sample"}


def anchor_frames(uniform: Tensor, present: Tensor, steps: int) -> Tensor:
    """(B, A) int64: random frames of each sample with `steps` frames after them, before its padding at the end. `present` (B, N);
    the first frame of a sample that is too short."""
    n = present.shape[1]
    length = (present * torch.arange(1, n + 1, device=present.device)).amax(dim=1)  # (B,)
    return (uniform * (length - steps).clamp(min=1)[:, None]).long().clamp(max=n - 1 - steps)


def take(frames: Tensor, at: Tensor) -> Tensor:
    """(B, N, D), indices (B, A) -> (B, A, D)."""
    return frames.gather(1, at[:, :, None].expand(-1, -1, frames.shape[2]))


@full_precision
def info_nce_of_steps(predicted: Tensor, target: Tensor, frame: Tensor, exists: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. (4) with f = exp(z^T W_k c) of eq. (3), the mean over steps k and this process's anchors, and the share of positives with
    the largest logit.

    `predicted`, `target`: (B, A, K, P), W_k c and z of an anchor; `frame` (B, A, K): that of the target; `exists`: where it has a
    value. The negatives of a prediction are the targets of step k of all other anchors in the global batch, but for those of the
    same frame of the same sample."""
    b, a, k, _ = predicted.shape
    sample = (rank() * b + torch.arange(b, device=frame.device))[:, None].expand(b, a).reshape(-1)  # (B A,)
    mine = predicted.flatten(0, 1).transpose(0, 1)  # (K, B A, P)
    flat = [gather(t).flatten(0, 1).transpose(0, 1) for t in (target, frame, exists.to(frame.dtype))]
    every, frames, here = flat[0], flat[1], flat[2].bool()  # (K, N A, ...)
    logits = mine @ every.transpose(1, 2)  # (K, B A, N A)
    positive = rank() * b * a + torch.arange(b * a, device=frame.device)  # (B A,)
    same_sample = sample[:, None] == gather(sample)[None]  # (B A, N A)
    duplicate = same_sample & (frames[:, positive, None] == frames[:, None]) | ~here[:, None]
    duplicate = duplicate.scatter(2, positive[None, :, None].expand(k, -1, 1), False)
    logits = logits.masked_fill(duplicate, float("-inf"))
    each = F.cross_entropy(logits.flatten(0, 1), positive.repeat(k), reduction="none").view(k, b * a)
    valid = here[:, positive].to(each.dtype)
    count = all_reduce_mean(valid.sum()).clamp(min=1)
    hit = (logits.argmax(dim=2) == positive).to(each.dtype)
    return (each * valid).sum() / count, (hit * valid).sum().detach() / count
