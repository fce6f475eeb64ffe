"""Write rows to a CSV or Parquet file while they are computed; the file appears when it is complete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcli.data.files.csv_text import csv_lines
from sslcli.errors import MachineError, RequestError, target
from sslcli.runs.files import replacing

ENDINGS = (".csv", ".parquet")

Add = Callable[[Sequence[Sequence[Any]]], None]


def row_target(text: str, example: str) -> Path:
    """The file of `out=`. RequestError where it has another ending, exists, or has no folder; MachineError for Parquet without
    pyarrow."""
    out = target(text, example)
    if out.suffix.lower() not in ENDINGS:
        raise RequestError(
            f"out={text}: expected a file that ends in {' or '.join(ENDINGS)}", f"out={out.with_suffix('.csv')}"
        )
    if os.path.lexists(out):
        raise RequestError(f"out={text} exists", "remove it, or another out=")
    if out.suffix.lower() == ".parquet":
        _pyarrow()
    return out


@contextlib.contextmanager
def open_rows(path: Path, columns: Mapping[str, type]) -> Iterator[Add]:
    """A function that adds rows, with a cell (or None) for each of `columns`, name -> str or float. StorageError where the file
    cannot be written."""
    with replacing(path) as temporary:
        writer = _open_parquet if path.suffix.lower() == ".parquet" else _open_csv
        with writer(temporary, columns) as add:
            yield add


@contextlib.contextmanager
def _open_csv(path: Path, columns: Mapping[str, type]) -> Iterator[Add]:
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(csv_lines([tuple(columns)]))
        yield lambda rows: _discard(file.write(csv_lines(rows)))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _open_parquet(path: Path, columns: Mapping[str, type]) -> Iterator[Add]:
    pyarrow, parquet = _pyarrow()
    types = {str: pyarrow.string(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    with parquet.ParquetWriter(path, schema) as writer:

        def add(rows: Sequence[Sequence[Any]]) -> None:
            cells = zip(*rows, strict=True)
            named = {name: list(column) for name, column in zip(columns, cells, strict=True)}
            writer.write_table(pyarrow.table(named, schema=schema))

        yield add


def _discard(_: object) -> None:
    return None


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MachineError("a Parquet file requires pyarrow", "pip install 'sslcli[table]', or out=FILE.csv") from None
    return pyarrow, parquet
