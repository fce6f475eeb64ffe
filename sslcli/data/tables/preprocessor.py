"""The preprocessor of tables: columns by name to standardized numbers and indices of categories, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from sslcli.config import typecheck
from sslcli.console import escape
from sslcli.data import notify
from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.tables.cells import CellFormat
from sslcli.data.tables.columns import Column, Table, TableFile, read_tables, table_from_columns, table_from_rows
from sslcli.data.tables.encoding import ColumnEncoding, category_codes, difference
from sslcli.data.tables.find import find_files, open_recorded
from sslcli.data.tables.label import require_finite
from sslcli.errors import DataError, RequestError, SslError, listing
from sslcli.nn.values import Columns

MAX_LISTED = 6  # columns in an error
FAR = 1e6  # standard deviations: values further from the mean of training are clipped, so that no float32 overflows


@dataclass(frozen=True)
class TablePreprocessor(Preprocessor):
    """Encodes rows as (F,) float32: numbers standardized in float64 by the training rows, NaN where one is missing; categories as
    their index from 1, and 0 for a missing one and for one that no training row has.

    Raw samples are encoded so, and not as the numbers of the file, because float32 keeps seven digits: of a time in seconds since
    1970, or of a number near 1e38, too little would be left. `values.restore`, or `decode`, gives the units of the file.

    columns: in the order of x, F of them. label, task, classes: of the training data. dropped: the names of columns that were not
    used. cells: how they are written. header, delimiter: dataset.names and dataset.delimiter of the training data, with which later
    files without a header are read. id: the column of identifiers, which later files have too.
    """

    kind: ClassVar[str] = "table"
    columns: tuple[ColumnEncoding, ...]
    label: str | None = None
    task: str = "classes"
    classes: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    cells: CellFormat = field(default_factory=CellFormat)
    header: tuple[str, ...] = ()
    delimiter: str | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        assert self.columns

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (len(self.columns),)

    @property
    def values(self) -> Columns:  # type: ignore[override]
        numbers = [c for c in self.columns if c.categories is None]
        sizes = tuple(0 if c.categories is None else 1 + len(c.categories) for c in self.columns)
        return Columns(sizes, tuple(c.mean for c in numbers), tuple(c.std for c in numbers))

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.columns]

    @property
    def categorical(self) -> set[str]:
        return {c.name for c in self.columns if c.categories is not None}

    def to_json(self) -> dict[str, Any]:
        given = {"header": list(self.header), "delimiter": self.delimiter, "id": self.id}
        return {
            "columns": [c.to_json() for c in self.columns],
            "label": self.label,
            "task": self.task,
            "classes": list(self.classes),
            "dropped": list(self.dropped),
            "decimal": self.cells.decimal,
            "thousands": self.cells.thousands,
            "missing": sorted(self.cells.missing),
            **{key: value for key, value in given.items() if value},  # absent in earlier versions: keeps hashes
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        kinds: dict[str, Any] = {
            "columns": list,
            "label": str | None,
            "task": str,
            "classes": list[str],
            "dropped": list[str],
            "decimal": str,
            "thousands": str | None,
            "missing": list[str],
            "header": list[str],
            "delimiter": str | None,
            "id": str | None,
        }
        content = {"header": [], "delimiter": None, "id": None, **content}
        for key, kind in kinds.items():
            if not typecheck.matches_type(content.get(key), kind):
                raise ValueError(f"{key}: expected {typecheck.describe_type(kind)}")
        columns = tuple(map(ColumnEncoding.from_json, content["columns"]))
        if not columns or len({c.name for c in columns}) != len(columns):
            raise ValueError("expected one column or more, with different names")
        if content["task"] not in ("classes", "value"):
            raise ValueError("task: expected classes or value")
        try:
            cells = CellFormat.parse(content["decimal"], content["thousands"], content["missing"])
        except SslError as error:
            raise ValueError(error.message) from None
        classes, dropped, header = (tuple(content[key]) for key in ("classes", "dropped", "header"))
        label, task, delimiter, id = (content[key] for key in ("label", "task", "delimiter", "id"))
        return cls(columns, label, task, classes, dropped, cells, header, delimiter, id)

    def configure(self, node: dict[str, Any], same_data: bool = False) -> dict[str, Any]:
        """With the column of identifiers, where none is given."""
        return node if self.id is None or node.get("id", "") is not None else {**node, "id": self.id}

    # ------------------------------------------------------------------------------------------------------------- encode

    def encode(self, samples: Any) -> Tensor:
        """(N, F) float32 of new rows, whose columns match by name, in any order.

        `samples`: the path of a table, rows as dictionaries, a dictionary of columns, or a DataFrame. Columns that were not in
        training are ignored; categories that were not become 0; both are logged. DataError where a column is missing, or where
        one of numbers holds text."""
        notes: list[str] = []
        x = self.encode_table(self._table(samples, notes), notes)
        for note in notes:
            notify.log(note)
        return x

    def with_file_options(self, options: Mapping[str, Any]) -> Self:
        """Marks and markers of numbers as in `options`; a value of another type is left to the function of the data set."""
        kinds: dict[str, Any] = {"decimal": str, "thousands": str | None, "missing": list[str | float] | None}
        given = {k: options[k] for k, t in kinds.items() if k in options and typecheck.matches_type(options[k], t)}
        return replace(self, cells=self.cells.changed(given)) if given else self

    def for_new_data(self, node: Mapping[str, Any], notes: list[str]) -> Self:
        """Marks of numbers as in `node`; its markers of missing values, or those of training where it has none."""
        new = self.with_file_options({k: v for k, v in node.items() if k != "missing" or v is not None})
        notes += new.cells.difference(self.cells)
        return new

    def _table(self, samples: Any, notes: list[str]) -> Table:
        if isinstance(samples, (str, os.PathLike)):
            return self.read([self.open(p) for p in find_files(os.fspath(samples), None, [])["train"]], notes)
        text = self.categorical
        if isinstance(samples, Mapping):
            columns = {str(k): list(v) for k, v in samples.items()}
            return table_from_columns(columns, len(next(iter(columns.values()), [])), "the table", self.cells, text)
        if hasattr(samples, "columns") and hasattr(samples, "to_dict"):  # a DataFrame of pandas or polars
            columns = {str(name): list(samples[name]) for name in samples.columns}
            return table_from_columns(columns, len(samples), "the table", self.cells, text)
        rows = list(samples) if isinstance(samples, Sequence) else None
        if rows is None or not all(isinstance(row, Mapping) for row in rows):
            raise DataError(
                "expected the path of a table, rows as dictionaries, or a dictionary of columns, "
                f"got {type(samples).__name__}"
            )
        return table_from_rows(rows, "the rows", self.cells, text)

    def open(self, path: str, delimiter: str | None = None) -> TableFile:
        """A file of new rows, with a header or, where the training data had none, without one. `delimiter`: another one."""
        return open_recorded(path, delimiter or self.delimiter, self.header, self.names, self.label)

    def read(
        self,
        files: Sequence[Any],
        notes: list[str],
        others: Sequence[str] = (),
        optional: Sequence[str] = (),
        id: str | None = None,
    ) -> Table:
        """The columns of files that the encoding needs, and `others` (labels, groups), of which a file need not have those that
        are `optional`, and the identifiers in the column `id`. Adds a note on all other columns."""
        for file in files:
            self._require_columns(file.what, file.columns)
        self._ignore([c for c in files[0].columns if c not in (*others, id)], notes)
        return read_tables(files, self.cells, self.categorical, (), {*self.names, *others}, optional, id)

    def _require_columns(self, what: str, names: Sequence[str]) -> None:
        if absent := [n for n in self.names if n not in names]:
            raise DataError(
                f"{what} has no column {listing(map(escape, absent), 6)}, which the encoder was trained with",
                f"its columns: {listing(map(escape, names), 12)}",
            )

    def _ignore(self, names: Sequence[str], notes: list[str]) -> None:
        """Add a note on columns that were not there in training."""
        known = {*self.names, *self.dropped, self.label, self.id}
        if extra := [n for n in names if n not in known]:
            notes.append(f"columns that were not in training ignored: {listing(map(escape, extra), 6)}")

    def encode_table(self, table: Table, notes: list[str]) -> Tensor:
        """(n, F) float32 of the rows of a table; frees its columns. Adds notes on categories that are not known."""
        self._require_columns(table.what, list(table.columns))
        self._ignore(list(table.columns), notes)
        self._require_numbers(table)
        x = torch.empty(len(table), len(self.columns))
        unseen = []
        for j, encoding in enumerate(self.columns):
            column = table.columns[encoding.name]
            if encoding.categories is None:
                x[:, j] = torch.from_numpy(self._standardize(column, encoding, table))
            else:
                codes, n = category_codes(column, encoding)
                x[:, j] = torch.from_numpy(codes)
                if n:
                    unseen.append(f"{escape(encoding.name)} {n:,}")
            del table.columns[encoding.name]
        if unseen:
            notes.append(f"warning: categories that no training row has, read as unknown: {listing(unseen, 6)}")
        return x

    def _require_numbers(self, table: Table) -> None:
        """DataError that lists all columns of numbers that hold text here, with the key that reads them."""
        names = (encoding.name for encoding in self.columns if encoding.categories is None)
        wrong = [c for c in (table.columns[name] for name in names) if c.numbers is None and not c.is_empty]
        if not wrong:
            return
        parts = [
            f"column {escape(column.name)} holds numbers in training, but text here: {table.rows_with_text(column.name)}"
            for column in wrong[:MAX_LISTED]
        ]
        more = [f"and {len(wrong) - MAX_LISTED} more columns"] if len(wrong) > MAX_LISTED else []
        raise DataError(f"{table.what}: {'; '.join([*parts, *more])}", table.hint_for_text(wrong))

    def _standardize(self, column: Column, encoding: ColumnEncoding, table: Table) -> np.ndarray:
        if column.numbers is None:
            return np.full(len(table), np.nan, np.float32)
        require_finite(column, table)
        return np.clip((column.numbers - encoding.mean) / encoding.std, -FAR, FAR).astype(np.float32)

    # ------------------------------------------------------------------------------------------------------------- decode

    def decode(self, raw: Tensor) -> list[dict[str, float | str | None]]:
        """Rows as dictionaries in the units of the file; None where a value is missing or unknown."""
        return [
            {c.name: self.decode_cell(j, v) for j, (c, v) in enumerate(zip(self.columns, row, strict=True))}
            for row in raw.double().cpu().tolist()
        ]

    def decode_cell(self, j: int, value: float) -> float | str | None:
        """The value of column j in the units of the file: a number, the name of a category, or None."""
        encoding = self.columns[j]
        if value != value:
            return None
        if encoding.categories is None:
            number = value * encoding.std + encoding.mean
            return 0.0 if abs(number) < 1e-6 * encoding.std else number  # what float32 leaves of 0
        index = round(value)
        return encoding.categories[index - 1] if 1 <= index <= len(encoding.categories) else None

    # --------------------------------------------------------------------------------------------------------- comparisons

    def differences(self, other: Preprocessor) -> list[str]:
        if not isinstance(other, TablePreprocessor):
            return super().differences(other)
        changed = self._column_differences(other)
        if (self.label, self.task, self.classes) != (other.label, other.task, other.classes):
            changed.append("the label or its classes differ")
        return changed

    def _column_differences(self, other: TablePreprocessor) -> list[str]:
        """How the columns of `other`, compared by name, differ from these."""
        before, now = ({c.name: c for c in p.columns} for p in (self, other))
        changed = [f"column {escape(name)} is missing" for name in before if name not in now]
        changed += [f"column {escape(name)} is new" for name in now if name not in before]
        differ = [name for name in before if name in now and before[name] != now[name]]
        changed += [f"column {escape(name)} {difference(before[name], now[name])}" for name in differ]
        if not changed and self.names != other.names:
            changed.append("the columns are in another order")
        return changed

    def adapt(self, dataset: Dataset, notes: list[str]) -> Dataset:
        """Tables are encoded with the preprocessor of the run as they are read, by functions that have an argument `like`. Those of
        other functions fit where their columns, by name, are encoded alike. RequestError says what differs."""
        own = dataset.preprocessor
        if isinstance(own, TablePreprocessor):
            changed = self._column_differences(own)
        else:
            changed = [
                f"it is no table: {dataset.modality}" if dataset.modality != self.kind else "its columns have no names"
            ]
        if changed:
            more = f"; and {len(changed) - 6} more" if len(changed) > 6 else ""
            raise RequestError(
                f"{dataset.name} is not encoded as this encoder was trained: {'; '.join(changed[:6])}{more}",
                "a data-set function with an argument `like: TablePreprocessor | None` encodes rows as the run did"
                if isinstance(own, TablePreprocessor)
                else f"its columns: {listing(map(escape, self.names), 8)}",
            )
        return dataset
