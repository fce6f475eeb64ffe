"""List the files below a folder: each real directory once, regular files only, without opening devices."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sslcli.console import escape, plural
from sslcli.data.folders.paths import is_hidden, unpack_hint
from sslcli.errors import listing


@dataclass
class FolderListing:
    """The files and folders below a folder."""

    root: str
    files: list[tuple[tuple[str, ...], int]] = field(default_factory=list)  # (path parts below root, bytes), sorted
    folders: set[tuple[str, ...]] = field(default_factory=set)  # every folder visited, empty ones too
    ignored: Counter[str] = field(default_factory=Counter)  # extension -> number of other files
    hidden: int = 0
    special: int = 0  # FIFOs, sockets, devices
    dangling: int = 0  # links without a target, or to themselves
    linked_again: int = 0  # folder links to a folder already visited, or to a parent
    empty: list[str] = field(default_factory=list)  # files of zero bytes
    denied: list[str] = field(default_factory=list)  # folders without read permission
    archives: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)  # runs, packs and other outputs of this program

    def notes(self) -> list[str]:
        """Notes on everything that was ignored."""
        out = []
        if self.denied:
            out.append(
                f"warning: {plural(len(self.denied), 'folder')} cannot be read: "
                f"{listing((escape(d) for d in self.denied), 3)}"
            )
        if self.outputs:
            out.append(f"skipped outputs of this program: {listing(map(escape, sorted(self.outputs)), 4)}")
        rest = {
            "other file": sum(self.ignored.values()),
            "hidden file": self.hidden,
            "special file": self.special,
            "dangling link": self.dangling,
            "repeated folder link": self.linked_again,
        }
        if any(rest.values()):
            out.append("ignored: " + ", ".join(plural(n, what) for what, n in rest.items() if n))
        return out


# Files that identify a folder written by this program: a run, a sweep, a pack, exported weights.
OUTPUTS = (
    {"status.json", "config.yaml"},
    {"multirun.yaml"},
    {"manifest.json", "index.bin"},
    {"encoder.json", "encoder.safetensors"},
    {"journal", "shard-00000.bin"},  # an unfinished pack
)
CONTACT_SHEETS = {
    "views.png",
    "compare.png",
}  # default outputs of `data preview` and `runs compare`


def is_output(path: str, holds: Iterable[str]) -> bool:
    """Whether a folder with the entries `holds` was written by this program, or contains its runs."""
    entries = set(holds)
    if any(names <= entries for names in OUTPUTS):
        return True
    runs = os.path.realpath(os.environ.get("SSLCLI_RUNS") or "runs")
    if os.path.basename(path) != "runs" and os.path.realpath(path) != runs:
        return False
    return any(os.path.exists(os.path.join(path, f, n)) for f in entries for n in ("status.json", "multirun.yaml"))


def is_contact_sheet(path: str) -> bool:
    """Whether an image is a contact sheet drawn by this program."""
    try:
        with open(path, "rb") as file:
            return os.path.basename(path) in CONTACT_SHEETS and b"Software\0sslcli" in file.read(1024)
    except OSError:
        return False


def scan(root: str | os.PathLike[str], accept: Callable[[str], bool]) -> FolderListing:
    """All regular, non-empty files below `root` whose name `accept` accepts. Follows links and enters no folder twice."""
    root = os.fspath(root)
    result = FolderListing(root)
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
                    result.linked_again += 1
                    continue
                with os.scandir(path) as entries:
                    children = sorted(entries, key=lambda e: os.fsencode(e.name))
            except OSError:
                result.denied.append(path)
                continue
            seen.add((about.st_dev, about.st_ino))
            if parts and is_output(path, [e.name for e in children]):
                result.outputs.append("/".join(parts))
                continue
            result.folders.add(parts)
            for entry in children:
                if is_hidden(entry.name):
                    result.hidden += 1
                    continue
                below = (*parts, entry.name)
                try:
                    info = entry.stat()
                except OSError:  # no target, a link to itself, or no permission
                    result.dangling += 1
                    continue
                if stat.S_ISDIR(info.st_mode):
                    (later if entry.is_symlink() else pending).append((below, entry.path))
                elif not stat.S_ISREG(info.st_mode):
                    result.special += 1
                elif not accept(entry.name):
                    result.ignored[os.path.splitext(entry.name)[1].lower() or "no extension"] += 1
                    if unpack_hint(entry.name):
                        result.archives.append(entry.path)
                elif entry.name in CONTACT_SHEETS and is_contact_sheet(entry.path):
                    result.outputs.append("/".join(below))
                elif info.st_size == 0:
                    result.empty.append(entry.path)
                else:
                    result.files.append((below, info.st_size))

    walk((), root)
    while later:
        later.sort(reverse=True)
        parts, path = later.pop()
        real = os.path.realpath(path)
        if real_root == real or real_root.startswith(real.rstrip(os.sep) + os.sep):
            result.linked_again += 1  # a parent folder: entering it would list the rest of the disk
        else:
            walk(parts, path)
    _drop_output_parents(result)
    result.files.sort(key=lambda f: tuple(map(os.fsencode, f[0])))
    return result


def _drop_output_parents(result: FolderListing) -> None:
    """Remove the folders that hold nothing but outputs of this program."""
    parents = {tuple(o.split("/"))[:k] for o in result.outputs for k in range(1, o.count("/") + 1)}
    used = {parts[:k] for parts, _ in result.files for k in range(len(parts))} if parents else set()
    used_above = {f[:k] for f in result.folders - parents for k in range(len(f))} if parents else set()
    result.folders -= parents - used - used_above
