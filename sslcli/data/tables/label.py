"""The label of a table: which column it is, its classes or values, and columns that give it away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sslcli.console import escape
from sslcli.data.files.csv_table import normalize_name
from sslcli.data.tables.columns import Column, Table
from sslcli.errors import DataError, RequestError, listing, nearest

LABELS = ("label", "labels", "target", "targets", "class", "y")
MAX_CLASSES = 50  # a label with more different numbers is a value, unless dataset.task says otherwise
COPY = 1e-9  # 1 - |correlation| of a column that is a linear function of the target
SAMPLE = 1_000  # rows that rule most columns out
MIN_ROWS = 10  # fewer rows are no evidence


@dataclass
class Label:
    """The labels of n rows. Of the task classes: `codes` (n,) int64, indices of `classes`, -1 where a row has none. Of the task
    value: `values` (n,) float64, NaN where a row has none."""

    name: str
    task: str
    classes: tuple[str, ...] = ()
    codes: np.ndarray | None = None
    values: np.ndarray | None = None

    @property
    def known(self) -> np.ndarray:
        """(n,) bool: the rows that have a label."""
        return np.asarray(self.codes) >= 0 if self.codes is not None else ~np.isnan(np.asarray(self.values))


def choose_label(label: str | None, columns: Sequence[str], what: str, notes: list[str]) -> str | None:
    """The name of the label column: the one that `dataset.label` names; with auto, the last one named like a label, or None."""
    if label in ("none", None):
        return None
    if label == "auto":
        found = [c for c in columns if normalize_name(c) in LABELS]
        if not found:
            notes.append(f"no label: no column is named {', '.join(LABELS)} (dataset.label=NAME selects one)")
            return None
        return found[-1]
    return require_column(str(label), columns, what, "label")


def require_column(name: str, columns: Iterable[str], what: str, key: str) -> str:
    """The column of that name. RequestError, with the nearest one, where there is none."""
    names = list(columns)
    if name in names:
        return name
    close = nearest(name, names)
    raise RequestError(
        f"dataset.{key}: {what} has no column {escape(name)}",
        f"did you mean {escape(close)} ?" if close else f"columns: {listing(map(escape, names))}",
    )


def read_label(
    table: Table, name: str, task: str, classes: Sequence[str] = (), notes: list[str] | None = None
) -> Label:
    """The labels in a column. `task`: classes, value, or auto: numbers with fractions, or more than MAX_CLASSES different ones, are
    values. `classes`: those of an earlier data set, which keep their indices.

    DataError where the task is value and a label is text."""
    column = table.columns[name]
    if task == "auto":
        task = "value" if column.numbers is not None and _is_measured(column.numbers) else "classes"
        if task == "value" and notes is not None:
            notes.append(
                f"the label {escape(name)} is a value to predict (dataset.task=classes: each value is a class)"
            )
    if task == "value":
        if column.numbers is None:
            raise DataError(
                f"{table.what}: the label {escape(name)} is text where dataset.task=value needs numbers: "
                f"{table.rows_with_text(name) or 'too many different texts'}",
                "dataset.task=classes",
            )
        require_finite(column, table)
        return Label(name, task, values=column.numbers)
    text = column.as_text()
    if text.codes is None:
        raise DataError(
            f"{table.what}: the label {escape(name)} has more different texts than any classes", "dataset.label=none"
        )
    new = sort_names(set(text.texts) - set(classes))
    names = (*classes, *new)
    index = {c: i for i, c in enumerate(names)}
    lookup = np.array([*(index[t] for t in text.texts), -1], dtype=np.int64)
    return Label(name, task, names, codes=lookup[text.codes])


def sort_names(names: Iterable[str]) -> list[str]:
    """Sorted names of classes or categories: by value where all are numbers."""

    def value(name: str) -> float | None:
        try:
            return float(name)
        except ValueError:
            return None

    values = {name: value(name) for name in names}
    if all(v is not None and v == v for v in values.values()):
        return sorted(values, key=lambda n: (values[n], n))
    return sorted(values)


def require_no_leak(table: Table, label: Label, features: Iterable[Column]) -> None:
    """DataError where a column is the label under other names, or a linear function of a value to predict."""
    known = np.flatnonzero(label.known)
    if len(known) < MIN_ROWS:
        return
    for column in features:
        if label.codes is not None:
            values = column.numbers if column.numbers is not None else column.codes
            if values is not None and _one_to_one(values[known], label.codes[known]):
                raise DataError(
                    f"{table.what}: column {escape(column.name)} determines the label {escape(label.name)} one to one",
                    f"leave it out: dataset.drop=[{escape(column.name)}]",
                )
        elif (
            column.numbers is not None
            and label.values is not None
            and _is_linear(column.numbers[known], label.values[known])
        ):
            raise DataError(
                f"{table.what}: column {escape(column.name)} is the label {escape(label.name)}, or a linear function of it",
                f"leave it out: dataset.drop=[{escape(column.name)}]",
            )


def _is_measured(values: np.ndarray) -> bool:
    present = np.unique(values[~np.isnan(values)])
    return bool((present != np.floor(present)).any()) or len(present) > MAX_CLASSES


def _one_to_one(values: np.ndarray, codes: np.ndarray) -> bool:
    classes = len(np.unique(codes))
    if classes < 2 or len(np.unique(values[:SAMPLE])) > classes:
        return False
    different, index = np.unique(values, return_inverse=True)  # NaN counts as one value
    return len(different) == classes == len(np.unique(index * classes + np.unique(codes, return_inverse=True)[1]))


def _is_linear(values: np.ndarray, target: np.ndarray) -> bool:
    both = ~np.isnan(values)
    x, y = values[both], target[both]
    if len(x) < MIN_ROWS or x.std() == 0 or y.std() == 0:
        return False
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    return bool(1 - abs(float((x * y).mean())) < COPY)


def require_finite(column: Column, table: Table) -> None:
    assert column.numbers is not None
    bad = np.flatnonzero(np.abs(column.numbers) > 1e38)
    if len(bad):
        raise DataError(
            f"{table.what}, line {table.lines[bad[0]]:,}: column {escape(column.name)} holds {column.numbers[bad[0]]:g}, "
            "which no 32-bit float can hold",
            f"leave the cell empty, or dataset.missing=[{column.numbers[bad[0]]:g}] reads it as missing",
        )
