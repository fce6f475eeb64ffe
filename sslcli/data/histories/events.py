"""Events of users and items in tables: MovieLens' `u.data`, RecBole's `.inter`, CSV, TSV and Parquet."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sslcli.console import escape, plural
from sslcli.data.files.label_text import MISSING, missing_label_warnings
from sslcli.data.histories.times import Times
from sslcli.data.recordings.recordings import find_column
from sslcli.data.tables.cells import PLAIN, CellFormat, format_number
from sslcli.data.tables.columns import TableFile
from sslcli.data.tables.delimited import DelimitedFile
from sslcli.data.tables.ids import id_text
from sslcli.data.tables.parquet import ParquetFile, is_parquet
from sslcli.errors import DataError, listing

USERS = (
    "user",
    "user_id",
    "userid",
    "uid",
    "customer",
    "customer_id",
    "visitor",
    "visitor_id",
    "session",
    "session_id",
)
ITEMS = (
    "item",
    "item_id",
    "itemid",
    "iid",
    "product",
    "product_id",
    "article",
    "article_id",
    "movie_id",
    "movieid",
    "sku",
)
TIMES = (
    "time",
    "timestamp",
    "date",
    "datetime",
    "ts",
    "t",
    "event_time",
    "created_at",
    "ordered_at",
    "order_date",
    "purchase_date",
)
RATINGS = ("rating", "ratings", "stars", "score", "preference")
LABELS = ("label", "class", "target")
TYPED = re.compile(r":(token|token_seq|float|float_seq)$")  # of the header of RecBole's files
HEADERS = {2: ("user", "item"), 4: ("user", "item", "rating", "time")}  # of files without one, by their columns


@dataclass(frozen=True)
class EventColumns:
    """The names of columns; None: found by their names. time: `none` is the order of the file. label: `auto`, or `none`. missing:
    words of cells without a value, beside empty ones."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    label: str = "none"
    delimiter: str | None = None
    names: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()


@dataclass
class Codes:
    """Texts as integers, in the order of their first occurrence; -1 is a cell without a value. missing: the texts of such cells."""

    missing: frozenset[str] = frozenset({""})
    index: dict[str, int] = field(default_factory=dict)

    def of(self, texts: list[str]) -> np.ndarray:
        index, missing = self.index, self.missing
        return np.fromiter(
            (-1 if t in missing else index.setdefault(t, len(index)) for t in texts), np.int32, len(texts)
        )

    @property
    def names(self) -> list[str]:
        return list(self.index)


@dataclass
class Events:
    """n events, as they lie in the files.

    users, items: (n,) int32, codes of `user_names` and `item_names`, -1 where a cell is empty. times: (n,) float64, or None for the
    order of the rows. ratings: (n,) float64, NaN where there is none, or None. labels: (n,) int32, codes of `classes`, or None."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray | None
    ratings: np.ndarray | None
    labels: np.ndarray | None
    user_names: list[str]
    item_names: list[str]
    classes: list[str]

    def __len__(self) -> int:
        return len(self.users)

    def select(self, rows: np.ndarray) -> Events:
        """The events `rows`, a mask or an order (m,), with the same codes."""

        def of(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        users, items = self.users[rows], self.items[rows]
        return Events(
            users,
            items,
            of(self.times),
            of(self.ratings),
            of(self.labels),
            self.user_names,
            self.item_names,
            self.classes,
        )


def open_events(path: str, columns: EventColumns) -> TableFile:
    """A table of events. RecBole's types are cut off the names of its header; DataError for a file without a header whose columns
    cannot be known."""
    if is_parquet(path):
        return ParquetFile(path)
    names = list(columns.names) if columns.names else None
    file = DelimitedFile(path, columns.delimiter, names, header=None if names is None else True)
    if names is not None:
        return file
    if file.has_header and all(PLAIN.fullmatch(name) for name in file.columns):
        file = DelimitedFile(path, columns.delimiter, header=False)
    if not file.has_header:
        if len(file.columns) not in HEADERS:
            raise DataError(
                f"{file.what} has no header: what its {plural(len(file.columns), 'column')} are is not known",
                "dataset.names=[user,item,time]",
            )
        file.columns = list(HEADERS[len(file.columns)])
    file.columns = [TYPED.sub("", name) for name in file.columns]
    return file


def read_events(path: str, columns: EventColumns, with_rating: bool, notes: list[str]) -> Events:
    """All events of a file. RequestError for columns that there are not, DataError for cells that are no times or ratings."""
    file = open_events(path, columns)
    if twice := [name for name in file.columns if file.columns.count(name) > 1]:
        raise DataError(f"{file.what} has two columns named {escape(twice[0])}", "give one of them another name")
    found = _find(file, columns, with_rating)
    notes.append("columns: " + ", ".join(f"{key} = {escape(name)}" for key, name in found.items()))
    others = [name for name in file.columns if name not in found.values()]
    if "time" not in found and columns.time != "none" and others:
        notes.append(
            "warning: no column of times is known by its name, so that the events of a user are in the order of the file; "
            f"dataset.time=NAME names it, one of {listing(map(escape, others), 6)}; dataset.time=none means this order"
        )
    absent = frozenset({"", *columns.missing})
    users, items, classes = Codes(absent), Codes(absent), Codes(absent | MISSING)
    numbers = CellFormat(missing=absent)
    if isinstance(file, ParquetFile):
        file.exact = [found[key] for key in ("user", "item", "label") if key in found]
    times = Times(found.get("time", ""), file.what, numbers, "row" if isinstance(file, ParquetFile) else "line")
    unlabeled: Counter[str] = Counter()
    parts: dict[str, list[np.ndarray]] = {key: [] for key in ("user", "item", "time", "rating", "label")}
    for lines, block in file.blocks(set(found.values())):
        cells = {key: block[name] for key, name in found.items()}
        parts["user"].append(users.of(cell_texts(cells["user"])))
        parts["item"].append(items.of(cell_texts(cells["item"])))
        if "time" in found:
            parts["time"].append(times.read(cells["time"], lines))
        if "rating" in found:
            parts["rating"].append(_ratings(cells["rating"], lines, found["rating"], file.what, numbers))
        if "label" in found:
            texts = cell_texts(cells["label"])
            unlabeled.update(text for text in texts if text in MISSING)
            parts["label"].append(classes.of(texts))
    if not parts["user"]:
        raise DataError(f"{file.what} has a header but no events")
    whole = {key: np.concatenate(arrays) if arrays else None for key, arrays in parts.items()}
    known_users, known_items = whole["user"], whole["item"]
    assert known_users is not None
    assert known_items is not None
    events = Events(
        known_users,
        known_items,
        whole["time"],
        whole["rating"],
        whole["label"],
        users.names,
        items.names,
        classes.names,
    )
    times.require_all(len(events))
    notes += [*_words_as_names((*users.index, *items.index)), *missing_label_warnings(unlabeled)]
    return events


def _find(file: TableFile, wish: EventColumns, with_rating: bool) -> dict[str, str]:
    """The column of each key that the file has. RequestError where the user or the item is missing."""
    found: dict[str, str | None] = {
        "user": find_column(wish.user, USERS, file.columns, "user", file.what),
        "item": find_column(wish.item, ITEMS, file.columns, "item", file.what),
    }
    for key in ("user", "item"):
        if found[key] is None:
            raise DataError(
                f"{file.what} has no column of {key}s that is known by its name; its columns are "
                f"{listing(map(escape, file.columns), 8)}",
                f"dataset.{key}=NAME",
            )
    if wish.time != "none":
        found["time"] = find_column(wish.time, TIMES, file.columns, "time", file.what)
    if with_rating:
        found["rating"] = find_column(wish.rating, RATINGS, file.columns, "rating", file.what)
        if found["rating"] is None:
            raise DataError(
                f"{file.what} has no column of ratings, which dataset.min_rating requires", "dataset.rating=NAME"
            )
    if wish.label != "none":
        found["label"] = find_column(
            None if wish.label == "auto" else wish.label, LABELS, file.columns, "label", file.what
        )
    return {key: name for key, name in found.items() if name is not None}


def _ratings(cells: Any, lines: np.ndarray, name: str, what: str, form: CellFormat) -> np.ndarray:
    """(n,) float64, NaN for a cell without a value."""
    values = cells if isinstance(cells, np.ndarray) else form.numbers(list(cells))
    if values is None:
        row = next(i for i, cell in enumerate(cells) if form.numbers([cell]) is None)
        raise DataError(
            f"{what}, line {int(lines[row])}: the rating {escape(str(cells[row]))!r} is not a number ({escape(name)})"
        )
    return np.asarray(values, np.float64)


def _words_as_names(names: Iterable[str]) -> list[str]:
    """A warning about users and items whose names are words that other programs write for a missing value."""
    words = sorted(MISSING.intersection(names))
    if not words:
        return []
    option = shlex.quote("dataset.missing=[" + ",".join(f'"{word}"' for word in words) + "]")
    return [
        f"warning: users or items are named {listing(map(escape, words), 6)}: names are text, and only an empty cell has no value; "
        f"if these are missing values, {option} leaves their events out"
    ]


def cell_texts(cells: Sequence[str] | np.ndarray) -> list[str]:
    if isinstance(cells, np.ndarray):  # numbers of a file with types
        return ["" if value != value else format_number(value) for value in cells.tolist()]
    return [cell.strip() if isinstance(cell, str) else id_text(cell) for cell in cells]
