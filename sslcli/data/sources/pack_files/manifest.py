"""The format of a pack: its manifest and its index records (see `pack.py`)."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from sslcli.config import Config, typecheck
from sslcli.console import escape
from sslcli.errors import DataError, RequestError
from sslcli.runs import Record
from sslcli.runs.files import parse, read_file

FORMAT = "sslcli pack 1"
MANIFEST, INDEX, NAMES = "manifest.json", "index.bin", "names.bin"
RECORD = np.dtype(
    [
        ("offset", "<u8"),
        ("length", "<u8"),
        ("name_end", "<u8"),
        ("label", "<i8"),
        ("shard", "<u4"),
        ("crc", "<u4"),
        ("height", "<u4"),
        ("width", "<u4"),
    ]
)
MANIFEST_SCHEMA: dict[str, Any] = {
    "splits": dict[str, list[int]],
    "classes": list[str],
    "settings": dict[str, Any],
    "files": dict[str, dict[str, Any]],
    "of": dict,
    "side": int,
    "mean": list[float],
    "std": list[float],
    "notes": list[str],
    "left_out": dict[str, str],
    "fingerprint": str,
}
FILE_SCHEMA: dict[str, Any] = {"bytes": int, "sha256": str}  # the entry of a file in a manifest
SETTINGS_SCHEMA: dict[str, Any] = {
    "format": str,
    "channels": int,
    "size": int | None,
    "range": str | list[float] | None,
    "max_pixels": int,
}
REPACK_HINT = "remove it and write it again: sslcli data pack dataset=image_folder dataset.path=PHOTOS out="


def manifest_hash(manifest: Record) -> str:
    """SHA-256 of a manifest without its `sha256`."""
    rest = {k: v for k, v in manifest.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Record:
    """The manifest of a pack. Raises DataError where it is corrupt, RequestError where there is none."""
    try:
        manifest = parse(read_file(folder, MANIFEST))
    except FileNotFoundError:
        hint = "run the same `sslcli data pack` again to finish it" if folder.suffix == ".part" else None
        raise RequestError(
            f"{escape(str(folder))} is not a finished pack", hint or "dataset.path=photos.pack"
        ) from None
    except OSError as error:
        why = error.strerror or error
        raise DataError(
            f"{MANIFEST} of {escape(str(folder))} cannot be read: {why}", f"{REPACK_HINT}{folder}"
        ) from None
    if manifest.get("sha256") != manifest_hash(manifest):
        raise DataError(f"{MANIFEST} of {escape(str(folder))} is corrupt", f"{REPACK_HINT}{folder}")
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"{escape(str(folder))} has another format version: {manifest.get('format')}", f"{REPACK_HINT}{folder}"
        )
    if not _is_complete(manifest):
        raise DataError(
            f"{MANIFEST} of {escape(str(folder))} lacks entries or has invalid ones",
            f"{REPACK_HINT}{folder}",
        )
    return manifest


def _is_complete(manifest: Record) -> bool:
    """Whether a manifest has all entries, with plausible values: a valid checksum does not imply that."""

    def fits(node: Config, schema: dict[str, Any]) -> bool:
        return all(typecheck.matches_type(node.get(key), kind) for key, kind in schema.items())

    if not fits(manifest, MANIFEST_SCHEMA) or not fits(manifest["settings"], SETTINGS_SCHEMA):
        return False
    s, files, splits, std = manifest["settings"], manifest["files"], manifest["splits"], manifest["std"]
    names = {INDEX, NAMES, *(shard_name(i) for i in range(len(files) - 2))}
    values = s["range"] if isinstance(s["range"], list) else [0.0, 1.0]
    return (
        len(files) > 2
        and files.keys() == names
        and all(fits(about, FILE_SCHEMA) and about["bytes"] >= 0 for about in files.values())
        and files[INDEX]["bytes"] % RECORD.itemsize == 0 < files[INDEX]["bytes"]
        and "train" in splits
        and splits.keys() <= {"train", "test", "unlabelled"}
        and all(len(place) == 2 for place in splits.values())
        and s["format"] in ("jpeg", "raw")
        and s["channels"] in (1, 3, 4)
        and len(values) == 2
        and min(s["max_pixels"], manifest["side"]) > 0
        and len(manifest["mean"]) == len(std) == s["channels"]
        and all(map(math.isfinite, (*manifest["mean"], *std, *values)))
        and min(std) > 0
    )


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.bin"
