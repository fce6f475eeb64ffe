"""Tables of events: each user of a file is a sample, with all events of the user."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import replace

import torch

from sslcli.console import escape
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.paths import require_regular
from sslcli.data.histories.build import Options, build_dataset
from sslcli.data.histories.events import read_events
from sslcli.data.histories.next_items import FIRST, PAD, NextItems
from sslcli.data.histories.preprocessor import InteractionsPreprocessor
from sslcli.data.histories.select import select_events
from sslcli.data.storage import Ragged
from sslcli.data.user_files.samples import FilePart, UserFiles, join, read_each
from sslcli.errors import RequestError


def read_interaction_files(paths: Sequence[str], preprocessor: InteractionsPreprocessor, notes: list[str]) -> UserFiles:
    """All histories are in memory. Items that the encoder does not know are left out, and counted. RequestError for folders."""
    if folder := next((path for path in paths if os.path.isdir(path)), None):
        raise RequestError(f"{escape(folder)} is a folder; this encoder takes tables of events", f"'{folder}/*.csv'")
    parts, unreadable = read_each(paths, lambda path: _read(path, preprocessor), notes)
    files = join(parts, unreadable)
    whole = functools.reduce(
        NextItems.concat, [p.dataset.next_items for p in parts if p.dataset.next_items is not None]
    )
    return replace(files, dataset=replace(files.dataset, next_items=whole))


def item_samples(preprocessor: InteractionsPreprocessor) -> UserFiles:
    """Each item as a history of its own, by its name, with its title where the data have titles."""
    items = torch.arange(FIRST, FIRST + len(preprocessor.items), dtype=torch.int32)
    source = ArraySource(Ragged(items, torch.arange(len(items) + 1), PAD), names=preprocessor.items)
    dataset = Dataset(
        "items",
        modality=preprocessor.kind,
        shape=preprocessor.shape,
        train=source,
        test=None,
        values=preprocessor.values,
        preprocessor=preprocessor,
        fingerprint=fingerprint(len(items), [preprocessor.sha256.encode()]),
    )
    titles = [preprocessor.titles.get(name, "") for name in preprocessor.items] if preprocessor.titles else []
    return UserFiles(dataset, preprocessor.items, [""] * len(items), {}, titles)


def _read(path: str, preprocessor: InteractionsPreprocessor) -> FilePart:
    notes: list[str] = []
    events = select_events(read_events(require_regular(path), preprocessor.columns, False, notes), None, 1, notes)
    options = Options(split="none", holdout=0)
    return FilePart(path, build_dataset("files", events, options, notes, like=preprocessor))
