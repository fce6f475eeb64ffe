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
PROBABILITIES = ("auto", "all", "top")
MANY_CLASSES = 20  # with more, `auto` writes no column for each

Row = tuple[Any, ...]  # a value for each column, None where there is none


@dataclass(frozen=True)
class Predictor:
    """Rows of predictions from features.

    threshold: a class with a lower probability is left empty. None for values, which have no probability. probabilities: all, a
    column for the probability of each class; top, the two largest ones alone; auto, all for up to MANY_CLASSES classes. id: the
    name of the column of identifiers, which is the first one; None without any."""

    classifier: Classifier
    threshold: float | None = None
    probabilities: str = "auto"
    id: str | None = None

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        check_probabilities(self.probabilities)
        for key, given in (("threshold", self.threshold is not None), ("probabilities", self.probabilities != "auto")):
            if given and self.classifier.predicts_value:
                raise RequestError(f"{key}= is of classes, and this run predicts a value", "leave it out")

    @property
    def columns(self) -> tuple[str, ...]:
        """`path`, `class`, ...; before them that of the identifiers, and after them `probability_CLASS` for each class."""
        names = (*(VALUE_COLUMNS if self.classifier.predicts_value else CLASS_COLUMNS), *self._of_classes)
        if self.classifier.reference is None:
            names = tuple(name for name in names if name != "distance")
        return names if self.id is None else (self.id if self.id not in names else f"id_{self.id}", *names)

    @property
    def texts(self) -> set[str]:
        """The columns of text."""
        return {"path", "class", "runner_up", "error"} | ({self.columns[0]} if self.id is not None else set())

    @property
    def _of_classes(self) -> tuple[str, ...]:
        classes = self.classifier.classes
        few = len(classes) <= MANY_CLASSES
        if self.classifier.predicts_value or self.probabilities == "top" or (self.probabilities == "auto" and not few):
            return ()
        return tuple(f"probability_{name}" for name in classes)

    def rows(self, features: Tensor, places: Tensor, heads: Iterable[Row]) -> list[Row]:
        """A row for each of m at most ROWS samples: `features` (m, d), the place of each in its block, `places` (m,), and its
        identifier, where there are some, and path.

        Each sample is computed at its place in a block of ROWS rows, so that its numbers do not depend on how many there are."""
        z = torch.zeros(ROWS, features.shape[1])
        z[places] = features
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a product rounds differently on another number of threads
        try:
            reference = self.classifier.reference
            distance: list[tuple[float, ...]] = [()] * len(places)
            if reference is not None:
                distance = [(round(d, 2),) for d in reference.percentile(z)[places].tolist()]
            if self.classifier.predicts_value:
                values = self.classifier.outputs(z)[places, 0].tolist()
                return [(*head, v, *d, None) for head, v, d in zip(heads, values, distance, strict=True)]
            p = self.classifier.probabilities(z)[places]
            index = p.topk(2, dim=1).indices
        finally:
            torch.set_num_threads(threads)
        names = self.classifier.classes
        every = bool(self._of_classes)
        return [
            (*head, self._class(names[a], p[a]), p[a], names[b], p[b], *d, None, *(p if every else ()))
            for head, p, (a, b), d in zip(heads, rounded(p), index.tolist(), distance, strict=True)
        ]

    def _class(self, name: str, probability: float) -> str | None:
        return None if self.threshold is not None and probability < self.threshold else name

    def unreadable(self, head: Row, reason: str) -> Row:
        columns = self.columns
        cells = {**dict.fromkeys(columns), **dict(zip(columns, head, strict=False)), "error": reason}
        return tuple(cells.values())

    def predict(
        self,
        blocks: Iterable[Block],
        paths: Sequence[str | None],
        missing: Mapping[str, str],
        ids: Sequence[str] | None = None,
    ) -> Iterator[list[Row]]:
        """The rows of each block of samples with these `paths` (and `ids`, where there is a column of them), then those of the
        files in `missing`, path -> reason, of which no sample could be read."""
        for block in blocks:
            numbers = block.ids.tolist()
            here = [*numbers, *block.unreadable]
            heads = {i: (paths[i],) if ids is None else (ids[i], paths[i]) for i in here}
            rows = {i: self.unreadable(heads[i], reason) for i, reason in block.unreadable.items()}
            if numbers:
                found = self.rows(block.features, block.ids % ROWS, [heads[i] for i in numbers])
                rows |= dict(zip(numbers, found, strict=True))
            yield [rows[i] for i in sorted(rows)]
        if missing:
            none = () if ids is None else (None,)
            yield [self.unreadable((*none, path), reason) for path, reason in missing.items()]


def rounded(p: Tensor) -> list[list[float]]:
    """Probabilities (n, K) with DIGITS digits, of which each row sums to 1: the largest remainders are rounded up."""
    unit = 10**DIGITS
    scaled = p.double() / p.double().sum(dim=1, keepdim=True) * unit
    whole = scaled.floor()
    missing = unit - whole.sum(dim=1, keepdim=True)
    rank = (scaled - whole).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    units = (whole + (rank < missing)).long()
    return [[n / unit for n in row] for row in units.tolist()]


def check_threshold(threshold: float | None) -> None:
    if threshold is not None and not 0 <= threshold <= 1:
        raise RequestError(f"threshold={threshold:g}: expected a probability from 0 to 1", "threshold=0.9")


def check_probabilities(which: str) -> None:
    if which not in PROBABILITIES:
        raise RequestError(f"probabilities={which}: expected {', '.join(PROBABILITIES)}", "probabilities=all")


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
            self.far += cells.get("distance", 0) >= FAR
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
