"""Preprocessors of runs and of exported encoders: which class a kind of data has, and how they are written and read.

    preprocessor/preprocessor.json   `kind`, the name of a modality, and what was fitted
    preprocessor/NAME                other files that the class writes, such as a vocabulary

Such a folder may come from an untrusted source: it is read by `runs/files.py`, and `kind` selects among installed classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.config import instantiate, registry
from sslcli.config.modalities import modality_files
from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.errors import TrainingError
from sslcli.nn.values import Values
from sslcli.runs import Record
from sslcli.runs.encoder import PREPROCESSOR, values_of
from sslcli.runs.files import files_in, hash_files, parse, read_file, size_of

MAIN = "preprocessor.json"
MAX_FILES = 16
MAX_BYTES = 256 << 20  # of all files
EACH_IMAGE = "image"  # the `range` of runs that recorded none: named ranges were those of each image
HINT = "copy the whole folder again, or start a new run with sslcli pretrain"


def preprocessor_class(kind: str) -> type[Preprocessor]:
    """The class of a kind of data, a name of configs/modality. ValueError for an unknown one."""
    files = modality_files()
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


def of_encoder(folder: Path, info: Record) -> Preprocessor:
    """The preprocessor of a run or an exported folder with this encoder.json, also of format 1. TrainingError."""
    shape = tuple(info["input_shape"])
    if info["format"] > 1:
        out = load(folder, info.get("preprocessor", {}).get("sha256", ""))
        if (out.kind, out.shape) != (info["modality"], shape):
            raise TrainingError(f"{folder / PREPROCESSOR} is of other samples than those in encoder.json", HINT)
        return out
    return from_format_1(shape, values_of(info), {k: info[k] for k in ("range",) if k in info}, info["modality"])


def from_format_1(
    shape: tuple[int, ...], values: Values, details: Mapping[str, Any], kind: str | None = None
) -> Preprocessor:
    """The preprocessor of a run of an earlier version, of images or series. TrainingError for another kind of data.

    `details`: `range` where it was recorded. `kind`: where it is known."""
    kind = kind or ("image" if len(shape) == 3 else "series")
    try:
        return from_fields(kind, shape, values, {"range": EACH_IMAGE, **details})
    except (ValueError, NotImplementedError) as e:
        raise TrainingError(f"the run records no preprocessor: {e}", HINT) from None


def load(folder: Path, sha256: str | None = None) -> Preprocessor:
    """Reads preprocessor/ of a run or an exported folder.

    `sha256`: the hash that it must have. TrainingError where files are missing, damaged or others."""
    place = folder / PREPROCESSOR
    names = files_in(folder, f"{PREPROCESSOR}/*")
    if f"{PREPROCESSOR}/{MAIN}" not in names:
        raise TrainingError(f"{place} has no {MAIN}", HINT)
    if len(names) > MAX_FILES or sum(size_of(folder, name) or 0 for name in names) > MAX_BYTES:
        raise TrainingError(f"{place} has more than {MAX_FILES} files or {MAX_BYTES >> 20} MB", HINT)
    try:
        files = {name.removeprefix(f"{PREPROCESSOR}/"): read_file(folder, name, MAX_BYTES) for name in names}
    except OSError as e:
        raise TrainingError(f"{place} cannot be read: {e.strerror or e}", HINT) from None
    if sha256 is not None and hash_files(files) != sha256:
        raise TrainingError(f"{place} does not match the SHA-256 recorded beside the weights", HINT)
    content = parse(files[MAIN])
    kind = content.pop("kind", None)
    try:
        return preprocessor_class(kind if isinstance(kind, str) else "").from_json(content, files)
    except ValueError as e:
        raise TrainingError(f"{place / MAIN} is not valid: {e}", HINT) from None
