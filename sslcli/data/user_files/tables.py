"""Tables whose rows are samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslcli.console import escape
from sslcli.data.fingerprint import content_hash, fingerprint
from sslcli.data.tables.build import Options, build_dataset
from sslcli.data.tables.find import WHAT, find_files, stem
from sslcli.data.tables.id_column import require_trained_id
from sslcli.data.tables.preprocessor import TablePreprocessor
from sslcli.data.user_files.samples import FilePart, UserFiles, join, read_each
from sslcli.errors import DataError, RequestError


def read_table_files(paths: Sequence[str], preprocessor: TablePreprocessor, notes: list[str]) -> UserFiles:
    """All rows are in memory, encoded. RequestError for files that are no tables."""
    files = [file for path in paths for part in find_files(path, None, notes).values() for file in part]
    if other := next((file for file in files if stem(file) is None), None):
        raise RequestError(f"{escape(other)} is no table, which this encoder takes", f"expected {WHAT}")
    return join(*read_each(files, lambda path: _read(path, preprocessor), notes))


def _read(path: str, preprocessor: TablePreprocessor) -> FilePart:
    notes: list[str] = []
    file = preprocessor.open(path)
    require_trained_id(preprocessor.id, file.columns, file.what, "table")
    label = preprocessor.label if preprocessor.label in file.columns else None
    known = [label] if label else []
    rows = preprocessor.read([file], notes, known, known, preprocessor.id)
    if not len(rows):
        raise DataError(f"{file.what} has a header but no rows")
    options = Options(label, holdout=0, cells=preprocessor.cells, id=preprocessor.id)
    identity = fingerprint(len(rows), [content_hash(path)])
    word = "row" if stem(path, (".parquet", ".pq")) is not None else "line"
    parts = np.zeros(len(rows), np.int64)  # all of them train
    return FilePart(path, build_dataset("files", rows, parts, options, notes, identity, preprocessor, word))
