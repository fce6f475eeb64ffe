"""Parse labels given as text: words for missing labels, integers written as decimals, several labels in one cell."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from sslcli.console import escape, plural
from sslcli.errors import listing

# https://pandas.pydata.org/docs/reference/api/pandas.read_csv.html, na_values; only in these spellings ("none" may be a class)
MISSING = frozenset(
    ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
     "NaN", "None", "n/a", "nan", "null")
)  # fmt: skip
INTEGER = re.compile(r"(-?\d+)(?:[.,]0+)?")
FRACTION = re.compile(r"-?\d*[.,]\d+(?:[eE][+-]?\d+)?")
MIN_UNIQUE = 10  # labels: fewer may all be different without a warning
SEPARATORS = (",", ";", "|", "/", "+", "&", " ")
UNAMBIGUOUS = (",", ";", "|")  # rarely part of a class name


class LabelParser:
    """Parses labels cell by cell and counts the words for missing labels."""

    def __init__(self, keep: Iterable[str] = ()):
        self.keep = frozenset(keep)  # words for missing labels that are classes here
        self.missing: Counter[str] = Counter()

    def label(self, cell: str | None) -> str | None:
        text = (cell or "").strip()
        if text in MISSING and text not in self.keep:
            self.missing[text] += 1
            return None
        return text or None

    def notes(self) -> list[str]:
        return missing_label_warnings(self.missing)


def missing_label_warnings(missing: Counter[str]) -> list[str]:
    if not missing:
        return []
    words = listing((f"{n:,} x {escape(word)}" for word, n in missing.most_common()), 4)
    return [
        f"warning: {plural(missing.total(), 'label')} read as missing ({words}, as in pandas); "
        "rename a class of that name"
    ]


def normalize_numbers(labels: Sequence[str | None]) -> list[str | None]:
    """Labels such as 1.0 and 2,0 as 1 and 2, where all labels are integers: spreadsheets convert columns with gaps to decimals."""
    matches = {label: INTEGER.fullmatch(label) for label in set(labels) if label is not None}
    if not matches or not all(matches.values()):
        return list(labels)
    names = {label: match[1] for label, match in matches.items() if match}
    return [None if label is None else names[label] for label in labels]


def class_warnings(classes: Sequence[str], labeled: int) -> list[str]:
    """Warnings about classes that look like several labels in one cell, like measurements, like each other, or like names of
    samples. `labeled`: the number of samples with a label."""
    notes = multi_label_warnings(classes) + non_integer_warnings(classes) + similar_name_warnings(classes)
    if len(classes) == labeled > MIN_UNIQUE:
        notes.append(
            f"warning: each of {labeled:,} labels occurs once: check that they are classes, not names of samples"
        )
    return notes


def similar_name_warnings(classes: Sequence[str]) -> list[str]:
    """A warning about `Cat` beside `cat`, `01` beside `1`, or composed and decomposed accents."""
    by_look: dict[str, list[str]] = {}
    for c in classes:
        look = " ".join(unicodedata.normalize("NFKC", c).casefold().replace("_", " ").split())
        by_look.setdefault(look.lstrip("0") or "0" if look.isdecimal() else look, []).append(c)
    if same := [matches for matches in by_look.values() if len(matches) > 1]:
        examples = " and ".join(map(escape, same[0]))
        return [
            f"warning: {plural(len(same), 'group')} of classes have nearly the same name, such as {examples}: "
            "check whether they are one class"
        ]
    return []


def multi_label_warnings(classes: Sequence[str]) -> list[str]:
    class_set = set(classes)
    for separator in SEPARATORS:
        parts = {c: {p.strip() for p in c.split(separator)} for c in classes if separator in c}
        parts = {c: p for c, p in parts.items() if len(p) > 1 and "" not in p}
        uses = Counter(p for matches in parts.values() for p in matches)
        shared = {p for p, n in uses.items() if n > 1} if separator in UNAMBIGUOUS else set()
        combined = [c for c, p in parts.items() if p <= class_set or p & shared]
        if combined:
            return [
                f"warning: {plural(len(combined), 'class holds', 'classes hold')} several labels, such as "
                f"{escape(combined[0])}: each combination is read as a class; use one label for each sample"
            ]
    return []


def non_integer_warnings(classes: Sequence[str]) -> list[str]:
    if (
        len(classes) > 2
        and all(FRACTION.fullmatch(c) or INTEGER.fullmatch(c) for c in classes)
        and any(not INTEGER.fullmatch(c) for c in classes)
    ):
        examples = listing(map(escape, classes), 3)
        return [f"warning: labels are not integers ({examples}): each value is read as a class"]
    return []
