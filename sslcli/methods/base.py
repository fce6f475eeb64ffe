"""Base class of all methods: a method maps a batch of views to a loss.

    class SimSiam(Method):
        def forward(self, batch: Batch) -> dict[str, Tensor]:
            return {"loss": ..., "spread": ...}

A method is independent of device, precision, processes, files and configuration, and is written as for one device: what must be
exchanged between processes goes through `sslcli.nn.dist`. It receives no labels unless it sets `uses_labels = True`.
Its constructor receives the backbone and the keys of the YAML, and by name or annotation what else it declares: `data: DataInfo`,
another run's backbone (`teacher: Encoder`), an encoder of captions (`tower: Tower`), other methods on the same backbone (`tasks:
dict[str, Method]`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcli.batch import Batch
from sslcli.nn.heads import Head, Width, head_width
from sslcli.nn.towers import TwoTowers, equal_rows
from sslcli.nn.values import Continuous, Values

__all__ = ["Batch", "CaptionMethod", "DataInfo", "Encoder", "Method", "Reconstruction", "Tower"]


@dataclass(frozen=True)
class DataInfo:
    """Counts that describe the pretraining data, without any sample."""

    samples: int  # in the pretraining split: the ids of a batch are in 0..samples-1
    classes: int  # 0 without labels
    steps_per_epoch: int


class Encoder(nn.Module):
    """The trained backbone of another run, frozen, in evaluation mode: (B, *shape) -> (B, dim).

    Passed to a constructor argument with this annotation; the YAML names the run (`method.teacher=RUN`). `conversion` maps the
    values of this run's views to those of the other's (`Values.conversion`).
    """

    dim: int

    def __init__(self, backbone: nn.Module, conversion: nn.Module | None = None):
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.dim = backbone.dim  # type: ignore[assignment]
        self.conversion = nn.Identity() if conversion is None else conversion

    def train(self, mode: bool = True) -> Encoder:
        return super().train(False)  # batch norm keeps its running statistics

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.backbone(self.conversion(x))
        return out


class Tower(nn.Module):
    """The encoder of captions: (B, L) int64 ids of tokens -> (B, dim).

    Passed to a constructor argument with this annotation. The YAML names a backbone, which is trained with the method
    (`method.tower=bert_tiny`), or a run or pretrained encoder of text, which stays as it is (`method.tower=RUN`)."""

    dim: int

    def __init__(self, backbone: nn.Module, frozen: bool = False):
        super().__init__()
        self.backbone, self.frozen = backbone, frozen
        self.dim = backbone.dim  # type: ignore[assignment]
        if frozen:
            backbone.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Tower:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            out: Tensor = self.backbone(x)
        return out


@dataclass(frozen=True)
class Reconstruction:
    """Reconstructed samples; each tensor is (B, *shape) of a view.

    `predicted` has the most likely values in the units of the method's target, (source - mean) / std: mean and std are None (0 and
    1) unless the target is normalized per patch. `hidden` is the mask of what the method had to predict, None where it saw
    everything. `values`: those of the view, as the backbone has them.
    """

    source: Tensor
    predicted: Tensor
    hidden: Tensor | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    values: Values = field(default_factory=Continuous)

    def target(self) -> Tensor:
        """The source in the units of the prediction."""
        if self.mean is None or self.std is None:
            return self.source
        return (self.source - self.mean) / self.std

    def error(self) -> Tensor:
        """The error of each value: the squared difference of numbers in the units of the prediction, 0 or 1 for categories. NaN
        at padding and at visible positions."""
        error = self.values.likelihood().error(self.predicted, self.target())
        return error if self.hidden is None else error.masked_fill(~self.hidden, torch.nan)

    def columns(self) -> dict[str, Tensor]:
        """Columns of a figure: the source, its visible part and the prediction, in the units of the source. Statistics of
        normalized patches are taken from the source. There is no prediction after the end of a sample."""
        predicted = self.predicted.to(self.source.dtype)
        if self.mean is not None and self.std is not None:
            predicted = predicted * self.std + self.mean
        predicted = self.values.remove(predicted, self.values.after_end(self.source))
        if self.hidden is None:
            return {"source": self.source, "reconstruction": predicted}
        return {
            "source": self.source,
            "visible": self.values.hide(self.source, self.hidden),
            "predicted": torch.where(self.hidden, predicted, self.source),
        }


class Method(nn.Module):
    """Base class. `forward` returns scalars by name; `loss` is minimized, the others are logged."""

    requires: frozenset[str] = frozenset({"views"})  # of the data: words of `provides` in configs/modality
    uses_labels: bool = False  # batch.labels (B,) int64, -1 where a sample has none
    uses_captions: bool = False  # batch.captions (B, L) int64, one caption of each sample
    fixed_lr: tuple[str, ...] = ()  # submodules with a constant learning rate
    min_batch: int = 2  # batch statistics or negatives need at least this many samples
    compares: ClassVar[bool] = False  # the loss compares samples of a batch: negatives, variances, shared assignments
    negatives: ClassVar[int] = 0  # of an anchor, per other sample of its batch
    min_loss: float = 0.0  # lower bound of the loss; -inf without one
    adversarial: bool = False  # two networks are trained against each other: the loss need not decrease

    backbone: Any  # see backbones/base.py
    plan: dict[str, int]  # kind -> number of views in a batch; set by the builder

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step with progress in [0, 1], to update momentum encoders, temperatures and queues."""

    @property
    def eval_backbone(self) -> nn.Module:
        """The backbone that is evaluated and exported: the online one, unless a method overrides it."""
        return self.backbone

    def reconstruct(self, batch: Batch) -> Reconstruction | None:
        """Reconstruction of the first view; None for methods that do not reconstruct. Called in eval mode, without gradients."""
        return None

    @property
    def reconstructs(self) -> bool:
        return type(self).reconstruct is not Method.reconstruct

    def assign(self, x: Tensor) -> Tensor | None:
        """Cluster probabilities (B, K) of clean samples (B, *shape); None for methods without a clustering head. Called in eval
        mode, without gradients, by `sslcli eval cluster`."""
        return None

    def anomaly_score(self, x: Tensor) -> Tensor | None:
        """Anomaly scores (B,) of clean samples (B, *shape), higher for more anomalous; None for methods without such a score.
        Called in eval mode, without gradients, by `sslcli eval anomaly`."""
        return None

    def token_logits(self, x: Tensor, where: Tensor) -> Tensor | None:
        """Logits (n, V) of the tokens at the n positions of views x (B, L) where `where` (B, L) is true, in the order of
        `x[where]`; x holds the mask token there. None for methods that do not predict hidden tokens from both sides. Called in eval
        mode, without gradients, by `sslcli eval fill`."""
        return None

    def next_scores(self, x: Tensor) -> Tensor | None:
        """Scores (B, V) of all ids to follow the views x (B, L), -inf for those that are no items; None for methods that do not
        predict what follows. Called in eval mode, without gradients, by `sslcli eval recommend`."""
        return None

    def sample_vectors(self, x: Tensor) -> Tensor | None:
        """Unit vectors (B, P) of clean samples (B, *shape) in the space that samples and captions share; None for methods without
        one. Called in eval mode, without gradients, by `sslcli eval zeroshot` and for `pool=shared`."""
        return None

    @property
    def shares_space(self) -> bool:
        """Whether samples and captions have vectors in one space."""
        return type(self).sample_vectors is not Method.sample_vectors

    def caption_vectors(self, x: Tensor) -> Tensor:
        """Unit vectors (B, P) of captions (B, L) in the space of `sample_vectors`."""
        raise NotImplementedError(f"{type(self).__name__} does not read captions")

    def similarity_scale(self) -> float:
        """What the loss multiplies the similarities of samples and captions by: the inverse of the temperature."""
        raise NotImplementedError(f"{type(self).__name__} does not read captions")

    def caption_method(self) -> CaptionMethod | None:
        """The method with the encoders of samples and of captions; None without one."""
        return None

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Figures of what the method computes, as columns of view-like tensors (B, ...): {"reconstruction": {"source": x, ...}}."""
        result = self.reconstruct(batch)
        return {} if result is None else {"reconstruction": result.columns()}

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


class CaptionMethod(Method):
    """Base class of methods that train an encoder of images, the backbone, and one of captions, the tower, and project both to one
    space."""

    requires = frozenset({"pairs", "views"})
    uses_captions = True
    compares = True
    negatives = 1
    log_scale: nn.Parameter  # of the similarities

    def __init__(self, backbone: nn.Module, tower: Tower, proj_dim: Width):
        super().__init__(backbone)
        self.tower = tower
        self.shared = TwoTowers(self.backbone.dim, tower.dim, int(self.head_width(proj_dim, 512)))

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The unit vectors (B, P) of images and of captions, and whether captions of the global batch are equal, (B, N) bool."""
        (x,) = batch.expect_views(1, "paired", "global", "weak", "clean")
        assert batch.captions is not None
        return self.sample_vectors(x), self.caption_vectors(batch.captions), equal_rows(batch.captions)

    def sample_vectors(self, x: Tensor) -> Tensor:
        return self.shared.image(self.backbone(x))

    def caption_vectors(self, x: Tensor) -> Tensor:
        return self.shared.text(self.tower(x))

    def similarity_scale(self) -> float:
        return float(self.log_scale.detach().exp())

    def caption_method(self) -> CaptionMethod:
        return self

    def details(self) -> dict[str, str]:
        return {"tower": self.shared.describe(self.tower)}
