"""Tables: CSV, TSV or Parquet files whose rows are samples, with columns of numbers and of categories."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from sslcli.console import escape, plural
from sslcli.data.dataset import Dataset
from sslcli.data.files.csv_table import SPLITS, normalize_name
from sslcli.data.fingerprint import content_hash
from sslcli.data.fingerprint import fingerprint as make_fingerprint
from sslcli.data.folders.split_names import exact_split
from sslcli.data.subset import check_pretrain_on
from sslcli.data.tables.build import PARTS, Options, as_names, build_dataset
from sslcli.data.tables.cells import CellFormat, as_markers
from sslcli.data.tables.columns import Table, TableFile, read_tables
from sslcli.data.tables.features import check_names
from sslcli.data.tables.find import find_files, open_file
from sslcli.data.tables.id_column import choose_id, require_id, require_trained_id
from sslcli.data.tables.label import choose_label, require_column
from sslcli.data.tables.preprocessor import TablePreprocessor
from sslcli.errors import DataError


def table(
    path: str | None = None,
    name: str = "table",
    test: str | None = None,
    label: str | None = "auto",
    task: str = "auto",
    numeric: list[str | int] | None = None,
    categorical: list[str | int] | None = None,
    drop: list[str | int] | None = None,
    group: str | None = None,
    delimiter: str | None = None,
    names: list[str | int] | None = None,
    decimal: str = ".",
    thousands: str | None = None,
    missing: list[str | float] | None = None,
    max_categories: int = 1000,
    holdout: float | str = "auto",
    split_seed: int = 0,
    pretrain_on: str = "all",
    id: str | None = None,
    like: TablePreprocessor | None = None,
) -> Dataset:
    """A data set of the rows of a table, x (F,) float32, of the modality "table".

    `path`: a file (CSV, TSV, Parquet; .gz, .xz), or a folder with train and test files; `test`: a file with the test split. A
    column named split, with the values train, test, val or unlabelled, is another way to define it.
    `label`: the name of a column; auto, the last column named label, target, class or y; none. It is never a column of x.
    `task`: classes, value (a number to predict), or auto: value for fractions and for more than 50 different numbers.
    `numeric`, `categorical`, `drop`: names of columns whose type is wrong otherwise, and of those that are left out.
    `group`: a column that identifies who or what rows belong to; the held-out split never divides a group.
    `delimiter`, `names` (for files without a header), `decimal`, `thousands`, `missing` (further markers): how files are written;
    marks may be given as words: comma, semicolon, tab, bar, space, point.
    `max_categories`: of each column; the most frequent ones are kept, the others are unknown.
    `id`: a column of identifiers, unique in each file, which names the rows and is never a column of x; none.
    `holdout`: the held-out fraction; auto is a fifth where there is a label.
    `like`: a preprocessor to use instead of fitting one. It also holds `decimal`, `thousands` and `missing`, and `names` and
    `delimiter` where neither is given here.

    Types are decided over all rows; means, standard deviations and categories are those of the training rows. Raises RequestError
    for options, DataError for the contents of files.
    """
    check_pretrain_on(pretrain_on)
    choices = {key: as_names(key, v) for key, v in (("numeric", numeric), ("categorical", categorical), ("drop", drop))}
    cells = CellFormat.parse(decimal, thousands, as_markers(missing)) if like is None else like.cells
    header = as_names("names", names) if names is not None else None
    options = Options(
        None, task, choices["numeric"], choices["categorical"], choices["drop"], group, max_categories,
        holdout, split_seed, pretrain_on, cells, tuple(header or ()), delimiter, choose_id(id),
    )  # fmt: skip
    notes: list[str] = []
    paths = find_files(path, test, notes)
    recorded = like if header is None and (delimiter is None or (like is not None and like.header)) else None

    def open_table(path: str) -> TableFile:
        return open_file(path, delimiter, header) if recorded is None else recorded.open(path, delimiter)

    files = {part: [open_table(p) for p in listed] for part, listed in paths.items()}
    every = [file for listed in files.values() for file in listed]
    columns = list(dict.fromkeys(c for file in every for c in file.columns))
    what = every[0].what
    _require_id(options.id, like, every, {**choices, "group": [group], "label": [label]})
    wanted = [c for c in columns if c not in choices["drop"] and c != options.id]
    options.label = choose_label(_recorded_label(label, like, wanted), wanted, what, notes)
    if group is not None:
        require_column(group, wanted, what, "group")
    if like is None:
        check_names(columns, what, choices)
    splits = [c for c in wanted if normalize_name(c) in SPLITS and len(paths) == 1 and c != options.label]
    optional = [c for c in (options.label,) if c is not None]
    if like is None:
        data = read_tables(every, cells, choices["categorical"], choices["drop"], optional=optional, id=options.id)
    else:
        others = [c for c in (options.label, group, *splits) if c is not None]
        data = like.read(every, notes, [*others, *choices["drop"]], optional, options.id)
    if not len(data):
        raise DataError(f"{what} has a header but no rows")
    notes.insert(0, f"{plural(len(data), 'row')} of {what}" + (f" and {len(every) - 1} more" if len(every) > 1 else ""))
    parts = _parts(data, files, splits, notes)
    word = "row" if what.lower().endswith((".parquet", ".pq")) else "line"
    try:
        identity = make_fingerprint(len(data), (content_hash(file.path) for file in every))
    except OSError as error:
        raise DataError(f"{what} cannot be read: {error.strerror}") from error
    dataset = build_dataset(name, data, parts, options, notes, identity, like, word)
    dataset.details["files"] = {part: [os.path.basename(p) for p in listed] for part, listed in paths.items()}
    return dataset


def _require_id(
    id: str | None,
    like: TablePreprocessor | None,
    files: Sequence[TableFile],
    others: Mapping[str, Collection[str | None]],
) -> None:
    """Errors where a file has no such column, or where another key names the same one."""
    for file in files:
        if like is not None and id == like.id:
            require_trained_id(id, file.columns, file.what, "table")
        else:
            require_id(id, file.columns, file.what, others)


def _recorded_label(label: str | None, like: TablePreprocessor | None, columns: Sequence[str]) -> str | None:
    """With label=auto, the label of the preprocessor if the table has it."""
    return like.label if label == "auto" and like is not None and like.label in columns else label


def _parts(data: Table, files: dict[str, list[TableFile]], splits: Sequence[str], notes: list[str]) -> np.ndarray:
    """(n,) the index in PARTS of each row: of its file, or of a column of splits, which is removed from the table."""
    parts = np.zeros(len(data), np.int64)
    start = 0
    for part, listed in files.items():
        parts[data.boundaries[start] : data.boundaries[start + len(listed)]] = PARTS.index(part)
        start += len(listed)
    for name in splits:
        column = data.columns[name]
        kinds = [exact_split(text) for text in column.texts]
        if column.codes is None or None in kinds or not kinds:
            continue
        del data.columns[name]
        lookup = np.array([*(PARTS.index(str(kind)) for kind in kinds), 0])
        counts = ", ".join(f"{int((column.codes == i).sum()):,} {escape(t)}" for i, t in enumerate(column.texts))
        notes.append(f"the column {escape(name)} defines the split: {counts}")
        return lookup[column.codes]
    return parts
