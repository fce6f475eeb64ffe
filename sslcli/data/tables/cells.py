"""Parse the cells of text tables: numbers, markers of missing values, and what looks like a number but needs an option."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sslcli.console import escape
from sslcli.data.files.label_text import MISSING
from sslcli.errors import RequestError

# A cell with one of these texts has no value, in a column of any type: those of pandas, and what UCI and Weka write.
MARKERS = MISSING | {"", "?"}
NUMBER = r"[+-]?(?:(?:0|[1-9][0-9]*+)(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?|[+-]?(?i:inf|infinity)"
PLAIN = re.compile(NUMBER)
PLAIN_CELLS = re.compile(rf"(?>(?:{NUMBER})?\n)*+")  # of a column, each followed by a line feed; empty ones are missing
WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
CODE = re.compile(r"[+-]?0[0-9]+")  # a leading zero: an identifier, such as a postal code
DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})(?: .*)?|\d{1,2}:\d{2}(?::\d{2}.*)?",
    re.ASCII,
)


class TextCells(list[str]):
    """Cells that are text whatever they look like, of a file that has types."""


# Words for characters that a shell or the grammar of overrides would take for its own
CHARACTERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|", "space": " ", "point": "."}


def parse_character(key: str, value: str, example: str) -> str:
    """The punctuation mark that `dataset.KEY` gives, itself or as a word of CHARACTERS. RequestError for anything else."""
    mark = CHARACTERS.get(value, value)
    if len(mark) != 1 or mark.isalnum() or mark in '+-"\n\r':
        raise RequestError(
            f"dataset.{key}: expected a punctuation mark or one of {', '.join(CHARACTERS)}, got {escape(value)}",
            f"dataset.{key}={example}",
        )
    return mark


@dataclass(frozen=True)
class CellFormat:
    """How cells are written. `decimal`, `thousands`: the characters in numbers; `missing`: further markers of missing values.

    RequestError where both are the same."""

    decimal: str = "."
    thousands: str | None = None
    missing: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.decimal == self.thousands:
            raise RequestError(f"dataset.decimal and dataset.thousands are both {escape(self.decimal)!r}")

    @classmethod
    def parse(cls, decimal: str, thousands: str | None, missing: Iterable[str] = ()) -> CellFormat:
        """The format that the keys of a configuration give. RequestError."""
        group = None if thousands is None else parse_character("thousands", thousands, "comma")
        return cls(parse_character("decimal", decimal, "comma"), group, frozenset(missing))

    def changed(self, options: Mapping[str, Any]) -> CellFormat:
        """This format with the keys decimal, thousands and missing of a configuration, where `options` has them. Where one mark is
        given and the other one was the same, the other one changes: the decimal mark to a point or a comma, that of thousands to
        none. RequestError."""
        decimal, thousands, missing = self.decimal, self.thousands, self.missing
        if "decimal" in options:
            decimal = parse_character("decimal", options["decimal"], "comma")
        if "thousands" in options:
            given = options["thousands"]
            thousands = None if given is None else parse_character("thousands", given, "comma")
        if "missing" in options:
            missing = as_markers(options["missing"])
        if decimal == thousands and "decimal" not in options:
            decimal = "," if thousands == "." else "."
        elif decimal == thousands and "thousands" not in options:
            thousands = None
        return CellFormat(decimal, thousands, missing)

    def difference(self, trained: CellFormat) -> list[str]:
        """A warning where the marks of numbers are not those of the data that an encoder was `trained` on."""
        now, before = ((form.decimal, form.thousands) for form in (self, trained))
        if now == before:
            return []
        texts = [f"decimal mark {d!r}" + (f", thousands {t!r}" if t is not None else "") for d, t in (now, before)]
        return [
            f"numbers are read with {texts[0]}, as dataset.decimal and dataset.thousands are here; the data that the encoder was "
            f"trained on have {texts[1]}"
        ]

    @property
    def markers(self) -> frozenset[str]:
        return MARKERS | self.missing

    @property
    def missing_numbers(self) -> list[float]:
        """The values of the further markers that are numbers: -999 also matches -999.0."""
        return [float(m) for m in self.missing if PLAIN.fullmatch(m)]

    def plain(self, cell: str) -> str | None:
        """A number as Python writes it; None for what is not one."""
        if self.thousands is not None and self.thousands in cell:
            if not _grouped(self.thousands, self.decimal).fullmatch(cell):
                return None
            cell = cell.replace(self.thousands, "")
        if self.decimal != ".":
            if "." in cell:
                return None
            cell = cell.replace(self.decimal, ".")
        return cell if PLAIN.fullmatch(cell) else None

    def numbers(self, cells: Sequence[str]) -> np.ndarray | None:
        """(n,) float64 of a column of cells, NaN where one is missing; None where a cell is text.

        Whole numbers with leading zeros are codes, and text."""
        values = self._plain_numbers(cells) if self.decimal == "." and self.thousands is None else None
        if values is None:
            markers = self.markers
            stripped = ["" if (text := cell.strip()) in markers else text for cell in cells]
            if self.decimal != "." or self.thousands is not None:
                plain = [self.plain(cell) if cell else "" for cell in stripped]
                if None in plain:
                    return None
                stripped = [cell or "" for cell in plain]
            values = self._plain_numbers(stripped)
        if values is not None:
            for marker in self.missing_numbers:
                values[values == marker] = np.nan
        return values

    @staticmethod
    def _plain_numbers(cells: Sequence[str]) -> np.ndarray | None:
        if not PLAIN_CELLS.fullmatch("\n".join(cells) + "\n"):
            return None
        try:
            if "" in cells:
                return np.array([float(cell) if cell else np.nan for cell in cells], dtype=np.float64)
            return np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:  # a cell with a line feed
            return None


def as_markers(missing: Iterable[object] | None) -> frozenset[str]:
    """Markers of missing values from a configuration, where some are numbers."""
    return frozenset(format_number(m) if isinstance(m, float) else str(m) for m in missing or ())


def _grouped(thousands: str, decimal: str) -> re.Pattern[str]:
    return re.compile(rf"[+-]?[1-9][0-9]{{0,2}}(?:{re.escape(thousands)}[0-9]{{3}})+(?:{re.escape(decimal)}[0-9]*)?")


def canonical(text: str) -> str:
    """The name of a category whose text is a number, the same for 1, 1.0 and +1; other text is unchanged."""
    if not PLAIN.fullmatch(text):
        return text
    whole = WHOLE.fullmatch(text)
    if whole:
        return whole[1].removeprefix("+").replace("-0", "0") if int(whole[1]) == 0 else whole[1].removeprefix("+")
    return format_number(float(text))


def format_number(value: float) -> str:
    """The shortest text of a number: 1 for 1.0."""
    if not math.isfinite(value):
        return repr(float(value))
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def number_options(texts: Iterable[str], used: CellFormat) -> str | None:
    """The options with which all `texts` are numbers, such as "dataset.decimal=comma"; None where there are none,
    and where they are numbers as `used` has it: a file with types says that they are text."""
    texts = list(texts)
    if all(used.plain(t) for t in texts):
        return None
    if used.decimal != "." and all(PLAIN.fullmatch(t) for t in texts):
        return "dataset.decimal=point"
    forms = [
        ("dataset.decimal=comma", CellFormat(",")),
        ("dataset.decimal=comma dataset.thousands=point", CellFormat(",", ".")),
        ("dataset.thousands=comma", CellFormat(".", ",")),
        ("dataset.thousands=space", CellFormat(".", " ")),
        ("dataset.decimal=comma dataset.thousands=space", CellFormat(",", " ")),
        ("dataset.decimal=point", CellFormat(".")),
    ]
    # of 1,234 and 5,678 the comma divides thousands; of 1,234 and 5,6 it is a decimal comma
    if all(_grouped(",", ".").fullmatch(text) or PLAIN.fullmatch(text) for text in texts):
        forms.insert(0, forms.pop(2))
    for option, form in forms:
        if (form.decimal, form.thousands) != (used.decimal, used.thousands) and all(form.plain(t) for t in texts):
            return option
    return None
