"""Classes, or values, of samples by the classifier that a run kept, from blocks of features."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sslcli.classifier.model import Classifier
from sslcli.errors import RequestError
from sslcli.inference.features import ROWS, Block
from sslcli.runs import Record

CLASS_COLUMNS = ("path", "class", "probability", "runner_up", "runner_up_probability", "distance", "error")
VALUE_COLUMNS = ("path", "value", "distance", "error")
FAR = 95.0  # percentile of the distance from which a sample is counted as far from the training samples
DIGITS = 6  # of probabilities; a distance has two

Row = tuple[Any, ...]  # a value for each column, None where there is none


@dataclass(frozen=True)
class Predictor:
    """Rows of predictions from features.

    threshold: a class with a lower probability is left empty. None for values, which have no probability."""

    classifier: Classifier
    threshold: float | None = None

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        if self.threshold is not None and self.classifier.predicts_value:
            raise RequestError("threshold= is of probabilities, and this run predicts a value", "leave it out")

    @property
    def columns(self) -> tuple[str, ...]:
        return VALUE_COLUMNS if self.classifier.predicts_value else CLASS_COLUMNS

    def rows(self, features: Tensor, places: Tensor, paths: Iterable[str | None]) -> list[Row]:
        """A row for each of m at most ROWS samples: `features` (m, d), and the place of each in its block, `places` (m,).

        Each sample is computed at its place in a block of ROWS rows, so that its numbers do not depend on how many there are."""
        z = torch.zeros(ROWS, features.shape[1])
        z[places] = features
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a product rounds differently on another number of threads
        try:
            distance = [round(d, 2) for d in self.classifier.reference.percentile(z)[places].tolist()]
            if self.classifier.predicts_value:
                values = self.classifier.outputs(z)[places, 0].tolist()
                return [(path, v, d, None) for path, v, d in zip(paths, values, distance, strict=True)]
            best, index = self.classifier.probabilities(z)[places].topk(2, dim=1)
        finally:
            torch.set_num_threads(threads)
        names = self.classifier.classes
        return [
            (path, self._class(names[a], p), round(p, DIGITS), names[b], round(q, DIGITS), d, None)
            for path, (p, q), (a, b), d in zip(paths, best.tolist(), index.tolist(), distance, strict=True)
        ]

    def _class(self, name: str, probability: float) -> str | None:
        return None if self.threshold is not None and probability < self.threshold else name

    def unreadable(self, path: str | None, reason: str) -> Row:
        return (path, *[None] * (len(self.columns) - 2), reason)

    def predict(
        self, blocks: Iterable[Block], names: Sequence[str | None], missing: Mapping[str, str]
    ) -> Iterator[list[Row]]:
        """The rows of each block of samples with these `names`, then those of the files in `missing`, path -> reason, of which no
        sample could be read."""
        for block in blocks:
            ids = block.ids.tolist()
            rows = {i: self.unreadable(names[i], reason) for i, reason in block.unreadable.items()}
            if ids:
                found = self.rows(block.features, block.ids % ROWS, [names[i] for i in ids])
                rows |= dict(zip(ids, found, strict=True))
            yield [rows[i] for i in sorted(rows)]
        if missing:
            yield [self.unreadable(path, reason) for path, reason in missing.items()]


def check_threshold(threshold: float | None) -> None:
    if threshold is not None and not 0 <= threshold <= 1:
        raise RequestError(f"threshold={threshold:g}: expected a probability from 0 to 1", "threshold=0.9")


@dataclass
class Summary:
    """Counts of the rows of a prediction."""

    columns: tuple[str, ...]
    predicted: int = 0
    unreadable: int = 0
    far: int = 0
    unsure: int = 0
    total: float = 0.0  # of probabilities, or of values
    classes: Counter[str] = field(default_factory=Counter)

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            cells = dict(zip(self.columns, row, strict=True))
            if cells["error"] is not None:
                self.unreadable += 1
                continue
            self.predicted += 1
            self.far += cells["distance"] >= FAR
            self.total += cells["probability"] if "class" in cells else cells["value"]
            if "class" in cells:
                self.unsure += cells["class"] is None
                self.classes.update([cells["class"]] if cells["class"] is not None else [])

    def to_json(self) -> Record:
        mean = self.total / self.predicted if self.predicted else math.nan
        of = "mean_probability" if "class" in self.columns else "mean_value"
        return {
            "samples": self.predicted,
            "unreadable": self.unreadable,
            "far": self.far,
            **({"unsure": self.unsure, "classes": dict(self.classes.most_common())} if "class" in self.columns else {}),
            **({of: mean} if math.isfinite(mean) else {}),
        }

    def lines(self) -> list[str]:
        """What stderr says at the end."""
        most = ", ".join(f"{name} {n:,}" for name, n in self.classes.most_common(8))
        rest = f" and {len(self.classes) - 8} more classes" if len(self.classes) > 8 else ""
        return [f"{self.predicted:,} predicted{f': {most}' if most else ''}{rest}", *self.notes()]

    def notes(self) -> list[str]:
        """What to look at, in sentences."""
        counts = {
            f"below the threshold, without a class: {self.unsure:,}": self.unsure,
            f"farther from the training samples than {FAR:.0f} % of these from each other: {self.far:,}": self.far,
            f"unreadable, with the reason in the column error: {self.unreadable:,}": self.unreadable,
        }
        return [note for note, n in counts.items() if n]
