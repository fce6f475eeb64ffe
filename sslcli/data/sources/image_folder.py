"""Image folders: class folders, nested or flat folders (`folders/layout.py`), or a list file (`files/list_file.py`).

The notes of the data set describe what was found. Without a held-out split, one is made (`dataset.holdout`, stratified where
there are labels).
"""

from __future__ import annotations

import os
from typing import Any

from sslcli.console import escape, format_override
from sslcli.data.dataset import Dataset
from sslcli.data.files.list_file import read_list
from sslcli.data.folders.contents import FolderContents
from sslcli.data.folders.layout import LABEL_RULES, OTHER_KINDS, read_folder
from sslcli.data.folders.paths import require_folder, require_path, require_regular, unpack_hint
from sslcli.data.folders.scan import scan
from sslcli.data.folders.split_folders import is_explicit
from sslcli.data.images import decode
from sslcli.data.images.options import MAX_SIZE, ImageOptions
from sslcli.data.sources.image_dataset import build_dataset
from sslcli.errors import RequestError

OTHER_TABLES = (".json", ".jsonl", ".xlsx", ".xls", ".ods", ".parquet", ".pkl", ".lst")
EXPECTED = "a folder of images or a list file (.txt, .csv, .tsv)"


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
    pretrain_on: str = "unlabelled",  # the behavior of runs older than this key
    max_size: int = MAX_SIZE,
    cache: int | None = None,
) -> Dataset:
    """A data set of the images in a folder or a list file.

    `image_size`: side of a view; null is the side of the images where all have one size of at most `max_size`, else
    `max_size`.
    `channels`: 1, 3, 4 or auto (1 where all images are gray, else 3).
    `label`: auto, none, or the label column of a CSV list; for a folder, top or parent: the names of the folders below the
    split, or of the folders that contain the images.
    `splits`: auto (by the names of folders), none (every folder is a class), or {train: FOLDER, test: [FOLDER, FOLDER]}.
    `pretrain_on`: where there is an unlabeled split, `all` (train and unlabelled) or `unlabelled`.
    `resident`: keep all images decoded in memory: auto (one size, at most 2 GiB and half of the free memory), true, false.
    `cache`: decode all images once and keep them in memory as squares of this side, whatever their sizes (see `decode_all`).
    `range`: the values of 16-bit and float images that become 0 and 255: auto, [lo, hi], minmax, ... (see `bit_depth.py`).
    `max_bad_fraction`: a larger fraction of unreadable images ends the run.
    `max_pixels`: a larger image is unreadable; checked before it is decoded.

    Raises RequestError for paths and values, DataError for the contents of the folder or list.
    """
    options = ImageOptions(
        name, image_size, channels, label, holdout, split_seed, resident, range, max_bad_fraction, max_pixels, splits,
        pretrain_on, max_size, cache,
    )  # fmt: skip
    notes: list[str] = []
    return build_dataset(_read_contents(require_path(path, EXPECTED), options, notes), options, notes)


def _read_contents(path: str, options: ImageOptions, notes: list[str]) -> FolderContents:
    label = options.label
    if os.path.isdir(path):
        if label is not None and label not in LABEL_RULES:
            raise RequestError(
                f"dataset.label={label} is a column of a list file, but {escape(path)} is a folder",
                "dataset.label=top or parent reads the names of folders; labels=FILE.csv reads a file of labels",
            )
        return read_folder(scan(path, decode.is_image_name), notes, label, options.splits)
    if not path.lower().endswith((".txt", ".csv", ".tsv")):
        ending = os.path.splitext(path)[1].lower()
        if ending in OTHER_KINDS:
            hint = unpack_hint(path) or f"dataset={OTHER_KINDS[ending]} {format_override('dataset.path', path)}"
            raise RequestError(f"dataset.path={escape(path)} is a file: expected {EXPECTED}", hint)
        if ending in OTHER_TABLES:
            hint = "save it as a .csv file with the header path,label"
            raise RequestError(f"dataset.path={escape(path)} is a file: expected {EXPECTED}", hint)
        require_folder(path, EXPECTED)
    if is_explicit(options.splits):
        raise RequestError(
            f"dataset.splits names folders, but {escape(path)} is a list file",
            "give the splits in a column `split` of the list",
        )
    return read_list(require_regular(path), label, notes)
