"""The text of CSV files, which spreadsheets show and do not execute."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

# How a formula begins, in one spreadsheet or another (the wide forms too); tab and return, which some skip, are escaped.
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def written(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """The text of a CSV file."""
    return csv_lines([header]) + csv_lines(rows)


def csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    """Lines of a CSV file. Every CSV file of the program is written by this function."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(map(cell, row) for row in rows)
    return text.getvalue()


def cell(value: object) -> Any:
    """What a spreadsheet shows and does not execute: text that would be a formula gets an apostrophe in front, control characters
    are escaped. Numbers stay numbers."""
    if value is None or isinstance(value, (int, float)):
        return value
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(value))
    return f"'{text}" if text.startswith(FORMULA) and not is_number(text) else text


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
