"""Decide over all rows which columns of a table are numbers, categories, or left out, and describe them in notes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sslcli.console import escape, format_override, plural
from sslcli.data.tables.cells import CODE, DATE, CellFormat, format_number, number_options
from sslcli.data.tables.columns import MAX_TEXTS, Column, Table
from sslcli.data.tables.encoding import ColumnEncoding, fit_column
from sslcli.data.tables.ids import is_id_name
from sslcli.data.tables.label import require_column, require_finite
from sslcli.errors import DataError, RequestError, listing

FEW_INTEGERS = 20  # different ones: a column of whole numbers may as well be one of codes
MANY_TEXTS = 20  # a column of text with more different ones, most of which occur once, has no categories
OUTLIER_IQRS = 20  # interquartile ranges: a larger standard deviation is caused by a few values
NEARLY = 0.9  # of the values of a column
WORD = re.compile(r"[A-Za-z][\w.]*")  # a text that needs no quotes in an override
LISTED = 4  # texts of a warning
SAMPLE = 200  # texts that are examined for dates


@dataclass
class Features:
    """The columns of x, and the reasons for which others were left out: name -> reason."""

    columns: list[Column] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def choose_features(
    table: Table, names: Sequence[str], numeric: Collection[str], categorical: Collection[str], cells: CellFormat
) -> Features:
    """The types of the columns `names`, with a note on those that may identify rows. DataError where a column cannot have the type
    that `numeric` requests, where a number is not finite, or where text would be numbers with other options."""
    out = Features()
    ambiguous, dates, codes = [], [], []
    unique, named = list[str](), list[str]()  # columns that look like identifiers: features, and those left out
    for name in names:
        column = table.columns[name]
        if name in categorical:
            out.columns.append(column.as_text())
        elif column.numbers is not None:
            require_finite(column, table)
            if _counts_rows(column.numbers, table.boundaries):
                out.dropped[name] = "row numbers"
                named += [name] if is_id_name(name) else []
                continue
            out.columns.append(column)
            kind = _integer_kind(column.numbers) if name not in numeric else ""
            ambiguous += [f"{escape(name)} ({kind})"] if kind not in ("", "unique") else []
            unique += [name] if kind == "unique" or (name not in numeric and _identifies(column)) else []
        elif name in numeric:
            raise DataError(
                f"{table.what}: column {escape(name)} holds text: {table.rows_with_text(name) or 'in many rows'}",
                "dataset.missing=[TEXT] reads such cells as missing; or read it as categories: remove it from dataset.numeric",
            )
        elif column.codes is None:
            out.dropped[name] = f"text, more than {MAX_TEXTS:,} different values"
            named += [name] if is_id_name(name) else []
        else:
            _require_no_format(table, column, cells)
            out.notes += _stray_texts(table, column)
            is_date = bool(column.texts) and all(DATE.fullmatch(t) for t in column.texts[:SAMPLE])
            dates += [escape(name)] if is_date else []
            codes += [escape(name)] if not is_date and any(CODE.fullmatch(t) for t in column.texts[:SAMPLE]) else []
            present = int((column.codes >= 0).sum())
            if len(column.texts) > max(MANY_TEXTS, present / 2):
                kind = "dates" if is_date else "text"
                out.dropped[name] = f"{kind}, {len(column.texts):,} different values in {plural(present, 'row')}"
                named += [name] if _identifies(column) else []
            else:
                out.columns.append(column.as_text())
                unique += [name] if _identifies(column) else []
    if codes:
        out.notes.append(f"numbers with leading zeros read as categories: {listing(codes, 6)}")
    if dates:
        out.notes.append(
            f"warning: dates read as text: {listing(dates, 6)}; write them as numbers, such as days since the first one"
        )
    if ambiguous:
        first = ambiguous[0].split(" (")[0]
        out.notes.append(
            f"whole numbers of few values read as numbers: {listing(ambiguous, 6)}; "
            f"codes without an order are categories: dataset.categorical=[{first}]"
        )
    out.notes += _note_identifiers(unique, named if table.ids is None and not unique else [], table.ids is None)
    return out


def _note_identifiers(features: Sequence[str], others: Sequence[str], free: bool) -> list[str]:
    """Notes on columns that look like identifiers. `free`: whether no column is known to hold them."""
    if features:
        name = escape(features[0])
        names_rows = f"{format_override('dataset.id', name)}, which names rows by it, or " if free else ""
        return [
            f"warning: each value of {listing(map(escape, features), 6)} occurs once; leave identifiers out: "
            f"{names_rows}{format_override('dataset.drop', f'[{name}]')}"
        ]
    hint = "names the rows by it in predictions, picks and labels"
    return [f"{format_override('dataset.id', escape(name))} {hint}" for name in others[:1]]


def _identifies(column: Column) -> bool:
    """Whether a column is named as identifiers are, and each row has another value: text, or a whole number."""
    if not is_id_name(column.name) or column.missing.any():
        return False
    if column.numbers is None:
        return len(column.texts) == len(np.asarray(column.codes))
    whole = bool((column.numbers == np.floor(column.numbers)).all())
    return whole and len(np.unique(column.numbers)) == len(column.numbers)


def fit_features(features: Features, train: np.ndarray, max_categories: int, what: str) -> tuple[ColumnEncoding, ...]:
    """The encodings of the columns, fitted on the rows `train` (n,) bool; constant columns are left out. DataError without any."""
    encodings, outliers, cut = [], [], []
    for column in features.columns:
        encoding = fit_column(column, train, max_categories)
        if encoding is None:
            missing = bool(column.missing[train].all())
            features.dropped[column.name] = "no value in any row" if missing else "constant"
            continue
        encodings.append(encoding)
        if column.numbers is not None:
            outliers += _outliers(column, encoding, train)
        elif encoding.categories is not None and len(encoding.categories) == max_categories < len(column.texts):
            cut.append(f"{escape(column.name)} {len(column.texts):,}")
    if not encodings:
        raise DataError(
            f"{what} has no column to learn from: {_reasons(features.dropped) or 'it has the label alone'}",
            "dataset.categorical=[NAME] reads a column of text",
        )
    if cut:
        features.notes.append(
            f"warning: only the {max_categories:,} most frequent categories are kept of {listing(cut, 6)} "
            "(dataset.max_categories)"
        )
    if outliers:
        features.notes.append(
            f"warning: a few outliers dominate the scale of {listing(outliers, 3)}; "
            "dataset.missing=[VALUE] reads a code for missing values as such"
        )
    return tuple(encodings)


def describe_columns(encodings: Sequence[ColumnEncoding], dropped: Mapping[str, str]) -> list[str]:
    """Notes on the types of the columns, and on those left out."""
    numbers = [escape(c.name) for c in encodings if c.categories is None]
    categories = [f"{escape(c.name)} {len(c.categories)}" for c in encodings if c.categories is not None]
    notes = [plural(len(encodings), "column")]
    if numbers:
        notes.append(f"{plural(len(numbers), 'column')} of numbers: {listing(numbers, 8)}")
    if categories:
        notes.append(f"{plural(len(categories), 'column')} of categories, and how many: {listing(categories, 8)}")
    return notes + ([f"columns left out: {_reasons(dropped)}"] if dropped else [])


def describe_missing(table: Table, names: Sequence[str]) -> list[str]:
    """A note on the missing values of each column, and on how they are written."""
    counts = {n: int(table.columns[n].missing.sum()) for n in names}
    found = sorted((n for n in counts if counts[n]), key=lambda n: -counts[n])
    if not found:
        return []
    markers: dict[str, int] = {}
    for name in found:
        for marker, n in table.markers[name].items():
            markers[marker] = markers.get(marker, 0) + n
    some = listing((f"{escape(n)} {counts[n]:,} ({counts[n] / max(1, len(table)):.1%})" for n in found), 6)
    written = ", ".join("empty" if m == "" else escape(m) for m in sorted(markers, key=lambda m: -markers[m])[:4])
    return [f"missing values: {some}" + (f"; written as: {written}" if set(markers) - {""} else "")]


def check_names(columns: Sequence[str], what: str, choices: Mapping[str, Collection[str]]) -> None:
    """RequestError where `dataset.numeric`, `categorical` or `drop` names no column, or one in two of them."""
    for key, names in choices.items():
        for name in names:
            require_column(name, columns, what, key)
            if other := next((k for k, v in choices.items() if k != key and name in v), None):
                raise RequestError(f"column {escape(name)} is in dataset.{key} and in dataset.{other}")


def _require_no_format(table: Table, column: Column, cells: CellFormat) -> None:
    option = number_options(column.texts, cells) if column.texts else None
    if option is not None:
        raise DataError(
            f"{table.what}: column {escape(column.name)} holds numbers written as {escape(column.texts[0])}",
            f"{option} reads them; dataset.categorical=[{escape(column.name)}] reads them as categories",
        )


def _stray_texts(table: Table, column: Column) -> list[str]:
    """A warning where nearly all values of a column of text are numbers: a few cells decide how it is read."""
    assert column.codes is not None
    is_number = np.array([table.cells.plain(text) is not None for text in column.texts], dtype=bool)
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.texts))
    numbers, present = int(counts[is_number].sum()), int(counts.sum())
    if is_number.sum() <= FEW_INTEGERS or numbers < NEARLY * present or numbers == present:
        return []
    name, others = escape(column.name), list(itertools.compress(column.texts, ~is_number))
    words = [t if WORD.fullmatch(t) else json.dumps(t, ensure_ascii=False) for t in others[:LISTED]]
    missing = ",".join([*words, *["..."][: len(others) > LISTED]])
    return [
        f"warning: {numbers:,} of {present:,} values of {name} are numbers, others are text: {table.rows_with_text(column.name)}; "
        f"{format_override('dataset.missing', f'[{missing}]')} reads these as missing, and the column as numbers; "
        f"{format_override('dataset.categorical', f'[{name}]')} reads it as categories without this warning"
    ]


def _counts_rows(values: np.ndarray, boundaries: Sequence[int]) -> bool:
    """Whether the values of each file are consecutive whole numbers."""
    if len(values) < 10:
        return False
    parts = [values[a:b] for a, b in itertools.pairwise(boundaries) if b > a]
    return all(bool((np.diff(part) == 1).all()) and float(part[0]).is_integer() for part in parts)


def _integer_kind(values: np.ndarray) -> str:
    """Of whole numbers: their range where there are few different ones (but more than two), "unique" where each occurs once."""
    present = values[~np.isnan(values)]
    if not len(present) or (present != np.floor(present)).any():
        return ""
    different = np.unique(present)
    if len(different) == len(present) >= 5 * FEW_INTEGERS:
        return "unique"
    if 2 < len(different) <= FEW_INTEGERS and len(present) > len(different):
        return f"{format_number(different[0])}..{format_number(different[-1])}"
    return ""


def _outliers(column: Column, encoding: ColumnEncoding, train: np.ndarray) -> list[str]:
    assert column.numbers is not None
    values = column.numbers[train]
    values = values[~np.isnan(values)]
    low, high = np.quantile(values[:: max(1, len(values) // (1 << 16))], (0.25, 0.75))
    if high > low and encoding.std > OUTLIER_IQRS * (high - low):
        span = f"{values.min():g}..{values.max():g}, half of the values in {low:g}..{high:g}"
        return [f"column {escape(column.name)} ({span})"]
    return []


def _reasons(dropped: Mapping[str, str]) -> str:
    return listing((f"{escape(name)} ({reason})" for name, reason in dropped.items()), 8)
