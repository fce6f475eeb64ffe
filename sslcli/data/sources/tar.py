"""Images in tar files (shards), as the webdataset convention has them: `000001.jpg` beside `000001.cls` or `000001.json`.

The headers of a shard are read once, and where each picture lies is noted in an index ($SSLCLI_DATA/tar-index) that is good
as long as the shard keeps its size and time. From then on a picture is one read at its place, so everything is as with a
folder: the seeded order, resume, held-out splits, unreadable samples. A compressed shard has no such places.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from sslcli.config import typecheck as kinds
from sslcli.data import notify
from sslcli.data.dataset import Dataset
from sslcli.data.files.csv_table import decoded
from sslcli.data.files.label_text import Cells, numbers
from sslcli.data.folders.layout import READINGS, Files, Found, is_chosen, read
from sslcli.data.folders.scan import require_path, require_regular, scan, unpacking
from sslcli.data.folders.split_folders import Parts
from sslcli.data.folders.split_names import together
from sslcli.data.images import decode
from sslcli.data.images.headers import each
from sslcli.data.notify import count, shown
from sslcli.data.public.datasets import MAX_SIZE
from sslcli.data.sources import tar_headers
from sslcli.data.sources.image_folder import Asked, FolderSource, dataset_of
from sslcli.errors import DataError, RequestError, StorageError, listing
from sslcli.runs.files import read_json, replace_file

FORMAT = 4  # of an index
LABELS = ("label", "class", "cls")  # keys of a .json that are looked for
SIDECAR_BYTES = 1 << 20  # a larger one is no label
MAX_EXPANDED = 100_000  # shards that braces may name
MAX_OPEN = 256  # shards kept open
UNPACKED_BY = {b"\x1f\x8b": "gunzip -k", b"BZh": "bunzip2 -k", b"\xfd7zXZ": "unxz -k", b"\x28\xb5\x2f\xfd": "unzstd"}
WANTED = "a tar file, a folder of them, or a pattern such as train-{0000..0099}.tar"
KEYS: dict[str, Any] = {"samples": list[list[Any]], "ignored": dict[str, int]}


def tar(
    path: str | None = None,
    name: str = "tar",
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
    group: str = "none",  # what runs mean that were made before there was this key
) -> Dataset:
    """Images in uncompressed tar files, as a Dataset. Settings as in `folder.image_folder`, but for

    `path`: a tar file, a folder of them, or a pattern with {0000..0099}, {a,b} or *. Shards named train*, val*, test* (or in
    folders of these names) are splits, as are such folders in the shards.
    `label`: auto is the text of a sample's .cls, else the entry label, class or cls of its .json, else its class folder in
    the shard (top or parent, as for folders); none; or the entry of .json, or the extension, that is meant.

    `group`: sample keeps pictures that share a label (`7.left.jpg`, `7.right.jpg`, `7.cls`) on one side of any split; none.

    Raises RequestError for paths and values, DataError for shards that are broken or hold no picture.
    """
    asked = Asked(
        name, image_size, channels, label, holdout, split_seed, resident, range, max_bad_fraction, max_pixels, splits,
        pretrain_on, max_size,
    )  # fmt: skip
    paths = _shards(path)
    notes: list[str] = []
    shards = Shards([os.path.abspath(p) for p in paths])
    if group not in ("sample", "none"):
        raise RequestError(f"dataset.group is {shown(str(group))}, but must be sample or none", "dataset.group=sample")
    found = _found(shards, _indices(shards, label), asked, notes, group == "sample")

    def source(files: Files, labels: Any, decoder: Any, limit: float) -> TarSource:
        return TarSource(shards, files, labels, decoder, limit)

    return dataset_of(found, asked, notes, source, shards.read)


# ------------------------------------------------------------------------------------------------------- which shards


def _shards(path: str | None) -> list[str]:
    """Paths in order, each an uncompressed regular file. RequestError."""
    text = "" if path is None else os.path.expanduser(str(path))
    if os.path.exists(text) or not any(c in text for c in "*?[{"):
        text = require_path(path, WANTED)
        paths = _below(text) if os.path.isdir(text) else [text]
    else:
        paths = [p for one in expand(text) for p in (sorted(glob.glob(one)) if any(c in one for c in "*?[") else [one])]
        missing = [p for p in paths if not os.path.exists(p)]
        if not paths:
            raise RequestError(f"no file is named like {shown(text)}; {WANTED} is wanted", f"ls -d {shown(text)}")
        if missing:
            raise RequestError(
                f"{count(len(missing), 'shard')} of {len(paths):,} named by {shown(text)} not there: "
                f"{listing(map(shown, missing), 3)}",
                "fetch what is missing, or name only what is there",
            )
    for p in paths:
        _refuse_compressed(require_regular(p))
    return list(dict.fromkeys(paths))


def _below(folder: str) -> list[str]:
    found = scan(folder, lambda n: re.search(r"\.(tar|tgz|tar\.\w+)$", n.lower()) is not None)
    empty = [p for p in found.empty if p.endswith(".tar")]
    if empty:
        raise DataError(
            f"{count(len(empty), 'shard')} of zero bytes: {listing(map(shown, empty), 3)}", "fetch them again"
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


def expand(text: str) -> list[str]:
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


def _refuse_compressed(path: str) -> None:
    try:
        with open(path, "rb") as file:
            head = file.read(6)
    except OSError as error:
        raise RequestError(f"{shown(path)} may not be read: {error.strerror}", f"ls -l {shown(path)}") from error
    tool = next((t for magic, t in UNPACKED_BY.items() if head.startswith(magic)), None)
    if tool is not None:
        raise RequestError(
            f"{shown(path)} is compressed: no picture in it can be reached but by unpacking all before it "
            "(and pictures hardly shrink)",
            f"unpack it once: {tool} {shown(path)}",
        )
    if not path.lower().endswith(".tar") and (how := unpacking(path)):
        raise RequestError(f"{shown(path)} is no tar file", how)


# --------------------------------------------------------------------------------------------------- what they hold


@dataclass(frozen=True)
class Index:
    """Of one shard: [name, offset, bytes, label or None, key of that label or None] of each picture, in order; what was passed
    over, by extension."""

    samples: list[list[Any]]
    ignored: Counter[str]


def _indices(shards: Shards, label: str | None) -> list[Index]:
    """Of each shard. DataError names those that cannot be read."""

    def one(i: int) -> Index | str:
        try:
            return _index(shards.paths[i], label)
        except tar_headers.BROKEN as error:
            return " ".join(str(error).split()) or type(error).__name__

    found = each(one, len(shards.paths), "reading the headers of tar files")
    bad = {shards.paths[i]: reason for i, reason in enumerate(found) if isinstance(reason, str)}
    if bad:
        raise DataError(
            f"{count(len(bad), 'tar file')} of {len(found):,} cannot be read: "
            + listing((f"{shown(p)} ({shown(r)})" for p, r in bad.items()), 3),
            "fetch them again, or name the others alone",
        )
    return found


def _index(path: str, label: str | None) -> Index:
    """From the cache, or read from the headers and put there."""
    about = os.stat(path)
    key = f"{FORMAT}\0{path}\0{about.st_size}\0{about.st_mtime_ns}\0{label}"
    cached = Path(
        os.environ.get("SSLCLI_DATA", ".data"),
        "tar-index",
        hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".json",
    )
    known = read_json(cached.parent, cached.name)
    if all(kinds.matches_type(known.get(k), kind) for k, kind in KEYS.items()) and _plausible(
        known["samples"], about.st_size
    ):
        return Index(known["samples"], Counter(known["ignored"]))
    found = _read_headers(path, about.st_size, label)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        replace_file(cached.parent, cached.name, json.dumps({"samples": found.samples, "ignored": found.ignored}))
    except (OSError, StorageError) as error:
        notify.say(f"warning: where the pictures of {shown(path)} lie cannot be kept for the next time: {error}")
    return found


def _plausible(samples: list[list[Any]], size: int) -> bool:
    return all(
        len(s) == 5 and isinstance(s[0], str) and isinstance(s[1], int) and isinstance(s[2], int) and s[1] >= 0
        and s[2] > 0 and s[1] + s[2] <= size and all(v is None or isinstance(v, str) for v in s[3:])
        for s in samples
    )  # fmt: skip


def _read_headers(path: str, size: int, label: str | None) -> Index:
    """One pass over the headers; of the contents only labels are read."""
    pictures: list[tuple[str, int, int]] = []
    labels: dict[str, str] = {}
    ignored: Counter[str] = Counter()
    with tarfile.open(path, "r:", tarinfo=tar_headers.Header) as file:
        for member in tar_headers.members(file):
            extension = _extension(member.name, label)
            if not member.isreg() or member.issparse():
                ignored["folder" if member.isdir() else "link or special"] += 1
            elif member.offset_data + member.size > size:
                raise tarfile.ReadError(f"ends within {shown(member.name)}")
            elif decode.is_image_name(member.name):
                if member.size:
                    pictures.append((member.name, member.offset_data, member.size))
                else:
                    ignored["picture of zero bytes"] += 1
            elif (text := _label(file, member, extension, label)) is not None:
                key = member.name[: -len(extension)]
                if extension != ".json" or key not in labels:
                    labels[key] = text
            else:
                ignored[extension or "no extension"] += 1
    keys = [next((k for k in _keys(name) if k in labels), None) for name, _, _ in pictures]
    if lost := len(labels.keys() - set(keys)):
        ignored["label without a picture"] = lost
    return Index(
        [[*picture, None if k is None else labels[k], k] for picture, k in zip(pictures, keys, strict=True)], ignored
    )


def _extension(name: str, label: str | None) -> str:
    """`.cls` of `a/track.7.cls`; `.x.cls` where the label `x.cls` is asked for."""
    asked = f".{label}".lower()
    return asked if name.lower().endswith(asked) else os.path.splitext(name)[1].lower()


def _keys(name: str) -> Iterator[str]:
    """What a label of this picture may be called, without its extension: `a/b.left` and `a/b` of `a/b.left.jpg`. The last is
    webdataset's rule; the first is for base names with dots, as in `track.7.jpg` beside `track.7.cls`."""
    folder, slash, base = name.rpartition("/")
    parts = base.split(".")
    for n in range(len(parts) - 1, 0, -1):
        yield folder + slash + ".".join(parts[:n])


def _label(file: tarfile.TarFile, member: tarfile.TarInfo, extension: str, label: str | None) -> str | None:
    """The label that a member of a sample holds, if it does."""
    auto = label in ("auto", None)
    if label in ("none", "top", "parent"):
        return None
    if member.size > SIDECAR_BYTES or extension not in {".cls", ".json"} | ({f".{label}".lower()} - {".auto", ".none"}):
        return None
    content = file.extractfile(member)
    text = "" if content is None else decoded(content.read()).strip()
    if extension == ".json" and label != "json":
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(entries, dict):
            return None
        if auto:
            entries = {k.lower(): v for k, v in reversed(entries.items())}
        found = next((entries[k] for k in (LABELS if auto else (str(label),)) if k in entries), None)
        return str(found) if isinstance(found, (str, int, float)) and str(found) else None
    return text or None if auto or extension == f".{label}".lower() else None


def _found(shards: Shards, indices: list[Index], asked: Asked, notes: list[str], grouped: bool) -> Found:
    label = asked.label
    base = os.path.commonpath([os.path.dirname(p) for p in shards.paths])
    names = [os.path.relpath(p, base) for p in shards.paths]
    ignored = sum((i.ignored for i in indices), Counter[str]())
    passed = ", ".join(f"{n:,} {shown(e)}" for e, n in ignored.most_common(6))
    samples = [(number, *sample) for number, index in enumerate(indices) for sample in index.samples]
    if not samples:
        hint = "pictures are known by their extension: .jpg, .png, ..." if "no extension" in ignored else None
        raise DataError(
            f"no picture in {count(len(names), 'tar file')}" + (f"; seen: {passed}" if passed else ""), hint
        )
    cells = Cells()
    own = numbers([cells.label(cls) for *_, cls, _ in samples])
    if label not in (None, *READINGS) and not any(own):
        raise RequestError(
            f"dataset.label={shown(str(label))}: no sample has a .{shown(str(label))} or such an entry in its .json",
            "dataset.label=auto",
        )
    above = _folders(names)
    paths = [(*above[number], *(p for p in name.split("/") if p not in ("", "."))) for number, name, *_ in samples]
    folders = label in (None, *READINGS) and not any(own)
    told: list[str] = []
    reading = read(paths, (), base, label if folders else "none", asked.splits, told)
    keys = [(s[0], s[-1]) for s, kind in zip(samples, reading.kinds, strict=True) if kind is not None]
    shared = {key for key, n in Counter(keys).items() if n > 1 and key[1] is not None}
    parts: dict[str, Files] = {}
    for sample, cls, kind, folder in zip(samples, own, reading.kinds, reading.classes, strict=True):
        number, name, offset, size, _, key = sample
        if kind is not None:
            files = parts.setdefault(kind, Files())
            files.add(f"{number}:{offset}:{size}", f"{names[number]}/{name}", size, cls or folder)
            if grouped and shared:
                own_key = key if (number, key) in shared else name
                files.groups = files.groups or []
                files.groups.append(f"{names[number]}/{own_key}")
    labels = [c for kind, files in parts.items() for c in files.classes if kind != "unlabelled"]
    classes = {c for c in labels if c is not None}
    said = f"{count(len(classes), 'class', 'classes')}" if classes else "no labels"
    bare = sum(c is None for c in labels)
    said += f", {bare:,} without label" if classes and bare else ""
    notes.append(f"{count(len(names), 'tar file')}: {count(len(samples), 'image')}, {said}")
    notes += told if folders and classes else [note for note in told if not note.endswith("no labels")]
    notes += cells.notes()
    stems = Counter(os.path.splitext(name)[0] for files in parts.values() for name in files.names)
    if several := len(shared) or sum(n > 1 for n in stems.values()):
        held = "; those of a sample stand in one split" if shared and grouped else ""
        notes.append(f"{count(several, 'sample')} with several pictures: each is an image of its own{held}")
    if passed:
        notes.append(f"passed over: {passed}")
    details = {"layout": "tar", "shards": len(names), "ignored": dict(ignored)}
    return Found(
        base,
        parts,
        details,
        by_value=True,
        chosen=is_chosen(asked.splits),
        known_by_split=reading.known_by_split and not any(above),
    )


def _folders(shards: list[str]) -> list[Parts]:
    """The folders that the members of each shard are thought to lie in: its split, where the names of several shards say theirs,
    or the folders that they lie in; else none."""
    stems = [re.sub(r"\.tar$", "", os.path.basename(s)) for s in shards]
    tops = [s.split("/")[0] if "/" in s else "" for s in shards]
    for words in (stems, tops):
        kinds = together(words)
        if len(set(kinds.values())) > 1:
            return [(kinds.get(word, word),) for word in words]
    return [()] * len(shards)


# ------------------------------------------------------------------------------------------------------------ reading


class Shards:
    """Tar files as they were when this was made. Another process opens them anew."""

    def __init__(self, paths: list[str]):
        self.paths = paths
        self._was = [_state(os.stat(p)) for p in paths]
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
        if _state(os.fstat(fd)) != self._was[number]:
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


def _state(about: os.stat_result) -> tuple[int, int]:
    return about.st_size, about.st_mtime_ns


class TarSource(FolderSource):
    """The pictures of one split."""

    def __init__(self, shards: Shards, *of_files: Any):
        super().__init__(*of_files)
        self.shards = shards

    def file(self, index: int) -> bytes:
        return self.shards.read(self.paths[index])
