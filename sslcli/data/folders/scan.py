"""Finding files below a folder, safely: each real directory once, regular files only, no device is ever opened."""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcli.data import notify
from sslcli.data.notify import shown
from sslcli.errors import RequestError, listing, nearest


@dataclass
class Listing:
    """What lies below a folder."""

    root: str
    files: list[tuple[tuple[str, ...], int]] = field(default_factory=list)  # (path parts below root, bytes), sorted
    folders: set[tuple[str, ...]] = field(default_factory=set)  # every folder visited, empty ones too
    ignored: Counter[str] = field(default_factory=Counter)  # extension -> files that are not what is looked for
    hidden: int = 0
    special: int = 0  # FIFOs, sockets, devices
    dangling: int = 0  # links to nothing, or to themselves
    linked_again: int = 0  # folder links to a folder already visited, or to a parent
    empty: list[str] = field(default_factory=list)  # files of zero bytes
    denied: list[str] = field(default_factory=list)  # folders that may not be read
    archives: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)  # runs, packs and the like of this program

    def notes(self) -> list[str]:
        """One line for each kind of thing that was passed over, for the start screen."""
        out = []
        if self.denied:
            out.append(
                f"warning: {notify.count(len(self.denied), 'folder')} may not be read: "
                f"{listing((shown(d) for d in self.denied), 3)}"
            )
        if self.outputs:
            out.append(f"not looked into, as outputs of this program: {listing(map(shown, sorted(self.outputs)), 4)}")
        rest = {
            "other file": sum(self.ignored.values()),
            "hidden file": self.hidden,
            "special file": self.special,
            "dangling link": self.dangling,
            "repeated folder link": self.linked_again,
        }
        if any(rest.values()):
            out.append("ignored: " + ", ".join(notify.count(n, what) for what, n in rest.items() if n))
        return out


def is_hidden(name: str) -> bool:
    """Names that no one means: dot files, macOS's and Windows' own."""
    return name.startswith(".") or name in HIDDEN


HIDDEN = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information",
          "lost+found", "__pycache__"}  # fmt: skip
# What lies in a folder that this program wrote: a run, a sweep, a pack, exported weights.
OUTPUTS = (
    {"status.json", "config.yaml"},
    {"multirun.yaml"},
    {"manifest.json", "index.bin"},
    {"encoder.json", "encoder.safetensors"},
    {"journal", "shard-00000.bin"},  # a pack that is not finished
)
SHEETS = {"views.png", "compare.png"}  # what `data preview` and `runs compare` draw, where no other name was asked for


def is_output(path: str, holds: Iterable[str]) -> bool:
    """Whether a folder that `holds` these names was written by this program, or is the folder that its runs lie in."""
    there = set(holds)
    if any(names <= there for names in OUTPUTS):
        return True
    runs = os.path.realpath(os.environ.get("SSLCLI_RUNS") or "runs")
    if os.path.basename(path) != "runs" and os.path.realpath(path) != runs:
        return False
    return any(os.path.exists(os.path.join(path, f, n)) for f in there for n in ("status.json", "multirun.yaml"))


def is_sheet(path: str) -> bool:
    """Whether a picture was drawn by this program."""
    try:
        with open(path, "rb") as file:
            return os.path.basename(path) in SHEETS and b"Software\0sslcli" in file.read(1024)
    except OSError:
        return False


def scan(root: str | os.PathLike[str], wanted: Callable[[str], bool]) -> Listing:
    """Every regular, non-empty file below `root` whose name is `wanted`; follows links, enters no folder twice."""
    root = os.fspath(root)
    found = Listing(root)
    real_root = os.path.realpath(root)
    seen: set[tuple[int, int]] = set()
    later: list[
        tuple[tuple[str, ...], str]
    ] = []  # linked folders come last, so that a real path wins over a link to it

    def walk(parts: tuple[str, ...], path: str) -> None:
        pending = [(parts, path)]
        while pending:
            parts, path = pending.pop()
            try:
                about = os.stat(path)
                if (about.st_dev, about.st_ino) in seen:
                    found.linked_again += 1
                    continue
                with os.scandir(path) as entries:
                    here = sorted(entries, key=lambda e: os.fsencode(e.name))
            except OSError:
                found.denied.append(path)
                continue
            seen.add((about.st_dev, about.st_ino))
            if parts and is_output(path, [e.name for e in here]):
                found.outputs.append("/".join(parts))
                continue
            found.folders.add(parts)
            for entry in here:
                if is_hidden(entry.name):
                    found.hidden += 1
                    continue
                below = (*parts, entry.name)
                try:
                    info = entry.stat()
                except OSError:  # nothing behind the link, a link to itself, or no permission to look
                    found.dangling += 1
                    continue
                if stat.S_ISDIR(info.st_mode):
                    (later if entry.is_symlink() else pending).append((below, entry.path))
                elif not stat.S_ISREG(info.st_mode):
                    found.special += 1
                elif not wanted(entry.name):
                    found.ignored[os.path.splitext(entry.name)[1].lower() or "no extension"] += 1
                    if unpacking(entry.name):
                        found.archives.append(entry.path)
                elif entry.name in SHEETS and is_sheet(entry.path):
                    found.outputs.append("/".join(below))
                elif info.st_size == 0:
                    found.empty.append(entry.path)
                else:
                    found.files.append((below, info.st_size))

    walk((), root)
    while later:
        later.sort(reverse=True)
        parts, path = later.pop()
        real = os.path.realpath(path)
        if real_root == real or real_root.startswith(real.rstrip(os.sep) + os.sep):
            found.linked_again += 1  # a parent: entering it would list the rest of the disk
        else:
            walk(parts, path)
    _forget_above(found)
    found.files.sort(key=lambda f: tuple(map(os.fsencode, f[0])))
    return found


def _forget_above(found: Listing) -> None:
    """Folders that hold nothing but outputs of this program are none that people mean."""
    above = {tuple(o.split("/"))[:k] for o in found.outputs for k in range(1, o.count("/") + 1)}
    used = {parts[:k] for parts, _ in found.files for k in range(len(parts))} if above else set()
    kept = {f[:k] for f in found.folders - above for k in range(len(f))} if above else set()
    found.folders -= above - used - kept


def require_path(path: Any, what: str, key: str = "dataset.path") -> str:
    """The path as a string, or a RequestError that says what is there instead.

    `what` completes "... is wanted": "a folder of images".
    """
    if path is None or str(path) == "":
        raise RequestError(f"{key} is not given; {what} is wanted", f"{key}=FOLDER")
    if not isinstance(path, (str, os.PathLike)):
        raise RequestError(f"{key}={path} is no path; {what} is wanted", f"'{key}=\"{path}\"' if that is its name")
    text = os.path.expanduser(os.fspath(path))
    if "\0" in text:
        raise RequestError(f"{key} holds a null character: {shown(text)}", f"{key}=FOLDER")
    try:
        os.stat(text)
    except PermissionError as error:
        raise RequestError(f"{shown(text)} may not be read: {error.strerror}", f"ls -ld {shown(text)}") from error
    except (OSError, UnicodeEncodeError) as error:
        raise RequestError(f"{key}={shown(text)} does not exist; {what} is wanted", _neighbours(text, key)) from error
    return text


def _neighbours(text: str, key: str) -> str:
    """The nearest parent that exists, and what it holds."""
    parent = Path(os.path.abspath(text)).parent
    missing = Path(os.path.abspath(text)).name
    while not parent.is_dir():
        missing, parent = parent.name, parent.parent
    try:
        there = sorted(e for e in os.listdir(parent) if not is_hidden(e))
    except OSError:
        return f"the nearest folder that exists is {shown(str(parent))}, which may not be read"
    lower = {e.lower(): e for e in there}
    close = nearest(missing, lower)
    if close:
        return f"did you mean {key}={shown(str(parent / lower[close]))} ?"
    holds = f"it holds {listing(map(shown, there), 8)}" if there else "it is empty"
    return f"the nearest folder that exists is {shown(str(parent))}; {holds}"


UNPACK = {
    (".zip",): "unzip -q {file} -d {folder}",
    (
        ".tar.gz",
        ".tgz",
        ".tar.bz2",
        ".tbz2",
        ".tar.xz",
        ".txz",
        ".tar.zst",
        ".tar",
    ): "mkdir {folder} && tar -xf {file} -C {folder}",
    (".rar",): "unrar x {file} {folder}/",
    (".7z",): "7z x {file} -o{folder}",
}


def unpacking(path: str, key: str = "dataset.path") -> str | None:
    """How to unpack an archive, by its name; None for other files."""
    for endings, command in UNPACK.items():
        for ending in endings:
            if path.lower().endswith(ending) and len(os.path.basename(path)) > len(ending):
                file, folder = shlex.quote(shown(path)), shlex.quote(shown(path[: -len(ending)]))
                text = f"unpack it: {command.format(file=file, folder=folder)}; then {notify.typed(key, path[: -len(ending)])}"
                return f"{text}; or dataset=tar reads it as it is" if ending == ".tar" else text
    return None


def require_folder(path: str | os.PathLike[str] | None, what: str, key: str = "dataset.path") -> str:
    """As `require_path`, for a folder: a file is a RequestError that names its parent."""
    text = require_path(path, what, key)
    if not os.path.isdir(text):
        how = unpacking(text, key) or f"did you mean {key}={shown(os.path.dirname(text) or '.')} ?"
        raise RequestError(f"{key}={shown(text)} is a file; {what} is wanted", how)
    return text


def require_regular(path: str) -> str:
    """A regular file: FIFOs and devices could block for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise RequestError(f"{shown(path)} is no regular file", "dataset.path=FILE")
    return path


def content_hash(path: str) -> bytes:
    """SHA-256. OSError for what is no regular file: a FIFO named in a list would block for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "no regular file", path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def fingerprint(n: int, parts: Iterable[bytes]) -> str:
    """`n-16 hex digits`: the number of samples and a hash of what they are."""
    h = hashlib.sha256()
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return f"{n}-{h.hexdigest()[:16]}"


def free_memory() -> int:
    """Bytes of memory that may be taken: what the system has left, or the limit of our container."""
    free = 1 << 62
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    free = int(line.split()[1]) * 1024
    except OSError:  # not Linux
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 8 << 30
        free = pages // 2
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text())
            free = min(free, max(int(limit) - used, 0))
    except (OSError, ValueError):
        pass  # no control group, or one of the first version: the system's own number stands
    return free
