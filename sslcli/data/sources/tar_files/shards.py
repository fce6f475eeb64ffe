"""Find tar shards and read byte ranges of them."""

from __future__ import annotations

import glob
import os
import re
from itertools import product
from typing import Any

from sslcli.console import plural
from sslcli.data.folders.paths import require_path, require_regular, unpack_hint
from sslcli.data.folders.scan import scan
from sslcli.data.images import decode
from sslcli.data.notify import shown
from sslcli.data.sources.image_dataset import ImageFiles
from sslcli.errors import DataError, RequestError, listing

MAX_EXPANDED = 100_000  # shards that braces may name
MAX_OPEN = 256  # shards kept open
DECOMPRESSORS = {b"\x1f\x8b": "gunzip -k", b"BZh": "bunzip2 -k", b"\xfd7zXZ": "unxz -k", b"\x28\xb5\x2f\xfd": "unzstd"}
EXPECTED = "a tar file, a folder of them, or a pattern such as train-{0000..0099}.tar"


def find_shards(path: str | None) -> list[str]:
    """Paths in order, each an uncompressed regular file. RequestError."""
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
            raise RequestError(f"no file is named like {shown(text)}; {EXPECTED} is wanted", f"ls -d {shown(text)}")
        if missing:
            raise RequestError(
                f"{plural(len(missing), 'shard')} of {len(paths):,} named by {shown(text)} not there: "
                f"{listing(map(shown, missing), 3)}",
                "fetch what is missing, or name only what is there",
            )
    for p in paths:
        _require_uncompressed(require_regular(p))
    return list(dict.fromkeys(paths))


def _list_folder(folder: str) -> list[str]:
    found = scan(folder, lambda n: re.search(r"\.(tar|tgz|tar\.\w+)$", n.lower()) is not None)
    empty = [p for p in found.empty if p.endswith(".tar")]
    if empty:
        raise DataError(
            f"{plural(len(empty), 'shard')} of zero bytes: {listing(map(shown, empty), 3)}", "fetch them again"
        )
    if not found.files:
        other = ", ".join(f"{n:,} {e}" for e, n in found.ignored.most_common(4))
        hint = (
            "dataset=image_folder reads folders of images"
            if any(decode.is_image_name(f"x{e}") for e in found.ignored)
            else None
        )
        raise RequestError(f"no tar file in {shown(folder)}" + (f"; it holds {other}" if other else ""), hint)
    return [os.path.join(folder, *parts) for parts, _ in found.files]


def expand_braces(text: str) -> list[str]:
    """`a-{00..02}.tar`: `a-00.tar`, `a-01.tar`, `a-02.tar`; `{a,b}` as in a shell. RequestError for what is neither."""
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
            raise RequestError(f"{{{piece}}} in {shown(text)} is no range and no choice", "train-{0000..0099}.tar")
    return ["".join(p + c for p, c in zip(pieces[::2], (*some, ""), strict=True)) for some in product(*choices)]


def _require_uncompressed(path: str) -> None:
    try:
        with open(path, "rb") as file:
            head = file.read(6)
    except OSError as error:
        raise RequestError(f"{shown(path)} may not be read: {error.strerror}", f"ls -l {shown(path)}") from error
    tool = next((t for magic, t in DECOMPRESSORS.items() if head.startswith(magic)), None)
    if tool is not None:
        raise RequestError(
            f"{shown(path)} is compressed: no picture in it can be reached but by unpacking all before it "
            "(and pictures hardly shrink)",
            f"unpack it once: {tool} {shown(path)}",
        )
    if not path.lower().endswith(".tar") and (how := unpack_hint(path)):
        raise RequestError(f"{shown(path)} is no tar file", how)


class TarShards:
    """Tar files as they were when this was made. Another process opens them anew."""

    def __init__(self, paths: list[str]):
        self.paths = paths
        self._was = [_file_state(os.stat(p)) for p in paths]
        self._open: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def read(self, place: str) -> bytes:
        """`place` is `shard:offset:bytes`. BadImage where the shard is not as it was."""
        number, offset, size = map(int, place.split(":"))
        if size > decode.MAX_BYTES:
            raise decode.BadImage(f"the file has {size:,} bytes, more than {decode.MAX_BYTES:,}")
        try:
            fd = self._open.get(number)
            if fd is not None:
                return self._whole(number, fd, offset, size)
            fd = os.open(self.paths[number], os.O_RDONLY)
            if len(self._open) < MAX_OPEN and self._open.setdefault(number, fd) == fd:
                return self._whole(number, fd, offset, size)
            try:  # too many, or another thread was faster
                return self._whole(number, fd, offset, size)
            finally:
                os.close(fd)
        except OSError as error:
            raise decode.BadImage(f"its tar file cannot be read: {error.strerror or error}") from error

    def _whole(self, number: int, fd: int, offset: int, size: int) -> bytes:
        if _file_state(os.fstat(fd)) != self._was[number]:
            raise decode.BadImage("its tar file was changed")
        pieces = []
        while size:
            piece = os.pread(fd, size, offset)
            if not piece:
                raise decode.BadImage("its tar file was cut short")
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def __del__(self) -> None:
        for fd in self._open.values():
            os.close(fd)


def _file_state(about: os.stat_result) -> tuple[int, int]:
    return about.st_size, about.st_mtime_ns


class TarSource(ImageFiles):
    """The pictures of one split."""

    def __init__(self, shards: TarShards, *of_files: Any):
        super().__init__(*of_files)
        self.shards = shards

    def file(self, index: int) -> bytes:
        return self.shards.read(self.paths[index])
