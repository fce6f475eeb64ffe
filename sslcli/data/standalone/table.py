"""Convert rows of a table to the inputs of the encoder in this folder. Requires NumPy."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FAR = 1e6  # standard deviations, beyond which numbers are clipped
LARGEST = float(np.finfo(np.float32).max)
NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?i:inf|infinity)")
WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
MISSING = (  # cells without a value
    "", "?", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip


class Preprocessor:
    """columns: of the table, in the order of an input: `name`, `type`, and `mean` and `std` of numbers or the `categories`.

    decimal, thousands: the characters in the numbers of text files. missing: texts of cells without a value."""

    def __init__(self, folder: str | Path = Path(__file__).parent / "preprocessor"):
        about = json.loads(Path(folder, "preprocessor.json").read_text(encoding="utf-8"))
        self.columns: list[dict[str, Any]] = about["columns"]
        self.decimal, self.thousands = about["decimal"], about["thousands"]
        self.missing = {*MISSING, *about["missing"]}
        self.missing_numbers = {float(m) for m in about["missing"] if NUMBER.fullmatch(m)}
        self.codes = {
            c["name"]: {text: code for code, text in enumerate(c["categories"], 1)}
            for c in self.columns
            if c["type"] == "category"
        }

    def encode(self, rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
        """(n, F) float32: standardized numbers, NaN where one is missing; categories as indices from 1, 0 where one is missing or
        was not in training.

        rows: values by the names of columns: numbers, text or None, such as those of `csv.DictReader`. Other columns are
        ignored."""
        rows = list(rows)
        if absent := [c["name"] for c in self.columns if rows and not any(c["name"] in row for row in rows)]:
            raise ValueError(f"no row has the columns {absent}")
        x = np.zeros((len(rows), len(self.columns)), np.float32)
        for j, column in enumerate(self.columns):
            cells = [row.get(column["name"]) for row in rows]
            if column["type"] == "category":
                x[:, j] = [self.code(column["name"], cell) for cell in cells]
            else:
                numbers = np.array([self.number(column["name"], cell) for cell in cells], np.float64)
                x[:, j] = ((numbers - column["mean"]) / column["std"]).clip(-FAR, FAR)
        return x

    def number(self, name: str, cell: Any) -> float:
        """The number in a cell; NaN for a missing one."""
        if isinstance(cell, (int, float, np.integer, np.floating)) and not isinstance(cell, bool):
            number = float(cell)
        else:
            text = "" if cell is None else str(cell).strip()
            number = math.nan if text in self.missing else self.parse(name, text)
        if abs(number) > LARGEST:
            raise ValueError(f"column {name!r}: expected numbers that 32-bit floats can hold, got {cell!r}")
        return math.nan if number in self.missing_numbers else number

    def parse(self, name: str, text: str) -> float:
        """The number that a text means, written with the decimal and thousands separators of the training data."""
        point, plain = re.escape(self.decimal), text
        if self.thousands is not None and self.thousands in text:
            group = re.escape(self.thousands)
            grouped = re.fullmatch(rf"[+-]?[1-9][0-9]{{0,2}}(?:{group}[0-9]{{3}})+(?:{point}[0-9]*)?", text)
            plain = text.replace(self.thousands, "") if grouped else ""
        if self.decimal != ".":
            plain = "" if "." in plain else plain.replace(self.decimal, ".")
        if not NUMBER.fullmatch(plain):
            raise ValueError(f"column {name!r}: expected numbers, got {text!r}")
        return float(plain)

    def code(self, name: str, cell: Any) -> int:
        """The index of a category."""
        if isinstance(cell, (bool, np.bool_)):
            text = "true" if cell else "false"
        elif isinstance(cell, (float, np.floating)):
            text = "" if math.isnan(cell) else format_number(float(cell))
        else:
            text = "" if cell is None else str(cell).strip()
        codes = self.codes[name]
        return 0 if text in self.missing else codes.get(text, codes.get(canonical(text), 0))


def canonical(text: str) -> str:
    """The name of a category that is a number: the same for 1, 1.0 and +1."""
    if not NUMBER.fullmatch(text):
        return text
    if whole := WHOLE.fullmatch(text):
        digits = whole[1].removeprefix("+")
        return digits.replace("-0", "0") if int(digits) == 0 else digits
    return format_number(float(text))


def format_number(value: float) -> str:
    """The shortest text of a number: 1 for 1.0."""
    whole = math.isfinite(value) and value == int(value) and abs(value) < 1e15
    return str(int(value)) if whole else repr(value)
