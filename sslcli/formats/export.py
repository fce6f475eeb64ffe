"""`sslcli export`: a trained encoder in a format, in a new folder that is read back and compared before it appears."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor, nn

from sslcli.classifier.model import Classifier
from sslcli.data.dataset import Preprocessor
from sslcli.errors import TrainingError
from sslcli.methods.base import Method
from sslcli.runs import Record
from sslcli.runs.encoder import new_folder
from sslcli.runs.run import Run

TOLERANCE = 1e-5  # the largest difference of an output that is read back


@dataclass(frozen=True)
class TrainedModel:
    """What is exported, on the CPU in evaluation mode.

    backbone: the one that the method evaluates. method: with its heads; None where the run kept no checkpoint of them. info: the
    content of encoder.json."""

    backbone: nn.Module
    method: Method | None
    info: Record
    preprocessor: Preprocessor
    run: Run
    samples: Tensor | None = None  # held-out samples as clean views (n, *shape), to compare outputs on
    labels: Tensor | None = None  # (n,) int64: their classes, among those of the classifier; -1 for others
    classifier: Classifier | None = None  # exported on top of the backbone
    precision: str = "fp32"  # of the weights that are written
    tower: str | None = None  # image or text: one of the encoders of a shared space, see `towers.py`

    @property
    def network(self) -> nn.Module:
        """The backbone: that of the classifier where it was fine-tuned."""
        fine_tuned = None if self.classifier is None else self.classifier.backbone
        return self.backbone if fine_tuned is None else fine_tuned.eval()


class ExportFormat(ABC):
    """A format by name: `format=NAME`."""

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]  # that it can write: the first has the weights, and a folder ends in /
    tolerance: ClassVar[Mapping[str, float]] = {
        "fp32": TOLERANCE
    }  # precision -> the largest difference that is allowed
    # whether a program without sslcli reads it: it may have a classifier, and outputs are compared on samples of the run
    runtime: ClassVar[bool] = False
    heads: ClassVar[bool] = False  # whether the method's heads are exported, which are read from a checkpoint

    @abstractmethod
    def check(self, model: TrainedModel) -> None:
        """RequestError where the format cannot hold this encoder."""

    @abstractmethod
    def write(self, folder: Path, model: TrainedModel) -> list[str]:
        """Writes all files into an empty folder. Returns what was left out or differs, in sentences."""

    @abstractmethod
    def largest_difference(self, folder: Path, model: TrainedModel) -> float:
        """The largest difference of an output of what was written from the model's."""

    def comparison(self, folder: Path, model: TrainedModel) -> tuple[dict[str, float], list[str]]:
        """Further results of what was written beside those of the model: numbers, and sentences."""
        return {}, []

    @abstractmethod
    def next_steps(self, out: str, model: TrainedModel) -> list[str]:
        """Commands or code that read the folder."""


@dataclass(frozen=True)
class Exported:
    difference: float
    scores: dict[str, float]
    notes: list[str]


def export(model: TrainedModel, form: ExportFormat, out: Path) -> Exported:
    """Writes a folder, complete or not at all. RequestError, StorageError; TrainingError where what is read back differs."""
    form.check(model)
    with new_folder(out) as temporary:
        notes = form.write(temporary, model)
        difference = form.largest_difference(temporary, model)
        most = form.tolerance[model.precision]
        if not difference <= most:
            raise TrainingError(
                f"the exported encoder differs from that of the run by {difference:.1e}, and at most {most:.0e} is "
                "allowed: nothing was written",
                f"do the weights of {model.run.path} hold extreme numbers?"
                if model.precision == "fp32"
                else "precision=fp32",
            )
        scores, further = form.comparison(temporary, model)
    return Exported(difference, scores, [*notes, *further])


def largest_difference(first: Tensor, second: Tensor) -> float:
    """Of two tensors of one shape; NaN where one has it."""
    return float((first - second).abs().max()) if first.numel() else 0.0
