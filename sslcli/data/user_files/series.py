"""Arrays of series (.npz, .npy, .pt), and folders of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sslcli.console import escape
from sslcli.data.dataset import Dataset
from sslcli.data.sources.series import series
from sslcli.data.sources.series_preprocessor import SeriesPreprocessor
from sslcli.data.user_files.samples import FilePart, UserFiles, join, list_files, read_each, without_split
from sslcli.errors import RequestError

ENDINGS = (".npz", ".npy", ".pt")
EXPECTED = "arrays of series (.npz, .npy, .pt), or a folder of them"


def read_series_files(paths: Sequence[str], preprocessor: SeriesPreprocessor, notes: list[str]) -> UserFiles:
    """All series are in memory. Longer ones than the encoder takes are cut into windows of its length. RequestError for other
    files, and for another number of channels."""
    files, unreadable = [], dict[str, str]()
    for path in paths:
        if os.path.isdir(path):
            files += [file for file, _ in list_files(path, _is_array, "series", unreadable)]
        elif _is_array(path):
            files.append(path)
        else:
            raise RequestError(f"{escape(path)} holds no series, which this encoder takes", f"expected {EXPECTED}")
    parts, more = read_each(files, lambda path: FilePart(path, _read(path, preprocessor, notes)))
    return join(parts, unreadable | more)


def _is_array(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in ENDINGS


def _read(path: str, preprocessor: SeriesPreprocessor, notes: list[str]) -> Dataset:
    return preprocessor.adapt(without_split(series(path, window=preprocessor.shape[1], holdout=0)), notes)
