"""A pack: the images of a data set in a few large files, read by memory map. `pack_writer.py` writes it.

    photos.pack/
      manifest.json     what it is: splits, classes, settings, size and SHA-256 of every file, and its own
      index.bin         a RECORD for each sample: where it lies, its CRC-32, label, size; splits one after the other
      names.bin         the samples' names, one after the other
      shard-00000.bin   the samples: encoded images, or uint8 pixels (H, W, C), one after the other

Opening compares the manifest, the index and the names with their sums, and the shards with their lengths: a cut or
swapped file is refused at once, whatever the size of the pack. An encoded image is compared with its CRC-32 at each
reading (some microseconds beside a decoding; a flipped bit in a JPEG would else be another picture, and no error). Raw
pixels are not (it would read all of an image of which a crop is wanted): `sslcli data inspect --strict` compares them,
and every shard with its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslcli.config import typecheck
from sslcli.data.dataset import Dataset
from sslcli.data.files.memory_map import watch
from sslcli.data.folders.scan import require_folder
from sslcli.data.images.decode import BadImage
from sslcli.data.images.encoded import Decoder, Pictures
from sslcli.data.images.headers import budget
from sslcli.data.notify import count, shown
from sslcli.data.public.datasets import MAX_SIZE, check_size
from sslcli.data.stats import image_stats
from sslcli.data.subset import check_pretrain_on, pretrained_on
from sslcli.errors import DataError, RequestError
from sslcli.runs.files import digest, open_binary, parse, read_file, size_of

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
KEYS: dict[str, Any] = {
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
FILE: dict[str, Any] = {"bytes": int, "sha256": str}  # what a manifest says of a file
SETTINGS: dict[str, Any] = {
    "format": str,
    "channels": int,
    "size": int | None,
    "range": str | list[float] | None,
    "max_pixels": int,
}
WANTED = "a pack (sslcli data pack makes one)"
ANEW = "remove it and make it anew: sslcli data pack dataset=image_folder dataset.path=PHOTOS out="


def own_hash(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest without its `sha256`."""
    rest = {k: v for k, v in manifest.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Whole and unaltered, or a DataError. RequestError where there is none."""
    try:
        found = parse(read_file(folder, MANIFEST))
    except FileNotFoundError:
        hint = "the same `sslcli data pack` finishes it" if folder.suffix == ".part" else None
        raise RequestError(f"{shown(str(folder))} is no finished pack", hint or "dataset.path=photos.pack") from None
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"{MANIFEST} of {shown(str(folder))} cannot be read: {why}", f"{ANEW}{folder}") from None
    if found.get("sha256") != own_hash(found):
        raise DataError(f"{MANIFEST} of {shown(str(folder))} was altered", f"{ANEW}{folder}")
    if found.get("format") != FORMAT:
        raise DataError(f"{shown(str(folder))} is of another version: {found.get('format')}", f"{ANEW}{folder}")
    if not _describes(found):
        raise DataError(f"{MANIFEST} of {shown(str(folder))} does not say what the pack is", f"{ANEW}{folder}")
    return found


def _describes(found: dict[str, Any]) -> bool:
    """Whether a manifest says what a pack is: whoever can write one can write its sum."""

    def fits(node: dict[str, Any], schema: dict[str, Any]) -> bool:
        return all(typecheck.matches_type(node.get(key), kind) for key, kind in schema.items())

    if not fits(found, KEYS) or not fits(found["settings"], SETTINGS):
        return False
    s, files, splits, spread = found["settings"], found["files"], found["splits"], found["std"]
    names = {INDEX, NAMES, *(shard_name(i) for i in range(len(files) - 2))}
    values = s["range"] if isinstance(s["range"], list) else [0.0, 1.0]
    return (
        len(files) > 2
        and files.keys() == names
        and all(fits(about, FILE) and about["bytes"] >= 0 for about in files.values())
        and files[INDEX]["bytes"] % RECORD.itemsize == 0 < files[INDEX]["bytes"]
        and "train" in splits
        and splits.keys() <= {"train", "test", "unlabelled"}
        and all(len(place) == 2 for place in splits.values())
        and s["format"] in ("jpeg", "raw")
        and s["channels"] in (1, 3, 4)
        and len(values) == 2
        and min(s["max_pixels"], found["side"]) > 0
        and len(found["mean"]) == len(spread) == s["channels"]
        and all(map(math.isfinite, (*found["mean"], *spread, *values)))
        and min(spread) > 0
    )


class Pack:
    """An open pack. Another process opens it anew by its path: nothing else is handed over."""

    def __init__(self, folder: Path, manifest: dict[str, Any]):
        self.folder, self.manifest = folder, manifest
        self.raw = manifest["settings"]["format"] == "raw"
        self.index = mapped(folder, INDEX, RECORD)
        self.names = mapped(folder, NAMES, np.uint8) if size_of(folder, NAMES) else np.empty(0, np.uint8)
        self._shards: dict[int, np.ndarray] = {}

    @classmethod
    def open(cls, folder: Path) -> Pack:
        """Compared with its sums, the shards with their lengths. DataError."""
        manifest = read_manifest(folder)
        for name, about in manifest["files"].items():
            path, size = folder / name, size_of(folder, name)
            wrong = None
            if size != about["bytes"]:
                wrong = "is gone" if size is None else f"has {size:,} bytes, not {about['bytes']:,}"
            elif name in (INDEX, NAMES) and digest(folder, name) != about["sha256"]:
                wrong = "was altered"
            if wrong:
                raise DataError(f"{shown(str(path))} {wrong}: the pack is damaged", f"{ANEW}{folder}")
        opened = cls(folder, manifest)
        if not opened.consistent():
            raise DataError(f"{INDEX} of {shown(str(folder))} does not fit its shards", f"{ANEW}{folder}")
        return opened

    def consistent(self) -> bool:
        """Every record lies within its shard and has the pixels it says: of an index that somebody else made."""
        index, manifest = self.index, self.manifest
        n = 0
        for start, length in sorted(manifest["splits"].values()):
            if start != n or length < 1:
                return False
            n += length
        sizes = [manifest["files"][shard_name(i)]["bytes"] for i in range(len(manifest["files"]) - 2)]
        if n != len(index) or not sizes or int(index["shard"].max()) >= len(sizes):
            return False
        room = np.array(sizes, np.uint64)[index["shard"]]
        inside = (index["length"] <= room) & (index["offset"] <= room - np.minimum(index["length"], room))
        ends = index["name_end"].astype(np.int64)
        named = ends[0] >= 0 and bool((np.diff(ends) >= 0).all()) and ends[-1] == len(self.names)
        labelled = (index["label"] >= -1) & (index["label"] < max(1, len(manifest["classes"])))
        pixels = index["height"].astype(np.uint64) * index["width"] * np.uint64(manifest["settings"]["channels"])
        right = pixels == index["length"] if self.raw else pixels > 0
        return bool(inside.all() and labelled.all() and named and right.all() and (pixels > 0).all())

    def content(self, record: Any) -> np.ndarray:
        """The bytes of a sample: a view of the map."""
        shard = int(record["shard"])
        if shard not in self._shards:
            self._shards[shard] = mapped(self.folder, shard_name(shard), np.uint8)
        start = int(record["offset"])
        return self._shards[shard][start : start + int(record["length"])]

    def damage(self) -> list[str]:
        """The files that do not match their SHA-256. Reads all of them."""
        wrong = [n for n, about in self.manifest["files"].items() if not self._is_whole(n, about["sha256"])]
        return [f"{shown(str(self.folder / n))} does not match its SHA-256" for n in wrong]

    def _is_whole(self, name: str, sha256: str) -> bool:
        try:
            return digest(self.folder, name) == sha256
        except OSError:
            return False


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.bin"


def mapped(folder: Path, name: str, kind: Any) -> np.ndarray:
    """A file of a pack as a memory map."""
    with open_binary(folder, name) as file:
        return watch(np.memmap(file, kind, "r"), str(folder / name))


class Names(Sequence[str]):
    """The names of a split, read when they are asked for."""

    def __init__(self, pack: Pack, start: int, length: int):
        self.pack, self.start, self.length = pack, start, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(self.length))]
        if not -self.length <= at < self.length:
            raise IndexError(at)
        i = self.start + at % self.length
        ends = self.pack.index["name_end"]
        return os.fsdecode(self.pack.names[int(ends[i - 1]) if i else 0 : int(ends[i])].tobytes())


class PackSource(Pictures):
    """One split of a pack."""

    def __init__(self, pack: Pack, split: str, decoder: Decoder, max_bad_fraction: float = 0.01):
        self.pack, self.split, self.decoder, self.max_bad_fraction = pack, split, decoder, max_bad_fraction
        start, self._length = pack.manifest["splits"][split]
        self.records = pack.index[start : start + self._length]
        labels = torch.from_numpy(self.records["label"].astype(np.int64))
        self.labels = labels if bool((labels >= 0).any()) else None
        self.names = Names(pack, start, self._length)

    def __reduce__(self) -> Any:
        return _again, (self.pack.folder, self.split, self.decoder, self.max_bad_fraction)

    def __len__(self) -> int:
        return self._length

    @property
    def sizes(self) -> list[int]:  # type: ignore[override]
        return self.records["length"].tolist()

    def decode(self, index: int) -> Any:
        return self._decode(index, check=not self.pack.raw)

    def checked(self, index: int) -> Any:
        return self._decode(index, check=True)

    def _decode(self, index: int, check: bool) -> Any:
        record = self.records[index]
        content = self.pack.content(record)
        if check and zlib.crc32(content.data) != record["crc"]:
            raise BadImage("its bytes in the pack were altered")
        if not self.pack.raw:
            return self.decoder(content.tobytes())
        return content.reshape(int(record["height"]), int(record["width"]), self.decoder.channels)

    def digest(self, index: int) -> bytes:
        return hashlib.sha256(self.pack.content(self.records[index]).data).digest()

    def damage(self) -> list[str]:
        return self.pack.damage()


def _again(folder: Path, split: str, decoder: Decoder, max_bad_fraction: float) -> PackSource:
    """In a worker: what was compared once is not compared again."""
    return PackSource(Pack(folder, read_manifest(folder)), split, decoder, max_bad_fraction)


def decoder_of(manifest: dict[str, Any]) -> Decoder:
    s = manifest["settings"]
    return Decoder(s["channels"], 2 * manifest["side"], s["range"], s["max_pixels"])


def pack(
    path: str | None = None,
    name: str = "pack",
    image_size: int | None = None,
    resident: bool | str = "auto",
    max_bad_fraction: float = 0.01,
    pretrain_on: str = "unlabelled",
    max_size: int = MAX_SIZE,
) -> Dataset:
    """A pack as the Dataset it was made of: the same samples, labels, names and splits.

    `image_size`: side of a view; null is that of the data set it was made of, or the packed size where that is less, at most
    `max_size`.
    `resident`: keep all decoded in memory: auto (one size, at most 2 GiB and half of the free memory), true, false.
    `pretrain_on`: as for `image_folder`.

    Raises RequestError for a path that is no pack and for values, DataError for a damaged pack.
    """
    check_size(image_size)
    check_pretrain_on(pretrain_on)
    check_size(max_size, "max_size")
    if resident not in ("auto", True, False):
        raise RequestError(f"dataset.resident is {resident}, but must be auto, true or false", "dataset.resident=auto")
    if not 0 <= max_bad_fraction <= 1:
        raise RequestError(f"dataset.max_bad_fraction is {max_bad_fraction}, but must lie in 0..1")
    opened = Pack.open(Path(require_folder(path, WANTED)))
    manifest = opened.manifest
    settings = manifest["settings"]
    channels, side = settings["channels"], image_size or min(manifest["side"], max_size)
    keep = _fits(opened, resident, channels)
    decoder = replace(decoder_of(manifest), need=None if keep else 2 * side)
    sources = {split: PackSource(opened, split, decoder, max_bad_fraction) for split in manifest["splits"]}
    mean, std = manifest["mean"], manifest["std"]
    bad: dict[str, str] = {}
    if keep:
        for source in sources.values():
            source.decode_all(int(opened.index["width"][0]), int(opened.index["height"][0]))
            bad |= {source.name_of(i): reason for i, reason in source.bad.items()}
        mean, std = image_stats(sources["train"])
    notes = _notes(manifest)
    return Dataset(
        name=name,
        modality="image",
        shape=(channels, side, side),
        train=sources["train"],
        test=sources.get("test"),
        classes=tuple(manifest["classes"]),
        unlabelled=pretrained_on(sources["train"], sources.get("unlabelled"), pretrain_on, notes),
        mean=tuple(mean),
        std=tuple(std),
        fingerprint=manifest["fingerprint"],
        notes=notes,
        details={
            "layout": "pack",
            "channels": channels,
            "range": settings["range"] if isinstance(settings["range"], list) else None,
            "resident": keep,
            "bad": bad,
            "left_out": len(manifest["left_out"]),
            "formats": {settings["format"]: len(opened.index)},
        },
    )


def _fits(opened: Pack, wish: bool | str, channels: int) -> bool:
    """`dataset.resident` decided, as for files."""
    if wish is False:
        return False
    index = opened.index
    one_size = len(np.unique(index["width"])) == len(np.unique(index["height"])) == 1
    if not one_size:
        if wish is True:
            some = Counter(zip(index["width"][:1000].tolist(), index["height"][:1000].tolist(), strict=True))
            raise RequestError(
                "dataset.resident=true wants images of one size, and the pack has several, such as "
                + ", ".join(f"{w}x{h}" for (w, h), _ in some.most_common(3)),
                "dataset.resident=auto",
            )
        return False
    return wish is True or int(index["width"][0]) * int(index["height"][0]) * channels * len(index) <= budget()


def _notes(manifest: dict[str, Any]) -> list[str]:
    s = manifest["settings"]
    how = "raw pixels" if s["format"] == "raw" else "encoded"
    how += f", short side at most {s['size']}" if s["size"] else ", in their own size"
    total = sum(n for _, n in manifest["splits"].values())
    notes = [f"pack of {count(total, 'image')}, {how}", *manifest["notes"]]
    if manifest["left_out"]:
        notes.append(f"{count(len(manifest['left_out']), 'unreadable file')} left out when it was made")
    return notes
