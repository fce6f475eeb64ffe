"""What a method is: a page of mathematics between a backbone and a loss.

    class SimSiam(Method):
        def forward(self, batch: Batch) -> dict[str, Tensor]:
            return {"loss": ..., "spread": ...}

A method knows neither device nor precision, process, file or configuration, and is written as if there were one device:
what must cross processes goes through `sslcli.nn.gather`. Labels do not reach it unless it says `uses_labels = True`.
Its constructor is given the backbone and the YAML's keys, and by name or annotation what else it asks for: `data: DataInfo`,
another run's backbone (`teacher: Encoder`), other methods on the same backbone (`tasks: dict[str, Method]`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcli.batch import Batch
from sslcli.nn.heads import Head, Width, head_width

__all__ = ["Batch", "DataInfo", "Encoder", "Method", "Reconstruction"]


@dataclass(frozen=True)
class DataInfo:
    """What a method may know of the data it will see: counts, never samples."""

    samples: int  # of the pretraining split: a batch's ids are of 0..samples-1
    classes: int  # 0 where there are no labels
    steps_per_epoch: int


class Encoder(nn.Module):
    """The trained backbone of another run, frozen, in evaluation mode: (B, *shape) -> (B, dim).

    A method whose constructor annotates an argument so is given one; the YAML names the run (`method.teacher=RUN`). Where
    that run's data were normalised otherwise, `scale` and `shift` (C,) make its units of ours.
    """

    dim: int
    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: nn.Module, scale: Tensor | None = None, shift: Tensor | None = None):
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.dim = backbone.dim  # type: ignore[assignment]
        self.register_buffer("scale", torch.ones(1) if scale is None else scale, persistent=False)
        self.register_buffer("shift", torch.zeros(1) if shift is None else shift, persistent=False)

    def train(self, mode: bool = True) -> Encoder:
        return super().train(False)  # its batch norm has learned

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        axes = (-1, *([1] * (x.ndim - 2)))
        out: Tensor = self.backbone(x * self.scale.view(axes) + self.shift.view(axes))
        return out


@dataclass(frozen=True)
class Reconstruction:
    """Samples that were drawn again; each tensor is (B, *shape) of a view.

    `predicted` is in the units of what the method was asked for, (source - mean) / std: mean and std are None (0 and 1) unless
    its target was normalised piece by piece. `hidden` is true where the method could not see the source, None where it
    saw all.
    """

    source: Tensor
    predicted: Tensor
    hidden: Tensor | None = None
    mean: Tensor | None = None
    std: Tensor | None = None

    def target(self) -> Tensor:
        """The source in the units of the prediction."""
        if self.mean is None or self.std is None:
            return self.source
        return (self.source - self.mean) / self.std

    def error(self) -> Tensor:
        """Squared error in the method's own units; NaN where nothing was to be predicted (padding, and what was seen)."""
        squared = (self.predicted.float() - self.target()).square()
        return squared if self.hidden is None else squared.masked_fill(~self.hidden, torch.nan)

    def columns(self) -> dict[str, Tensor]:
        """For people: the source, what was seen of it, and what was made of that. The true mean and std are given back to
        the prediction, which the method never saw."""
        drawn = self.predicted.to(self.source.dtype)
        if self.mean is not None and self.std is not None:
            drawn = drawn * self.std + self.mean
        if self.hidden is None:
            return {"source": self.source, "reconstruction": drawn}
        visible = self.source.masked_fill(self.hidden, 0.0)
        return {"source": self.source, "visible": visible, "predicted": torch.where(self.hidden, drawn, self.source)}


class Method(nn.Module):
    """Base of every method. `forward` returns scalars by name; `loss` is the one that is minimised."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "series")  # that its mathematics makes sense for
    uses_labels: ClassVar[bool] = False  # batch.labels (B,) int64, -1 where a sample has none
    needs_tokens: ClassVar[bool] = False  # wants a backbone with `patchify` and `tokens`
    fixed_lr: ClassVar[tuple[str, ...]] = ()  # names of sub-modules whose learning rate does not follow the schedule
    min_batch: ClassVar[int] = 2  # batch statistics or negatives need at least this many samples
    compares: ClassVar[bool] = (
        False  # the loss compares the samples of a batch: negatives, variances, shared assignments
    )
    negatives: ClassVar[int] = 0  # of an anchor, for each other sample of its batch
    min_loss: ClassVar[float] = 0.0  # the loss is never below it; -inf where there is no such number
    adversarial: ClassVar[bool] = False  # the loss is the balance of two players: it need not fall

    backbone: Any  # an nn.Module with what backbones/base.py says; methods of tokens need its TokenBackbone
    plan: dict[str, int]  # how many views of which kind a batch holds; set when the method is built

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step with progress in [0, 1]: EMA, temperatures, queues."""

    @property
    def eval_backbone(self) -> nn.Module:
        """The backbone that is measured and exported: the online one, unless the method says the teacher."""
        return self.backbone

    def reconstruct(self, batch: Batch) -> Reconstruction | None:
        """The first view, drawn again by a method that can; None by others. Called in eval mode, without gradients."""
        return None

    @property
    def reconstructs(self) -> bool:
        return type(self).reconstruct is not Method.reconstruct

    def assign(self, x: Tensor) -> Tensor | None:
        """(B, K) probabilities of clusters for clean samples (B, *shape), by a method with a clustering head; None by others.
        Called in eval mode, without gradients; `sslcli eval cluster` measures it beside k-means on frozen features."""
        return None

    def anomaly_score(self, x: Tensor) -> Tensor | None:
        """(B,) how strange clean samples (B, *shape) are, by a method with an objective for it; None by others. As `assign`;
        for `sslcli eval anomaly`."""
        return None

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Sheets worth looking at, as columns of view-like tensors (B, ...): {"reconstruction": {"source": x, "predicted": y}}."""
        found = self.reconstruct(batch)
        return {} if found is None else {"reconstruction": found.columns()}

    def describe(self) -> dict[str, str]:
        """Derived settings for the start screen: the widths of each head, then `details`."""
        heads = {name: child.describe() for name, child in self.named_children() if isinstance(child, Head)}
        return heads | self.details()

    def details(self) -> dict[str, str]:
        """Further derived settings, such as the number of masked tokens; overridden by methods that have any."""
        return {}

    def head_width(self, width: Width, paper: int) -> int:
        """A head's width: as given, or for `auto` the paper's, at most 4 x the width of the backbone."""
        return head_width(width, paper, self.backbone.dim)
