"""Columns of a table of recordings: numbers as float32, text, and times as seconds."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Collection, Sequence

import numpy as np

from sslcli.console import escape
from sslcli.data.tables.cells import CellFormat
from sslcli.data.tables.columns import TableFile
from sslcli.data.tables.delimited import DelimitedFile
from sslcli.data.tables.find import open_file
from sslcli.data.tables.parquet import is_parquet
from sslcli.errors import DataError, RequestError

CELLS = CellFormat()
LARGEST = 1e38


def open_table(path: str, delimiter: str | None = None) -> tuple[TableFile, bool]:
    """A table, and whether it has a header: a text table without one is a table of values."""
    try:
        parquet = is_parquet(path)
    except OSError as error:
        raise DataError(f"{escape(path)} cannot be read: {error.strerror}") from error
    if parquet:
        return open_file(path, None, None), True
    file = DelimitedFile(path, delimiter, header=None, one_column=True)
    if not file.has_header:
        return file, False
    return open_file(path, file.delimiter, None) if len(file.columns) > 1 else file, True


def read_columns(file: TableFile, numbers: Collection[str], texts: Collection[str]) -> dict[str, np.ndarray]:
    """Columns of numbers (n,) float32, NaN where one is missing, and of text (n,), and the line of each row as `""`.

    DataError, with the line, for text and infinite numbers among numbers, and where there is no row."""
    kept: dict[str, list[np.ndarray]] = {name: [] for name in (*numbers, *texts)}
    lines: list[np.ndarray] = []
    for at, block in file.blocks({*numbers, *texts}):
        lines.append(at)
        for name in numbers:
            kept[name].append(_numbers(file, name, block[name], at))
        for name in texts:
            column = block[name]
            cells = [CELL.format(v) for v in column.tolist()] if isinstance(column, np.ndarray) else column
            kept[name].append(np.array([cell.strip() for cell in cells], dtype=str))
    if not lines:
        raise DataError(f"{file.what} has a header but no rows")
    return {"": np.concatenate(lines), **{name: np.concatenate(parts) for name, parts in kept.items()}}


CELL = "{:.15g}"  # of a number in a column that is read as text


def _numbers(file: TableFile, name: str, column: np.ndarray | Sequence[str], lines: np.ndarray) -> np.ndarray:
    values = column if isinstance(column, np.ndarray) else CELLS.numbers(column)
    if values is None:
        row, cell = next((i, c) for i, c in enumerate(column) if CELLS.numbers([c]) is None)
        raise DataError(
            f"{file.what}, line {int(lines[row])}: the column {escape(name)} holds {escape(str(cell))!r}; expected a number",
            f"dataset.drop=[{escape(name)}] leaves it out; dataset.label={escape(name)} if it is the label; "
            "leave a missing value empty",
        )
    far = ~(np.abs(values) <= LARGEST) & ~np.isnan(values)
    if far.any():
        raise DataError(
            f"{file.what}, line {int(lines[far.argmax()])}: the column {escape(name)} holds {values[far][0]:g}, "
            "which is infinite or beyond 1e38",
            "leave a missing value empty",
        )
    return values.astype(np.float32)


def parse_times(
    cells: np.ndarray,
    lines: np.ndarray,
    name: str,
    what: str,
    otherwise: str = "dataset.drop=[{}] takes the rows in their order",
) -> np.ndarray:
    """(n,) float64 of a column of numbers, or of dates in ISO 8601 as seconds; those without a zone are in UTC. DataError, with the
    line, for anything else; `otherwise` says how to do without the column."""
    numbers = CELLS.numbers(cells.tolist())
    if numbers is None:
        try:
            if not all(cell[:1].isdigit() for cell in cells.tolist()):  # NumPy reads `today` and `NaT` as times
                raise ValueError
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # NumPy's, which does not represent zones
                return cells.astype("datetime64[us]").astype(np.int64) / 1e6
        except (ValueError, Warning):
            numbers = np.array([_seconds(cell) for cell in cells.tolist()])
            if (
                np.isnan(numbers[0]) and CELLS.numbers(cells[:1].tolist()) is not None
            ):  # a column of numbers, but for one cell
                numbers = np.array([0.0 if CELLS.numbers([cell]) is not None else np.nan for cell in cells.tolist()])
    if np.isfinite(numbers).all():
        return numbers
    row = int((~np.isfinite(numbers)).argmax())
    raise DataError(
        f"{what}, line {int(lines[row])}: the time {escape(str(cells[row]))!r} is neither a number nor a date such as "
        "2016-07-01 13:00:00",
        f"write dates in that form; {otherwise.format(escape(name))}",
    )


def _seconds(cell: str) -> float:
    try:
        moment = datetime.datetime.fromisoformat(cell)
    except ValueError:
        return np.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def require_columns(names: Sequence[str], columns: Sequence[str], key: str, what: str) -> None:
    for name in names:
        if name not in columns:
            raise RequestError(f"dataset.{key}: {escape(name)} is not a column of {what}")
