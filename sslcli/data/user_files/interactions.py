"""Tables of events: each user of a file is a sample, with all of his events."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sslcli.console import escape
from sslcli.data.folders.paths import require_regular
from sslcli.data.histories.build import Options, build_dataset
from sslcli.data.histories.events import read_events
from sslcli.data.histories.preprocessor import InteractionsPreprocessor
from sslcli.data.histories.select import select_events
from sslcli.data.user_files.samples import FilePart, UserFiles, join, read_each
from sslcli.errors import RequestError


def read_interaction_files(paths: Sequence[str], preprocessor: InteractionsPreprocessor, notes: list[str]) -> UserFiles:
    """All histories are in memory. Items that the encoder does not know are left out, and counted. RequestError for folders."""
    if folder := next((path for path in paths if os.path.isdir(path)), None):
        raise RequestError(f"{escape(folder)} is a folder; this encoder takes tables of events", f"'{folder}/*.csv'")
    return join(*read_each(paths, lambda path: _read(path, preprocessor)))


def _read(path: str, preprocessor: InteractionsPreprocessor) -> FilePart:
    notes: list[str] = []
    events = select_events(read_events(require_regular(path), preprocessor.columns, False, notes), None, 1, notes)
    options = Options(split="none", holdout=0)
    return FilePart(path, build_dataset("files", events, options, notes, like=preprocessor))
