"""Find tar shards and read byte ranges of them."""

from __future__ import annotations

import glob
import os
import re
from itertools import product
from typing import Any

from sslcli.console import escape, plural
from sslcli.data.folders.paths import require_path, require_regular, unpack_hint
from sslcli.data.folders.scan import scan
from sslcli.data.images import decode
from sslcli.data.sources.image_files import ImageFiles
from sslcli.errors import DataError, RequestError, listing

MAX_EXPANDED = 100_000  # shards that a pattern with braces may name
MAX_OPEN = 256  # shards kept open
DECOMPRESSORS = {b"\x1f\x8b": "gunzip -k", b"BZh": "bunzip2 -k", b"\xfd7zXZ": "unxz -k", b"\x28\xb5\x2f\xfd": "unzstd"}
EXPECTED = "a tar file, a folder of them, or a pattern such as train-{0000..0099}.tar"


def find_shards(path: str | None) -> list[str]:
    """The paths of the shards, in order. Raises RequestError unless each is an uncompressed regular file."""
    text = "" if path is None else os.path.expanduser(str(path))
    if os.path.exists(text) or not any(c in text for c in "*?[{"):
        text = require_path(path, EXPECTED)
        paths = _list_folder(text) if os.path.isdir(text) else [text]
    else:
        paths = [
            p
            for one in expand_braces(text)
            for p in (sorted(glob.glob(one)) if any(c in one for c in "*?[") else [one])
        ]
        missing = [p for p in paths if not os.path.exists(p)]
        if not paths:
            raise RequestError(f"no file matches {escape(text)}: expected {EXPECTED}", f"ls -d {escape(text)}")
        if missing:
            raise RequestError(
                f"{plural(len(missing), 'shard')} of {len(paths):,} named by {escape(text)} are missing: "
                f"{listing(map(escape, missing), 3)}",
                "download the missing shards, or change the pattern",
            )
    for p in paths:
        _require_uncompressed(require_regular(p))
    return list(dict.fromkeys(paths))


def _list_folder(folder: str) -> list[str]:
    listed = scan(folder, lambda n: re.search(r"\.(tar|tgz|tar\.\w+)$", n.lower()) is not None)
    empty = [p for p in listed.empty if p.endswith(".tar")]
    if empty:
        raise DataError(
            f"{plural(len(empty), 'shard')} of zero bytes: {listing(map(escape, empty), 3)}", "download them again"
        )
    if not listed.files:
        other = ", ".join(f"{n:,} {e}" for e, n in listed.ignored.most_common(4))
        hint = (
            "dataset=image_folder reads folders of images"
            if any(decode.is_image_name(f"x{e}") for e in listed.ignored)
            else None
        )
        raise RequestError(f"no tar file in {escape(folder)}" + (f"; it contains {other}" if other else ""), hint)
    return [os.path.join(folder, *parts) for parts, _ in listed.files]


def expand_braces(text: str) -> list[str]:
    """Expand braces: `a-{00..02}.tar` to `a-00.tar`, `a-01.tar`, `a-02.tar`; `{a,b}` as in a shell. Raises RequestError for
    other braces."""
    pieces = re.split(r"\{([^{}]*)\}", text)
    choices: list[list[str]] = []
    for piece in pieces[1::2]:
        numbers = re.fullmatch(r"(\d+)\.\.(\d+)", piece)
        if numbers:
            low, high = numbers.groups()
            wide = max(len(low), len(high)) if low.startswith("0") or high.startswith("0") else 0
            if int(high) - int(low) >= MAX_EXPANDED:
                raise RequestError(f"{{{piece}}} names more than {MAX_EXPANDED:,} shards", "dataset.path=FOLDER")
            choices.append([str(i).zfill(wide) for i in range(int(low), int(high) + 1)])
        else:
            choices.append(piece.split(","))
        if len(choices[-1]) < (1 if numbers else 2):
            raise RequestError(f"{{{piece}}} in {escape(text)} is neither a range nor a list", "train-{0000..0099}.tar")
    return ["".join(p + c for p, c in zip(pieces[::2], (*choice, ""), strict=True)) for choice in product(*choices)]


def _require_uncompressed(path: str) -> None:
    try:
        with open(path, "rb") as file:
            head = file.read(6)
    except OSError as error:
        raise RequestError(f"{escape(path)} cannot be read: {error.strerror}", f"ls -l {escape(path)}") from error
    tool = next((t for magic, t in DECOMPRESSORS.items() if head.startswith(magic)), None)
    if tool is not None:
        raise RequestError(
            f"{escape(path)} is compressed, which prevents random access (and hardly saves space for images)",
            f"decompress it once: {tool} {escape(path)}",
        )
    if not path.lower().endswith(".tar") and (how := unpack_hint(path)):
        raise RequestError(f"{escape(path)} is not a tar file", how)


class TarShards:
    """Reads byte ranges of tar files, and detects whether a file changed since it was indexed. Open files are not pickled."""

    def __init__(self, paths: list[str]):
        self.paths = paths
        self._states = [_file_state(os.stat(p)) for p in paths]
        self._open: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def read(self, place: str) -> bytes:
        """The bytes at `place`, `shard:offset:size`. Raises BadImage where the shard cannot be read or has changed."""
        number, offset, size = map(int, place.split(":"))
        if size > decode.MAX_BYTES:
            raise decode.BadImage(f"the file has {size:,} bytes, more than {decode.MAX_BYTES:,}")
        try:
            fd = self._open.get(number)
            if fd is not None:
                return self._read_range(number, fd, offset, size)
            fd = os.open(self.paths[number], os.O_RDONLY)
            if len(self._open) < MAX_OPEN and self._open.setdefault(number, fd) == fd:
                return self._read_range(number, fd, offset, size)
            try:  # too many open files, or another thread opened it first
                return self._read_range(number, fd, offset, size)
            finally:
                os.close(fd)
        except OSError as error:
            raise decode.BadImage(f"its tar file cannot be read: {error.strerror or error}") from error

    def _read_range(self, number: int, fd: int, offset: int, size: int) -> bytes:
        if _file_state(os.fstat(fd)) != self._states[number]:
            raise decode.BadImage("its tar file has changed")
        pieces = []
        while size:
            piece = os.pread(fd, size, offset)
            if not piece:
                raise decode.BadImage("its tar file is truncated")
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def __del__(self) -> None:
        for fd in self._open.values():
            os.close(fd)


def _file_state(about: os.stat_result) -> tuple[int, int]:
    return about.st_size, about.st_mtime_ns


class TarSource(ImageFiles):
    """The images of one split in tar shards."""

    def __init__(self, shards: TarShards, *image_files: Any):
        super().__init__(*image_files)
        self.shards = shards

    def file(self, index: int) -> bytes:
        return self.shards.read(self.paths[index])
