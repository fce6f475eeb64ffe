"""Read Parquet files in blocks. Requires pyarrow: the extra `[table]`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from sslcli.console import escape
from sslcli.data.tables.cells import TextCells
from sslcli.errors import DataError, MachineError

MAGIC = b"PAR1"
BLOCK_CELLS = 1 << 19


def is_parquet(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == MAGIC


class ParquetFile:
    """The rows of one Parquet file, in the form of `DelimitedFile`. Columns of numbers keep their type, all others are text; a
    date is text in ISO 8601.

    exact: names of columns whose values are given as they are, so that integers beyond 2^53 keep their digits.

    MachineError without pyarrow, DataError for the content."""

    exact: Collection[str] = ()

    def __init__(self, path: str):
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise MachineError(
                f"{escape(path)} is a Parquet file, which requires pyarrow",
                "pip install 'sslcli[table]', or save it as CSV",
            ) from None
        self.path, self.what = path, escape(path)
        self._errors = (pyarrow.ArrowException, OSError)
        try:
            self._file = parquet.ParquetFile(path)
            schema = self._file.schema_arrow
        except self._errors as error:
            raise self._unreadable(error) from error
        self._names = [str(name) for name in schema.names]
        self.columns = list(self._names)
        self._types = pyarrow.types
        self._kinds = list(schema.types)

    def blocks(self, names: Collection[str]) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray | Sequence[Any]]]]:
        """Blocks of rows of the columns `names`: the number of each row, from 1, (n,) int64, and by the name of a column its
        numbers (n,) float64 or its text."""
        places = {self._names[i]: i for i, name in enumerate(self.columns) if name in names}
        size, first = max(16, BLOCK_CELLS // max(1, len(places))), 1
        batches = self._file.iter_batches(batch_size=size, columns=list(places))
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                block = {
                    self.columns[i]: self._values(batch.column(name), self._kinds[i], self.columns[i])
                    for name, i in places.items()
                }
            except self._errors as error:
                raise self._unreadable(error) from error
            yield np.arange(first, first + batch.num_rows), block
            first += batch.num_rows

    def _values(self, column: Any, kind: Any, name: str) -> np.ndarray | Sequence[Any]:
        types = self._types
        if name not in self.exact and (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
            values = [np.nan if v is None else float(v) for v in column.to_pylist()] if types.is_decimal(kind) else None
            return np.array(
                values if values is not None else column.cast("float64").to_numpy(zero_copy_only=False), np.float64
            )
        if types.is_nested(kind):
            raise DataError(
                f"{self.what}: column {escape(name)} holds {kind}, not single values", f"dataset.drop=[{escape(name)}]"
            )
        if name in self.exact:
            return [v if v is None or isinstance(v, int | float) else _text(v) for v in column.to_pylist()]
        return TextCells("" if v is None else _text(v) for v in column.to_pylist())

    def _unreadable(self, error: Exception) -> DataError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return DataError(f"{self.what} cannot be read: {escape(reason)}", "copy or write it again")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
