"""A user's images: class folders, nested or flat folders (`layout.py`), or a list file (`list_file.py`).

What was found is said in the notes. Where there is no held-out split, one is made (`dataset.holdout`, stratified where
there are labels).
"""

from __future__ import annotations

import os
from typing import Any

from sslcli.data import notify
from sslcli.data.dataset import Dataset
from sslcli.data.files.list_file import read_list
from sslcli.data.folders.contents import FolderContents
from sslcli.data.folders.layout import LABEL_RULES, OTHER_KINDS, read_folder
from sslcli.data.folders.paths import require_folder, require_path, require_regular, unpack_hint
from sslcli.data.folders.scan import scan
from sslcli.data.folders.split_folders import is_explicit
from sslcli.data.images import decode
from sslcli.data.images.options import MAX_SIZE, ImageOptions
from sslcli.data.notify import shown
from sslcli.data.sources.image_dataset import build_dataset
from sslcli.errors import RequestError


def image_folder(
    path: str | None = None,
    name: str = "image_folder",
    image_size: int | None = None,
    channels: int | str = "auto",
    label: str | None = "auto",
    holdout: float | str = "auto",
    split_seed: int = 0,
    resident: bool | str = "auto",
    range: Any = "auto",
    max_bad_fraction: float = 0.01,
    max_pixels: int = decode.MAX_PIXELS,
    splits: Any = "auto",
    pretrain_on: str = "unlabelled",  # what runs mean that were made before there was this key
    max_size: int = MAX_SIZE,
) -> Dataset:
    """A folder of images or a list file, as a Dataset.

    `image_size`: side of a view; null is the images' own side where all have one size of at most `max_size`, else that.
    `channels`: 1, 3, 4 or auto (1 where every image is grey, else 3). `label`: auto, none, or the column of a CSV list; of a
    folder top or parent: the names of the folders below the split, or of those that hold the images.
    `splits`: auto (by the names of folders), none (every folder is a class), or {train: FOLDER, test: [FOLDER, FOLDER]}.
    `pretrain_on`: where there is an unlabelled split, `all` (train and unlabelled) or `unlabelled`.
    `resident`: keep all decoded in memory: auto (one size, at most 2 GiB and half of the free memory), true, false.
    `range`: which values of 16-bit and float images become 0 and 255: auto, [lo, hi], minmax, ... (see `levels`).
    `max_pixels`: a larger image is unreadable; looked at before it is decoded.

    Raises RequestError for paths and values, DataError for what lies there.
    """
    asked = ImageOptions(
        name, image_size, channels, label, holdout, split_seed, resident, range, max_bad_fraction, max_pixels, splits,
        pretrain_on, max_size,
    )  # fmt: skip
    notes: list[str] = []
    return build_dataset(_find(require_path(path, EXPECTED), asked, notes), asked, notes)


OTHER_TABLES = (".json", ".jsonl", ".xlsx", ".xls", ".ods", ".parquet", ".pkl", ".lst")
EXPECTED = "a folder of images or a list file (.txt, .csv, .tsv)"


def _find(path: str, asked: ImageOptions, notes: list[str]) -> FolderContents:
    label = asked.label
    if os.path.isdir(path):
        if label is not None and label not in LABEL_RULES:
            raise RequestError(
                f"dataset.label={label} names the column of a list file, but {shown(path)} is a folder",
                "dataset.label=top or parent for the names of folders, or dataset.label=none; labels in a file: labels=FILE.csv",
            )
        return read_folder(scan(path, decode.is_image_name), notes, label, asked.splits)
    if not path.lower().endswith((".txt", ".csv", ".tsv")):
        ending = os.path.splitext(path)[1].lower()
        if ending in OTHER_KINDS:
            hint = unpack_hint(path) or f"dataset={OTHER_KINDS[ending]} {notify.typed('dataset.path', path)}"
            raise RequestError(f"dataset.path={shown(path)} is a file; {EXPECTED} is wanted", hint)
        if ending in OTHER_TABLES:
            hint = "save it as a .csv file with the header path,label"
            raise RequestError(f"dataset.path={shown(path)} is a file; {EXPECTED} is wanted", hint)
        require_folder(path, EXPECTED)
    if is_explicit(asked.splits):
        raise RequestError(
            f"dataset.splits names folders, but {shown(path)} is a list file",
            "a column `split` of the list says the splits",
        )
    return read_list(require_regular(path), label, notes)
