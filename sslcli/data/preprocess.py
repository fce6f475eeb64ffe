"""Preprocessors of runs and of exported encoders: which class a kind of data has, and how they are written and read.

    preprocessor/preprocessor.json   `kind`, the name of a modality, and what was fitted
    preprocessor/NAME                other files that the class writes, such as a vocabulary

Such a folder may come from an untrusted source: it is read by `runs/files.py`, and `kind` selects among installed classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.config import instantiate, registry
from sslcli.data.dataset import Dataset, Preprocessor, hash_files
from sslcli.errors import StorageError, TrainingError
from sslcli.nn.values import Values
from sslcli.runs.files import digest, files_in, make_folder, parse, read_file, replace_file, size_of

FOLDER = "preprocessor"
MAIN = "preprocessor.json"
MAX_FILES = 16
MAX_BYTES = 256 << 20  # of all files


def preprocessor_class(kind: str) -> type[Preprocessor]:
    """The class of a kind of data, a name of configs/modality. ValueError for an unknown one."""
    files = registry.choices("modality")
    target = registry.describe(files[kind], "modality").get("preprocessor") if kind in files else None
    if target is None:
        raise ValueError(f"unknown kind of data {kind!r}: expected one of {', '.join(files)}")
    cls = instantiate.resolve("modality", target)
    assert isinstance(cls, type), target
    assert issubclass(cls, Preprocessor), cls
    return cls


def preprocessor_of(dataset: Dataset) -> Preprocessor:
    """The preprocessor of a data set: its own, or the one that its shape, values and details determine."""
    if dataset.preprocessor is not None:
        return dataset.preprocessor
    return from_fields(dataset.modality, dataset.shape, dataset.values, dataset.details)


def from_fields(kind: str, shape: tuple[int, ...], values: Values, details: Mapping[str, Any]) -> Preprocessor:
    """The preprocessor of data whose shape, values and details determine it. ValueError for an unknown kind."""
    return preprocessor_class(kind).of(tuple(shape), values, details)


def save(preprocessor: Preprocessor, folder: Path) -> None:
    """Writes preprocessor/ into a run or an exported folder; a file with the same content is left. StorageError."""
    try:
        make_folder(folder, FOLDER)
        for name, content in preprocessor.files().items():
            path = f"{FOLDER}/{name}"
            if size_of(folder, path) != len(content) or digest(folder, path) != hashlib.sha256(content).hexdigest():
                replace_file(folder, path, [content])
    except OSError as e:
        raise StorageError(f"cannot write {folder / FOLDER}: {e.strerror or e}") from None


def exists(folder: Path) -> bool:
    """Whether a run or an exported folder has a preprocessor."""
    return size_of(folder, f"{FOLDER}/{MAIN}") is not None


def load(folder: Path, sha256: str | None = None) -> Preprocessor:
    """Reads preprocessor/ of a run or an exported folder.

    `sha256`: the hash that it must have. TrainingError where files are missing, damaged or others."""
    place = folder / FOLDER
    hint = "copy the whole folder again, or start a new run with sslcli pretrain"
    names = files_in(folder, f"{FOLDER}/*")
    if f"{FOLDER}/{MAIN}" not in names:
        raise TrainingError(f"{place} has no {MAIN}", hint)
    if len(names) > MAX_FILES or sum(size_of(folder, name) or 0 for name in names) > MAX_BYTES:
        raise TrainingError(f"{place} has more than {MAX_FILES} files or {MAX_BYTES >> 20} MB", hint)
    try:
        files = {name.removeprefix(f"{FOLDER}/"): read_file(folder, name, MAX_BYTES) for name in names}
    except OSError as e:
        raise TrainingError(f"{place} cannot be read: {e.strerror or e}", hint) from None
    if sha256 is not None and hash_files(files) != sha256:
        raise TrainingError(f"{place} does not match the SHA-256 recorded beside the weights", hint)
    content = parse(files[MAIN])
    kind = content.pop("kind", None)
    try:
        return preprocessor_class(kind if isinstance(kind, str) else "").from_json(content, files)
    except ValueError as e:
        raise TrainingError(f"{place / MAIN} is not valid: {e}", hint) from None
