"""Files of series (arrays, tables, .ts, .arff), and folders of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sslcli.console import escape, format_override
from sslcli.data.dataset import Dataset
from sslcli.data.files.string_table import StringTable
from sslcli.data.recordings.read import EXPECTED, TABLES, is_series_file
from sslcli.data.recordings.table import open_table
from sslcli.data.samples.window_names import WindowNames
from sslcli.data.sources.series import series
from sslcli.data.sources.series_preprocessor import COLUMNS, SeriesPreprocessor
from sslcli.data.tables.find import stem
from sslcli.data.user_files.samples import FilePart, UserFiles, join, list_files, read_each, without_split
from sslcli.errors import DataError, RequestError


def read_series_files(paths: Sequence[str], preprocessor: SeriesPreprocessor, notes: list[str]) -> UserFiles:
    """All series are in memory. Longer ones than the encoder takes are cut into windows of its length. RequestError for other
    files, and for another number of channels."""
    files, unreadable = [], dict[str, str]()
    for path in paths:
        if os.path.isdir(path):
            files += [file for file, _ in list_files(path, is_series_file, "series", unreadable)]
        elif is_series_file(path):
            files.append(path)
        else:
            raise RequestError(f"{escape(path)} holds no series, which this encoder takes", f"expected {EXPECTED}")
    parts, more = read_each(files, lambda path: FilePart(path, _read(path, preprocessor, notes)), notes)
    return join(parts, unreadable | more)


def _read(path: str, preprocessor: SeriesPreprocessor, notes: list[str]) -> Dataset:
    try:
        found = _series(path, preprocessor)
    except DataError as error:
        if not (error.hint or "").startswith("dataset.id=COLUMN"):
            raise
        given = f"dataset=series {format_override('dataset.path', path)} dataset.id=COLUMN"
        raise DataError(error.message, f"in place of the file: {given}, if there are several recordings") from error
    notes += [note for note in found.notes if "not read" in note and note not in notes]
    whole = without_split(found)
    names = whole.train.names
    if whole.id is not None and isinstance(names, WindowNames) and len(set(names.recordings())) == len(names):
        whole.train.names = StringTable(names.recordings())  # a window each, without its first step
    return preprocessor.adapt(whole, notes)


def _series(path: str, preprocessor: SeriesPreprocessor) -> Dataset:
    columns = _columns(path, preprocessor)
    return series(
        path,
        window=preprocessor.shape[1],
        holdout=0,
        scale=preprocessor.scale,
        test="none",
        channels=list(preprocessor.channels) or None,
        id=columns.get("id"),
        time=columns.get("time"),
    )


def _columns(path: str, preprocessor: SeriesPreprocessor) -> dict[str, str]:
    """The columns of recordings and of times of the training data that a file has: a table of one recording needs none."""
    if stem(path, TABLES) is None:
        return {}
    names = {key: getattr(preprocessor, key) for key in COLUMNS}
    columns = open_table(path)[0].columns if any(names.values()) else ()
    return {key: name for key, name in names.items() if name in columns}
