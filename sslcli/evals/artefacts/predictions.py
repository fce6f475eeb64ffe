"""Predictions for each test sample, saved beside the metrics for paired comparisons of runs, and as a readable CSV table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sslcli.data.dataset import Source
from sslcli.errors import DataError
from sslcli.evals.artefacts.sample_sheets import class_name
from sslcli.evals.artefacts.tables import Csv
from sslcli.evals.base.result import Artefact
from sslcli.evals.pairing.predictions import FILE
from sslcli.runs.files import checked, replace_file
from sslcli.runs.safetensors_file import safetensors

TABLE = "predictions.csv"


@dataclass
class Predictions:
    """Of m test samples in `draws` draws of labeled samples: ids (m,), truth (m,), predicted (draws, m), int64 each;
    probability (draws, m), what the model gave the class that it predicted."""

    ids: Tensor
    y_true: Tensor
    predicted: Tensor
    probability: Tensor | None = None
    caption: str = field(default="what was predicted for each test sample", repr=False)

    def __post_init__(self) -> None:
        assert self.ids.shape == self.y_true.shape == self.predicted.shape[1:], (self.ids.shape, self.predicted.shape)

    def save(self, path: Path) -> None:
        named_tensors = {"ids": self.ids, "truth": self.y_true, "predicted": self.predicted}
        tensors = {k: v.to(torch.int64) for k, v in named_tensors.items()}
        if self.probability is not None:
            tensors["probability"] = self.probability.float()
        replace_file(path.parent, path.name, safetensors(tensors))

    def files(self, source: Source, classes: Sequence[str]) -> dict[str, Artefact]:
        """The artefacts by file name: this, and a table with a row for each sample and draw. `source`: the test split."""
        names = [source.name_of(i) for i in self.ids.tolist()]
        y_true = [class_name(classes, c) for c in self.y_true.tolist()]
        probability = self.probability if self.probability is not None else torch.full(self.predicted.shape, torch.nan)
        rows = [
            (i, name, draw, true, class_name(classes, c), round(p, 4))
            for draw, (classes_of_draw, ps) in enumerate(
                zip(self.predicted.tolist(), probability.tolist(), strict=True), start=1
            )
            for i, name, true, c, p in zip(self.ids.tolist(), names, y_true, classes_of_draw, ps, strict=True)
        ]
        header = ("id", "sample", "draw", "class", "predicted", "probability")
        return {FILE: self, TABLE: Csv(header, rows, f"{self.caption}, by name")}


def read(run: Path, name: str) -> Predictions:
    """What `save` wrote into a file of a run (`eval/probe_predictions.safetensors`). DataError where it is absent or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(checked(run, name))
        ids, y_true, predicted = (tensors[key] for key in ("ids", "truth", "predicted"))
        assert all(v.dtype == torch.int64 for v in (ids, y_true, predicted)), "expected integers"
        assert predicted.ndim == 2, "expected predictions of shape (draws, samples)"
        assert len(predicted) > 0, "no draws"
        return Predictions(ids, y_true, predicted, probability=tensors.get("probability"))
    except (OSError, SafetensorError, KeyError, AssertionError) as e:
        raise DataError(
            f"{run / name} cannot be read: {e}", "evaluate the run again: sslcli eval NAME run=RUN"
        ) from None
