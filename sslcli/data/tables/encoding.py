"""How one column of a table is encoded: fitted on training rows, and applied to others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from sslcli.config import typecheck
from sslcli.console import escape
from sslcli.data.tables.cells import canonical, format_number
from sslcli.data.tables.columns import Column
from sslcli.data.tables.label import sort_names
from sslcli.errors import DataError, listing


@dataclass(frozen=True)
class ColumnEncoding:
    """How one column is encoded: a number by (x - mean) / std, or a category by its index in `categories`, from 1."""

    name: str
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] | None = None  # None for a column of numbers

    def to_json(self) -> dict[str, Any]:
        if self.categories is None:
            return {"name": self.name, "type": "number", "mean": self.mean, "std": self.std}
        return {"name": self.name, "type": "category", "categories": list(self.categories)}

    @classmethod
    def from_json(cls, content: Any) -> Self:
        if not isinstance(content, dict) or not isinstance(content.get("name"), str):
            raise ValueError("expected a list of columns with names")
        name, kind = content["name"], content.get("type")
        if kind == "number":
            mean, std = content.get("mean"), content.get("std")
            if not (typecheck.matches_type(mean, float) and typecheck.matches_type(std, float)):
                raise ValueError(f"expected the mean and the standard deviation of column {name!r}")
            if not (math.isfinite(mean or 0) and math.isfinite(std or 0) and (std or 0) > 0):
                raise ValueError(f"the mean and the standard deviation of column {name!r} are not finite and positive")
            return cls(name, float(mean or 0), float(std or 0))
        categories = content.get("categories")
        if kind != "category" or not typecheck.matches_type(categories, list[str]):
            raise ValueError(f"expected a number or categories for column {name!r}")
        if len(set(categories or ())) != len(categories or ()):
            raise ValueError(f"two categories of column {name!r} are equal")
        return cls(name, categories=tuple(categories or ()))


def fit_column(column: Column, train: np.ndarray, max_categories: int) -> ColumnEncoding | None:
    """The encoding of a column, fitted on the rows `train` (n,) bool. None where it has the same value in all of them.

    Of more than `max_categories` categories, the most frequent ones are kept."""
    if column.numbers is not None:
        values = column.numbers[train]
        present = values[~np.isnan(values)]
        if not len(present) or (len(present) == len(values) and (present == present[0]).all()):
            return None
        mean, std = float(present.mean()), float(present.std())
        return ColumnEncoding(column.name, mean, std if std > 1e-12 * abs(mean) else 1.0)
    assert column.codes is not None
    counts = np.bincount(column.codes[train] + 1, minlength=len(column.texts) + 1)
    if (counts > 0).sum() < 2:  # the count of missing ones comes first
        return None
    frequent = np.argsort(-counts[1:], kind="stable")[:max_categories]
    return ColumnEncoding(
        column.name, categories=tuple(sort_names(column.texts[i] for i in frequent.tolist() if counts[1 + i]))
    )


def category_codes(column: Column, encoding: ColumnEncoding) -> tuple[np.ndarray, int]:
    """Indices (n,) of the categories, and the number of cells with a text that is none of them."""
    assert encoding.categories is not None
    if column.numbers is None and column.codes is None:
        raise DataError(f"column {escape(column.name)} has too many different texts for categories")
    index = {text: i for i, text in enumerate(encoding.categories, 1)}
    if column.numbers is not None:
        column = column.as_text()
    assert column.codes is not None
    table = np.array([*(index.get(text, index.get(canonical(text), 0)) for text in column.texts), 0], dtype=np.float32)
    codes = table[column.codes]
    return codes, int(((codes == 0) & (column.codes >= 0)).sum())


def difference(a: ColumnEncoding, b: ColumnEncoding) -> str:
    """How the encoding `b` of a column differs from an earlier one, for a sentence about the column."""
    if (a.categories is None) != (b.categories is None):
        return f"is a {'number' if b.categories is None else 'category'}, was a {'number' if a.categories is None else 'category'}"
    if a.categories is not None and b.categories is not None:
        new, gone = (
            [c for c in x if c not in set(y)] for x, y in ((b.categories, a.categories), (a.categories, b.categories))
        )
        parts = (
            [f"the new {'category' if len(new) == 1 else 'categories'} {listing(map(escape, new), 4)}"] if new else []
        )
        parts += [f"no longer {listing(map(escape, gone), 4)}"] if gone else []
        return f"has {' and '.join(parts)}" if parts else "has its categories in another order"
    return (
        f"has mean {format_number(b.mean)} and standard deviation {format_number(b.std)}, "
        f"had {format_number(a.mean)} and {format_number(a.std)}"
    )
