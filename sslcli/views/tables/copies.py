"""Near copies of rows of a table, and rows that hold next to nothing."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sslcli.nn.values import Columns
from sslcli.views.copies import NearCopies, unit
from sslcli.views.modality import RawFeatures

CLOSE = 1e-3  # standard deviations: numbers that differ by less are equal
MISSING = 0.5  # of the cells of a row


class RowCopies(NearCopies):
    """Candidates are neighbors by their standardized numbers and categories. Their similarity is the share of columns in which they
    agree; in a near copy, one column in ten at most differs."""

    note: ClassVar[str] = "rows that differ in at most a tenth of the columns"
    candidate: ClassVar[float] = 0.6
    threshold: ClassVar[float] = 0.9
    by_chance: ClassVar[bool] = True

    def __init__(self, values: Columns, features: RawFeatures):
        self.values, self.features = values, features

    def describe(self, x: Tensor) -> Tensor:
        return unit(self.features.transform(x))

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        missing = a.isnan() & b.isnan()
        equal = torch.where(self.values.is_category(a), a == b, (a - b).abs() < CLOSE) | missing
        return equal.float().mean(dim=1)


def defects(x: Tensor, values: Columns) -> dict[str, Tensor]:
    """Scores (B,) of rows (B, F) by the name of a defect; NaN for rows without it. missing: the share of missing cells."""
    share = 1 - values.present(x).float().mean(dim=1)
    return {"missing": share.where(share > MISSING, torch.nan)}
