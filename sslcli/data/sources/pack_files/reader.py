"""Read a pack by memory map."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslcli.console import escape
from sslcli.data.files.memory_map import watch
from sslcli.data.images.decode import BadImage
from sslcli.data.images.encoded import Decoder, EncodedImages
from sslcli.data.sources.pack_files.manifest import INDEX, NAMES, RECORD, REPACK_HINT, read_manifest, shard_name
from sslcli.errors import DataError
from sslcli.runs import Record
from sslcli.runs.files import digest, open_binary, size_of


class Pack:
    """An open pack. Only its path is pickled: another process opens it again."""

    def __init__(self, folder: Path, manifest: Record):
        self.folder, self.manifest = folder, manifest
        self.raw = manifest["settings"]["format"] == "raw"
        self.index = map_file(folder, INDEX, RECORD)
        self.names = map_file(folder, NAMES, np.uint8) if size_of(folder, NAMES) else np.empty(0, np.uint8)
        self._shards: dict[int, np.ndarray] = {}

    @classmethod
    def open(cls, folder: Path) -> Pack:
        """Open a pack. Raises DataError unless its index and names match their checksums, and its shards their lengths."""
        manifest = read_manifest(folder)
        for name, about in manifest["files"].items():
            path, size = folder / name, size_of(folder, name)
            wrong = None
            if size != about["bytes"]:
                wrong = "is missing" if size is None else f"has {size:,} bytes, not {about['bytes']:,}"
            elif name in (INDEX, NAMES) and digest(folder, name) != about["sha256"]:
                wrong = "does not match its checksum"
            if wrong:
                raise DataError(f"{escape(str(path))} {wrong}: the pack is corrupt", f"{REPACK_HINT}{folder}")
        pack = cls(folder, manifest)
        if not pack.is_consistent():
            raise DataError(
                f"{INDEX} of {escape(str(folder))} is inconsistent with its shards", f"{REPACK_HINT}{folder}"
            )
        return pack

    def is_consistent(self) -> bool:
        """Whether every record is within its shard and has as many bytes as pixels require: the index may come from an untrusted
        source."""
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
        labeled = (index["label"] >= -1) & (index["label"] < max(1, len(manifest["classes"])))
        pixels = index["height"].astype(np.uint64) * index["width"] * np.uint64(manifest["settings"]["channels"])
        right = pixels == index["length"] if self.raw else pixels > 0
        return bool(inside.all() and labeled.all() and named and right.all() and (pixels > 0).all())

    def content(self, record: Any) -> np.ndarray:
        """The bytes of a sample, a view of the memory map."""
        shard = int(record["shard"])
        if shard not in self._shards:
            self._shards[shard] = map_file(self.folder, shard_name(shard), np.uint8)
        start = int(record["offset"])
        return self._shards[shard][start : start + int(record["length"])]

    def damage(self) -> list[str]:
        """The files that do not match their SHA-256. Reads all files."""
        wrong = [n for n, about in self.manifest["files"].items() if not self._is_intact(n, about["sha256"])]
        return [f"{escape(str(self.folder / n))} does not match its SHA-256" for n in wrong]

    def _is_intact(self, name: str, sha256: str) -> bool:
        try:
            return digest(self.folder, name) == sha256
        except OSError:
            return False


def map_file(folder: Path, name: str, kind: Any) -> np.ndarray:
    """A file of a pack as a memory map."""
    with open_binary(folder, name) as file:
        return watch(np.memmap(file, kind, "r"), str(folder / name))


class PackNames(Sequence[str]):
    """The names of a split, decoded on access."""

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


class PackSource(EncodedImages):
    """One split of a pack."""

    def __init__(self, pack: Pack, split: str, decoder: Decoder, max_bad_fraction: float = 0.01):
        self.pack, self.split, self.decoder, self.max_bad_fraction = pack, split, decoder, max_bad_fraction
        start, self._length = pack.manifest["splits"][split]
        self.records = pack.index[start : start + self._length]
        labels = torch.from_numpy(self.records["label"].astype(np.int64))
        self.labels = labels if bool((labels >= 0).any()) else None
        self.names = PackNames(pack, start, self._length)

    def __reduce__(self) -> Any:
        return _reopen, (self.pack.folder, self.split, self.decoder, self.max_bad_fraction)

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
            raise BadImage("corrupt in the pack: its CRC-32 does not match")
        if not self.pack.raw:
            return self.decoder(content.tobytes())
        return content.reshape(int(record["height"]), int(record["width"]), self.decoder.channels)

    def digest(self, index: int) -> bytes:
        return hashlib.sha256(self.pack.content(self.records[index]).data).digest()

    def damage(self) -> list[str]:
        return self.pack.damage()


def _reopen(folder: Path, split: str, decoder: Decoder, max_bad_fraction: float) -> PackSource:
    """Unpickle in a worker, without verifying the checksums again."""
    return PackSource(Pack(folder, read_manifest(folder)), split, decoder, max_bad_fraction)


def make_decoder(manifest: Record) -> Decoder:
    s = manifest["settings"]
    return Decoder(s["channels"], 2 * manifest["side"], s["range"], s["max_pixels"])
