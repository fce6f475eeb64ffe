"""The index of a tar shard: where each image is located, and its label."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcli.config import typecheck
from sslcli.console import escape, plural
from sslcli.data import notify
from sslcli.data.files.csv_table import decode_text
from sslcli.data.files.parallel import parallel_map
from sslcli.data.images import decode
from sslcli.data.sources.tar_files import headers as tar_headers
from sslcli.data.sources.tar_files.shards import TarShards
from sslcli.errors import DataError, StorageError, listing
from sslcli.runs.files import read_json, replace_file

FORMAT = 5  # of a cached index
LABELS = ("label", "class", "cls")  # label entries of a .json file, in order of preference
SIDECAR_BYTES = 1 << 20  # larger files are not read as labels
INDEX_SCHEMA: dict[str, Any] = {"samples": list[list[Any]], "ignored": dict[str, int]}


@dataclass(frozen=True)
class ShardIndex:
    """The index of one shard: [name, offset, bytes, label or None, key of that label or None] of each image, in order, and the
    number of ignored members by extension."""

    samples: list[list[Any]]
    ignored: Counter[str]


def read_indices(shards: TarShards, label: str | None) -> list[ShardIndex]:
    """The index of each shard. Raises DataError where shards cannot be read."""

    def one(i: int) -> ShardIndex | str:
        try:
            return _read_index(shards.paths[i], label)
        except tar_headers.READ_ERRORS as error:
            return " ".join(str(error).split()) or type(error).__name__

    indices = parallel_map(one, len(shards.paths), "reading the headers of tar files")
    bad = {shards.paths[i]: reason for i, reason in enumerate(indices) if isinstance(reason, str)}
    if bad:
        raise DataError(
            f"{plural(len(bad), 'tar file')} of {len(indices):,} cannot be read: "
            + listing((f"{escape(p)} ({escape(r)})" for p, r in bad.items()), 3),
            "download them again, or exclude them from dataset.path",
        )
    return indices


def _read_index(path: str, label: str | None) -> ShardIndex:
    """The index of a shard, from the cache or from its headers; the latter is cached."""
    about = os.stat(path)
    key = f"{FORMAT}\0{path}\0{about.st_size}\0{about.st_mtime_ns}\0{label}"
    cached = Path(
        os.environ.get("SSLCLI_DATA", ".data"),
        "tar-index",
        hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".json",
    )
    cached_index = read_json(cached.parent, cached.name)
    if all(typecheck.matches_type(cached_index.get(k), kind) for k, kind in INDEX_SCHEMA.items()) and _is_plausible(
        cached_index["samples"], about.st_size
    ):
        return ShardIndex(cached_index["samples"], Counter(cached_index["ignored"]))
    index = _read_headers(path, about.st_size, label)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        replace_file(cached.parent, cached.name, json.dumps({"samples": index.samples, "ignored": index.ignored}))
    except (OSError, StorageError) as error:
        notify.log(f"warning: the index of {escape(path)} cannot be cached: {error}")
    return index


def _is_plausible(samples: list[list[Any]], size: int) -> bool:
    return all(
        len(s) == 5 and isinstance(s[0], str) and isinstance(s[1], int) and isinstance(s[2], int) and s[1] >= 0
        and s[2] > 0 and s[1] + s[2] <= size and all(v is None or isinstance(v, str) for v in s[3:])
        for s in samples
    )  # fmt: skip


def _read_headers(path: str, size: int, label: str | None) -> ShardIndex:
    """Read the headers of a shard in one pass, and of the contents only labels."""
    images: list[tuple[str, int, int]] = []
    labels: dict[str, str] = {}
    ignored: Counter[str] = Counter()
    with tarfile.open(path, "r:", tarinfo=tar_headers.Header) as file:
        for member in tar_headers.members(file):
            extension = _extension(member.name, label)
            if not member.isreg() or member.issparse():
                ignored["folder" if member.isdir() else "link or special"] += 1
            elif member.offset_data + member.size > size:
                raise tarfile.ReadError(f"truncated within {escape(member.name)}")
            elif decode.is_image_name(member.name):
                if member.size:
                    images.append((member.name, member.offset_data, member.size))
                else:
                    ignored["image of zero bytes"] += 1
            elif (text := _read_label(file, member, extension, label)) is not None:
                key = member.name[: -len(extension)]
                if extension != ".json" or key not in labels:
                    labels[key] = text
            else:
                ignored[extension or "no extension"] += 1
    keys = [next((k for k in _keys(name) if k in labels), None) for name, _, _ in images]
    if unused := len(labels.keys() - set(keys)):
        ignored["label without an image"] = unused
    return ShardIndex(
        [[*image, None if k is None else labels[k], k] for image, k in zip(images, keys, strict=True)], ignored
    )


def _extension(name: str, label: str | None) -> str:
    """`.cls` of `a/track.7.cls`; `.x.cls` where `label` is `x.cls`."""
    suffix = f".{label}".lower()
    return suffix if name.lower().endswith(suffix) else os.path.splitext(name)[1].lower()


def _keys(name: str) -> Iterator[str]:
    """Possible names of the label of an image, without extension: `a/b.left` and `a/b` for `a/b.left.jpg`. The last one follows
    webdataset; the first supports base names with dots, such as `track.7.jpg` beside `track.7.cls`."""
    folder, slash, base = name.rpartition("/")
    parts = base.split(".")
    for n in range(len(parts) - 1, 0, -1):
        yield folder + slash + ".".join(parts[:n])


def _read_label(file: tarfile.TarFile, member: tarfile.TarInfo, extension: str, label: str | None) -> str | None:
    """The label in a member of a tar file, or None."""
    auto = label in ("auto", None)
    if label in ("none", "top", "parent"):
        return None
    if member.size > SIDECAR_BYTES or extension not in {".cls", ".json"} | ({f".{label}".lower()} - {".auto", ".none"}):
        return None
    content = file.extractfile(member)
    text = "" if content is None else decode_text(content.read()).strip()
    if extension == ".json" and label != "json":
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(entries, dict):
            return None
        if auto:
            entries = {k.lower(): v for k, v in reversed(entries.items())}
        value = next((entries[k] for k in (LABELS if auto else (str(label),)) if k in entries), None)
        return str(value) if isinstance(value, (str, int, float)) and str(value) else None
    return text or None if auto or extension == f".{label}".lower() else None
