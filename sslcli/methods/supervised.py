"""Supervised baseline: cross-entropy with the labels; no self-supervision, an upper bound for comparisons.

B batch, K classes. The views are those of self-supervised methods, one strong and one weak of each sample. Samples without a
label are ignored.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, DataInfo, Method
from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.precision import full_precision


class Supervised(Method):
    uses_labels = True
    min_batch = 1

    def __init__(self, backbone: nn.Module, data: DataInfo, smoothing: float = 0.0):
        super().__init__(backbone)
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be from 0 to below 1, got {smoothing}")
        self.classifier = nn.Linear(self.backbone.dim, data.classes)
        self.smoothing = smoothing

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        views = batch.expect_views(2, "global", "weak")
        assert batch.labels is not None
        y = batch.labels.to(views[0].device)
        logits = torch.stack([self.classifier(self.backbone(x)) for x in views])  # (V, B, K)
        correct = (logits.detach().argmax(dim=2) == y).float().mean(dim=0)
        return {
            "loss": torch.stack([labeled_cross_entropy(one, y, self.smoothing) for one in logits]).mean(),
            "accuracy": (correct * (y >= 0)).sum() / (y >= 0).sum().clamp(min=1),
        }


@full_precision
def labeled_cross_entropy(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of (B, K) logits and labels (B,) over the labeled samples (y >= 0) of all processes; 0 without any."""
    labeled = y >= 0
    each = F.cross_entropy(logits, y.clamp(min=0), reduction="none", label_smoothing=smoothing)
    count = all_reduce_mean(labeled.sum().to(each.dtype))  # the number of labeled samples differs between processes
    return (each * labeled).sum() / count.masked_fill(count == 0, 1.0)
