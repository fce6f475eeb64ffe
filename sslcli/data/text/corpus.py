"""Documents as they were read, with their splits, labels and places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sslcli.data.folders.split_names import SPLITS
from sslcli.data.text.documents import Documents

PARTS = SPLITS  # train, test, val, unlabelled
TRAIN, TEST, VAL, UNLABELLED = range(len(PARTS))


@dataclass
class Corpus:
    """Documents of one data set.

    parts: (n,) index of PARTS; -1 for those that are not used. labels: (n,) int64 index of `classes`, -1 without a label, or None.
    names: of each document, or None. column: of text, of a table, or None. id: the column of the identifiers that are the names, or
    None."""

    documents: Documents
    parts: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    names: Sequence[str] | None = None
    column: str | None = None
    id: str | None = None
