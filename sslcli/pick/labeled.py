"""The samples that have a label already: those of a data set that is labeled in part, and of `have=labels.csv`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.errors import DataError, RequestError
from sslcli.evals.inputs.label_file import class_indices, labels_of
from sslcli.evals.inputs.label_rows import Row, find, read
from sslcli.inference.encoder import TrainedEncoder
from sslcli.inference.inputs import Inputs, read_inputs


@dataclass(frozen=True)
class Known:
    """Labels (n,) int64 of all samples, -1 for none; the names of the classes, as far as these are known; the rows of the file;
    notes; and whether some of the labels are the data set's own, so that `labels=all+FILE` is what uses all of them."""

    labels: Tensor
    classes: tuple[str, ...]
    column: str  # that names samples in the file: path, id, or that of dataset.id
    rows: Sequence[Row]
    notes: Sequence[str]
    own: bool = False


def known_labels(inputs: Inputs, encoder: TrainedEncoder, have: str | None) -> Known:
    """The labels of a data set of which some samples have none, and those of a file in the format of `labels=` (`label_file.py`). A
    data set with all labels counts as unlabeled.

    RequestError where the file cannot be read, DataError for unknown samples or classes."""
    n, dataset = len(inputs), inputs.dataset
    own, notes = labels_of(inputs.source), []
    if len(own) == int((own >= 0).sum()):
        own, notes = own.fill_(-1), ["all samples have a label: picked as if they had none"] if n else []
    if have is None:
        count = int((own >= 0).sum())
        notes += [f"{plural(count, 'sample')} with a label are not picked"] if count else []
        return Known(own, dataset.classes, "", [], notes, bool(count))
    column, rows, notes, _ = read(have, dataset.classes, dataset.id)
    places = _places(rows, column, inputs, encoder, have)
    classes, y = class_indices(rows, dataset.classes, have)
    if classes != dataset.classes:
        own.fill_(-1)  # of other classes
    mine = places < n
    if not mine.any():
        raise RequestError(
            f"{escape(have)} has labels of test samples only", f"{dataset.name} is picked from its train split"
        )
    named = torch.zeros(n, dtype=torch.bool).index_fill(0, places[mine], True)
    others = int(((own >= 0) & ~named).sum())
    labels = own.index_copy(0, places[mine], y[mine])
    beside = f", and {others:,} with a label of the data set," if others else ""
    notes = [f"{plural(int(mine.sum()), 'sample')} with a label in {escape(have)}{beside} are not picked", *notes]
    if not mine.all():
        notes.append(f"{plural(int((~mine).sum()), 'label')} of test samples left aside")
    return Known(
        labels, classes, "path" if column == "name" and dataset.id is None else column, rows, notes, bool(others)
    )


def _places(rows: list[Row], column: str, inputs: Inputs, encoder: TrainedEncoder, file: str) -> Tensor:
    """The index of each row's sample: of the samples to pick from, then of the test split, which a file of labels may name too."""
    n, dataset = len(inputs), inputs.dataset
    try:
        return find(rows, column, inputs.source, n, dataset, file)
    except DataError:
        if inputs.request.files:
            raise
        return find(rows, column, read_inputs(encoder, replace(inputs.request, split="all")).source, n, dataset, file)
