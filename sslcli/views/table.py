"""Views of rows of a table: raw samples and views are (F,) float32, with numbers standardized as they are read, NaN where one is
missing, and categories as indices, 0 where one is missing or unknown. The ops (tables/ops.py) keep this form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.tables.preprocessor import TablePreprocessor
from sslcli.data.user_files.samples import UserFiles
from sslcli.data.user_files.tables import read_table_files
from sslcli.nn.values import Columns, Values
from sslcli.rng import Draw
from sslcli.views.copies import NearCopies
from sslcli.views.corruption import Corruption
from sslcli.views.modality import Baseline, Modality, RawFeatures
from sslcli.views.op import Op, OpRandoms
from sslcli.views.preview.base import Preview
from sslcli.views.preview.row import Row
from sslcli.views.tables.baselines import OneHot, baselines
from sslcli.views.tables.copies import RowCopies, defects
from sslcli.views.tables.corruptions import corruptions
from sslcli.views.tables.ops import OPS, TableOp


class TableView:
    """One view: raw rows (B, F) -> (B, F)."""

    def __init__(self, ops: list[Op], dataset: Dataset):
        self.ops = ops
        self.shape = tuple(dataset.shape)
        for op in ops:
            assert isinstance(op, TableOp), op
            op.attach(dataset)

    def resident(self, raw: Tensor, draw: Draw) -> Tensor:
        assert raw.shape[1:] == self.shape, (raw.shape, self.shape)
        x = raw.to(torch.float32, copy=True)
        return OpRandoms(self.ops, draw, raw.device).run(self.ops, x, slice(0, len(x)))

    def frame(self, samples: Sequence[Any], draw: Draw) -> Tensor:
        """Stack rows that are read one at a time."""
        return torch.stack([torch.as_tensor(sample, dtype=torch.float32) for sample in samples])

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        """Apply all ops."""
        return self.resident(frame, draw)


class TableModality(Modality):
    """Rows of a table."""

    noun = ("row", "rows")
    ops = OPS
    unit = "standard deviations of the column"

    def view(self, ops: list[Op], dataset: Dataset) -> TableView:
        return TableView(ops, dataset)

    def read_files(self, paths: Sequence[str], preprocessor: Preprocessor, notes: list[str]) -> UserFiles:
        assert isinstance(preprocessor, TablePreprocessor), preprocessor
        return read_table_files(paths, preprocessor, notes)

    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        x = x.detach().float().cpu()
        names = tuple(self.position_names(dataset))
        if isinstance(dataset.preprocessor, TablePreprocessor):
            rows = [list(row.values()) for row in dataset.preprocessor.decode(x)]
        else:
            present = columns_of(dataset.values).present(x).tolist()
            rows = [
                [v if here else None for v, here in zip(row, known, strict=True)]
                for row, known in zip(in_units(x, columns_of(dataset.values)).tolist(), present, strict=True)
            ]
        return [Row(names, tuple(map(format_cell, row))) for row in rows]

    def position_names(self, dataset: Dataset) -> list[str]:
        if isinstance(dataset.preprocessor, TablePreprocessor):
            return list(dataset.preprocessor.names)
        return [f"column {j + 1}" for j in range(dataset.shape[0])]

    def raw_features(self, dataset: Dataset) -> RawFeatures:
        return OneHot(columns_of(dataset.values))

    def baselines(self, dataset: Dataset) -> dict[str, Baseline]:
        return baselines(dataset, columns_of(dataset.values))

    def near_copies(self, dataset: Dataset, features: RawFeatures) -> NearCopies:
        return RowCopies(columns_of(dataset.values), features)

    def doubts_copies(self, dataset: Dataset) -> str | None:
        return None if dataset.id is None else "the identifiers differ"

    def defects(self, x: Tensor, dataset: Dataset) -> Mapping[str, Tensor]:
        return defects(x, columns_of(dataset.values))

    def corruptions(self, dataset: Dataset) -> Mapping[str, Corruption]:
        return corruptions(columns_of(dataset.values))

    def mean(self, batches: Iterator[Tensor], dataset: Dataset) -> Tensor:
        """The mean of each column of numbers, and the most frequent category of the others."""
        values = columns_of(dataset.values)
        counts = [torch.zeros(n) for n in values.categories]

        def counted() -> Iterator[Tensor]:
            for x in batches:
                for j, n in enumerate(values.categories):
                    if n:
                        counts[j] += x[:, j].long().bincount(minlength=n).cpu()
                yield x

        out = super().mean(counted(), dataset)
        for j, n in enumerate(values.categories):
            if n > 1:  # never the unknown one
                out[0, j] = 1 + counts[j][1:].argmax()
        return out

    def interpolate(self, x: Tensor, known: Tensor) -> Tensor:
        return torch.where(known, x, 0.0)

    def errors(self, guess: Tensor, target: Tensor, values: Values) -> dict[str, Tensor]:
        """`mse` of numbers, and `error_rate` of categories, where there are such columns."""
        each = values.likelihood().error(guess, target)
        category = columns_of(values).is_category(each)
        parts = {"mse": each.masked_fill(category, torch.nan), "error_rate": each.masked_fill(~category, torch.nan)}
        has = {"mse": not bool(category.all()), "error_rate": bool(category.any())}
        return {name: part for name, part in parts.items() if has[name]}


def in_units(x: Tensor, values: Columns) -> Tensor:
    """Rows (B, F) with numbers in their own units; categories as they are."""
    numbers = values.categories.count(0)
    out: Tensor = values.conversion(Columns(values.categories, (0.0,) * numbers, (1.0,) * numbers)).to(x.device)(x)
    return out


def columns_of(values: Values) -> Columns:
    assert isinstance(values, Columns), values
    return values


def format_cell(value: float | str | None) -> str:
    """Four significant digits of a number, and a dash for a missing value."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
