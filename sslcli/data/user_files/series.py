"""Files of series (arrays, tables, .ts, .arff), and folders of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sslcli.console import escape
from sslcli.data.dataset import Dataset
from sslcli.data.recordings.read import EXPECTED, is_series_file
from sslcli.data.sources.series import series
from sslcli.data.sources.series_preprocessor import SeriesPreprocessor
from sslcli.data.user_files.samples import FilePart, UserFiles, join, list_files, read_each, without_split
from sslcli.errors import RequestError


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
    channels = list(preprocessor.channels) or None
    found = series(
        path, window=preprocessor.shape[1], holdout=0, scale=preprocessor.scale, test="none", channels=channels
    )
    notes += [note for note in found.notes if "not read" in note and note not in notes]
    return preprocessor.adapt(without_split(found), notes)
