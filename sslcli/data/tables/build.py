"""Make a data set of a table in memory: labels, split, types of columns, and encoded rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.files.label_text import class_warnings
from sslcli.data.files.string_table import StringTable
from sslcli.data.split import AUTO_FRACTION, NOTHING_HELD_OUT, holdout_fraction, split, split_hash
from sslcli.data.subset import pretrain_source
from sslcli.data.tables.cells import CellFormat
from sslcli.data.tables.columns import Table
from sslcli.data.tables.features import choose_features, describe_columns, describe_missing, fit_features
from sslcli.data.tables.ids import describe_ids
from sslcli.data.tables.label import Label, read_label, require_no_leak
from sslcli.data.tables.preprocessor import TablePreprocessor
from sslcli.errors import DataError, RequestError, listing

PARTS = ("train", "test", "val", "unlabelled")
COMPARED_CELLS = 1 << 28  # larger data is not searched for duplicates


@dataclass
class Options:
    """What the user chose, see `sslcli.data.sources.table.table`."""

    label: str | None = None  # the name of a column
    task: str = "auto"
    numeric: Sequence[str] = ()
    categorical: Sequence[str] = ()
    drop: Sequence[str] = ()
    group: str | None = None
    max_categories: int = 1000
    holdout: float | str = "auto"
    split_seed: int = 0
    pretrain_on: str = "all"
    cells: CellFormat = field(default_factory=CellFormat)
    header: tuple[str, ...] = ()
    delimiter: str | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        if self.task not in ("auto", "classes", "value"):
            raise RequestError(
                f"dataset.task: expected auto, classes or value, got {escape(self.task)}", "dataset.task=value"
            )
        if self.max_categories < 1:
            raise RequestError(f"dataset.max_categories: expected at least 1, got {self.max_categories}")


class RowNames(Sequence[str]):
    """Names of rows, such as `line 17`, made when they are asked for."""

    def __init__(self, word: str, lines: np.ndarray):
        self.word, self.lines = word, lines

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, at: Any) -> Any:
        return RowNames(self.word, self.lines[at]) if isinstance(at, slice) else f"{self.word} {self.lines[at]}"


def build_dataset(
    name: str,
    table: Table,
    parts: np.ndarray,
    options: Options,
    notes: list[str],
    fingerprint: str,
    like: TablePreprocessor | None = None,
    word: str = "line",
) -> Dataset:
    """A data set of the rows of `table`.

    `parts`: (n,) index of PARTS of each row. `like`: the preprocessor to use instead of one that is fitted. `word`: what the
    number of a row counts. Frees the columns of the table. RequestError, DataError."""
    label = _label(table, options, like, notes)
    parts, digest = _split(table, parts, label, options, notes)
    train = parts == PARTS.index("train")
    if not train.any():
        raise DataError(f"{table.what} has no training row, only of {_part_names(parts)}")
    others = {options.label, options.group}
    if like is None:
        names = [n for n in table.columns if n not in others]
        features = choose_features(table, names, options.numeric, options.categorical, options.cells)
        for column in features.columns:
            table.columns[column.name] = column
        if label is not None:
            require_no_leak(table, label, features.columns)
        encodings = fit_features(features, train, options.max_categories, table.what)
        features.dropped |= dict.fromkeys((n for n in options.drop), "dataset.drop")
        like = TablePreprocessor(
            encodings,
            dropped=tuple(features.dropped),
            cells=options.cells,
            header=options.header,
            delimiter=options.delimiter,
            id=options.id,
        )
        if label is not None:
            like = replace(like, label=label.name, task=label.task, classes=label.classes)
        notes += describe_columns(encodings, features.dropped)
        notes += features.notes
        dropped = features.dropped
    else:
        dropped = {}
        notes += describe_columns(like.columns, {})
    notes += describe_missing(table, like.names)
    if options.id is not None and table.ids is not None:
        describe_ids(options.id, table.ids, notes)
    groups = _groups(table, options.group)
    for other in set(table.columns) - set(like.names):
        del table.columns[other]
    x = like.encode_table(table, notes)
    sources = _sources(x, table, parts, label, groups, word)
    _warn_equal_rows(sources, notes)
    if label is not None and label.codes is not None:
        shown = listing(map(escape, label.classes), 6)
        notes.append(f"label {escape(label.name)}, {plural(len(label.classes), 'class', 'classes')}: {shown}")
        notes += class_warnings(label.classes, int(label.known.sum()))
    if label is not None and not label.known.all():
        notes.append(f"{plural(int((~label.known).sum()), 'row')} without a label")
    sources["unlabelled"] = pretrain_source(sources["train"], sources["unlabelled"], options.pretrain_on, notes)
    return Dataset(
        name=name,
        modality="table",
        shape=like.shape,
        **sources,
        classes=label.classes if label is not None else (),
        task="value" if label is not None and label.task == "value" else "classes",
        values=like.values,
        preprocessor=like,
        fingerprint=fingerprint,
        split=digest,
        id=options.id,
        notes=notes,
        details={
            "layout": "table",
            "columns": {c.name: "number" if c.categories is None else "category" for c in like.columns},
            "dropped": dropped,
        },
    )


def _label(table: Table, options: Options, like: TablePreprocessor | None, notes: list[str]) -> Label | None:
    if options.label is None:
        return None
    if like is not None and like.label == options.label:
        return read_label(table, options.label, like.task, like.classes, notes)
    return read_label(table, options.label, options.task, (), notes)


def _split(
    table: Table, parts: np.ndarray, label: Label | None, options: Options, notes: list[str]
) -> tuple[np.ndarray, str]:
    """The part of each row, with one of test and val as the test split, or with rows held out; and a hash of those held out."""
    parts = _choose_test(parts, label, notes)
    known = label.known if label is not None else np.zeros(len(parts), bool)
    test, train = (PARTS.index(p) for p in ("test", "train"))
    ids = np.flatnonzero(parts == train)
    if (parts == test).any() and not (known[ids].any() and not known[parts == test].any()):
        return parts, ""
    if (parts == test).any():
        notes.append(f"warning: test: {plural(int((parts == test).sum()), 'row')} not used, because they have no label")
        parts = np.where(parts == test, -1, parts)
    groups = _groups(table, options.group)
    codes, how = None, "at random"
    if label is not None and known[ids].any():
        codes = torch.from_numpy(np.where(known, 0, -1) if label.codes is None else np.asarray(label.codes))[ids]
        how = "stratified by class" if label.codes is not None else "at random, of the rows with a label"
    fraction: float | str = options.holdout
    if fraction == "auto" and label is not None and label.task == "value" and codes is not None:
        fraction = AUTO_FRACTION
    holdout_fraction(fraction, codes)
    if groups is not None:
        how = f"by group ({escape(str(options.group))})"
    chosen = None if groups is None else groups[ids].tolist()
    _, held_out = split(len(ids), fraction, options.split_seed, codes, chosen)
    notes.append(
        f"held out: {plural(len(held_out), 'row')} of {len(ids):,}, {how}" if len(held_out) else NOTHING_HELD_OUT
    )
    parts = parts.copy()
    parts[ids[held_out.numpy()]] = test
    return parts, split_hash(held_out)


def _choose_test(parts: np.ndarray, label: Label | None, notes: list[str]) -> np.ndarray:
    """Of val and test, the one with labels is the test split; test where both have some. The other one is not used."""
    test, val = (parts == PARTS.index(p) for p in ("test", "val"))
    if not val.any():
        return parts
    known = label.known if label is not None else np.ones(len(parts), bool)
    parts = parts.copy()
    if not test.any() or (known[val].any() and not known[test].any()):
        if test.any():
            notes.append(f"warning: test: {plural(int(test.sum()), 'row')} not used, because they have no label")
        parts[test], parts[val] = -1, PARTS.index("test")
    else:
        notes.append(f"val: {plural(int(val.sum()), 'row')} not used, because there is a test split")
        parts[val] = -1
    return parts


def _groups(table: Table, group: str | None) -> np.ndarray | None:
    """(n,) int64: a number for each group; rows without one are groups of their own."""
    if group is None:
        return None
    column = table.columns[group]
    values = column.numbers if column.numbers is not None else column.codes
    if values is None:
        raise DataError(f"{table.what}: column {escape(group)} has too many different texts for groups")
    _, ids = np.unique(values, return_inverse=True)
    missing = column.missing
    ids = ids.astype(np.int64)
    ids[missing] = len(ids) + np.arange(int(missing.sum()))
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def _sources(
    x: Tensor, table: Table, parts: np.ndarray, label: Label | None, groups: np.ndarray | None, word: str
) -> dict[str, Any]:
    """The fields `train`, `test` and `unlabelled` of a Dataset. The names of rows are their identifiers, else their lines."""
    rows = None if table.ids is None else list(table.ids)
    sources: dict[str, Any] = {"train": None, "test": None, "unlabelled": None}
    for part in sources:
        ids = np.flatnonzero(parts == PARTS.index(part))
        if not len(ids) and part != "train":
            continue
        at = torch.from_numpy(ids)
        labels = None if label is None or label.codes is None else torch.from_numpy(np.asarray(label.codes))[at]
        targets = {} if label is None or label.values is None else {"value": torch.from_numpy(label.values)[at]}
        sources[part] = ArraySource(
            x if len(ids) == len(x) else x[at],
            labels,
            RowNames(word, table.lines[ids]) if rows is None else StringTable(rows[i] for i in ids.tolist()),
            None if groups is None else torch.from_numpy(groups)[at],
            targets,
        )
    return sources


def _warn_equal_rows(sources: Mapping[str, Any], notes: list[str]) -> None:
    train, test = sources["train"], sources["test"]
    if test is None or train.x.numel() + test.x.numel() > COMPARED_CELLS:
        return
    hashes = {hash(row.tobytes()) for row in train.x.numpy()}
    duplicates = sum(hash(row.tobytes()) in hashes for row in test.x.numpy())
    if duplicates:
        notes.append(
            f"warning: {plural(duplicates, 'test row')} also in train (same values): metrics will be too optimistic"
        )


def _part_names(parts: np.ndarray) -> str:
    return listing(PARTS[i] for i in np.unique(parts) if i >= 0)


def as_names(key: str, names: Collection[object] | None) -> list[str]:
    """Names of columns from a configuration, where a name such as 2019 is an integer."""
    for name in names or ():
        if isinstance(name, (list, tuple, dict, bool)):
            raise RequestError(f"dataset.{key}: expected names of columns, got {name}", f"dataset.{key}=[a,b]")
    return [str(name) for name in names or ()]
