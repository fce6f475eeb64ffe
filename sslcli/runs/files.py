"""Files of a run folder, an exported encoder or a pack: opened, read, parsed and written by these functions alone.

Such a folder may come from an untrusted source. Each function takes the folder and the name of a file below it (`eval/knn.json`).
Below the folder no symbolic link is followed and only regular files are opened, so no read blocks on a FIFO and no write
leaves the folder. Sizes, and the depth of JSON, are bounded. What a parsed file must hold is in `runs/records.py`.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from sslcli.errors import StorageError
from sslcli.runs import Record
from sslcli.runs.redact import redacted
from sslcli.runtime.resources import PHYSICAL_MEMORY

MAX_JSON = 64 << 20  # bytes of a JSON or YAML file
MAX_LINES = 256 << 20  # bytes of metrics.jsonl and the like
MAX_DEPTH, MAX_CONTAINERS = 50, 1_000_000  # of parsed JSON


# -------------------------------------------------------------------------------------------------------------------- open


def path_of(folder: Path, name: str) -> Path:
    """`folder/name`. OSError where the name leads out of the folder, or a folder on the way is a symbolic link."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise OSError(errno.EINVAL, f"{name!r} is not the name of a file in this folder", str(folder))
    path = folder
    for part in parts[:-1]:
        path = path / part
        if path.is_symlink():
            raise OSError(errno.ELOOP, f"its folder {part} is a symbolic link, which is not followed", str(path))
    return path / parts[-1]


def open_file(folder: Path, name: str, flags: int = os.O_RDONLY) -> int:
    """The descriptor of a regular file. OSError for anything else, without blocking."""
    path = path_of(folder, name)
    try:
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as e:
        if path.is_symlink():
            raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed", str(path)) from None
        if e.errno == errno.ENXIO:  # writing to a FIFO without a reader
            raise OSError(errno.EINVAL, "it is not a regular file", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return fd


def open_binary(folder: Path, name: str) -> BufferedReader:
    """A regular file, for reading. OSError."""
    return os.fdopen(open_file(folder, name), "rb")


def size_of(folder: Path, name: str) -> int | None:
    """Bytes of a regular file; None where there is none."""
    try:
        about = path_of(folder, name).lstat()
    except OSError:
        return None
    return about.st_size if stat.S_ISREG(about.st_mode) else None


def checked(folder: Path, name: str, most: int = PHYSICAL_MEMORY) -> Path:
    """The path of a regular file of at most `most` bytes, for libraries that open files themselves. OSError."""
    fd = open_file(folder, name)
    try:
        _refuse_large(fd, folder / name, most)
    finally:
        os.close(fd)
    return folder / name


def _refuse_large(fd: int, path: Path, most: int) -> int:
    if (size := os.fstat(fd).st_size) > most:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, and at most {most:,} are read", str(path))
    return size


def files_in(folder: Path, pattern: str) -> list[str]:
    """The names of regular files that fit a pattern such as `eval/*.json`, sorted; [] where the folder is a link."""
    inner, _, last = pattern.rpartition("/")
    try:
        place = path_of(folder, pattern).parent
        if inner and place.is_symlink():
            return []
        with os.scandir(place) as entries:
            names = [e.name for e in entries if e.is_file(follow_symlinks=False) and not e.name.startswith(".")]
    except OSError:
        return []
    return sorted(f"{inner}/{name}" if inner else name for name in names if fnmatch.fnmatchcase(name, last))


# -------------------------------------------------------------------------------------------------------------------- read


def read_file(folder: Path, name: str, most: int = MAX_JSON) -> bytes:
    """The content of a regular file of at most `most` bytes. OSError."""
    with open_binary(folder, name) as file:
        return file.read(_refuse_large(file.fileno(), folder / name, most))


def digest(folder: Path, name: str) -> str:
    """The SHA-256 of a regular file. OSError."""
    with open_binary(folder, name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the names and contents of files."""
    out = hashlib.sha256()
    for name, content in sorted(files.items()):
        out.update(f"{name}\n{len(content)}\n".encode())
        out.update(content)
    return out.hexdigest()


def read_json(folder: Path, name: str) -> Record:
    """A JSON object, or {} where the file is absent, no regular file, too large or damaged."""
    try:
        return parse(read_file(folder, name))
    except OSError:
        return {}


def read_lines(folder: Path, name: str) -> tuple[list[Record], int]:
    """The objects of a file of JSON lines, and how many lines hold none. An incomplete last line is not counted."""
    try:
        content = read_file(folder, name, MAX_LINES)
    except FileNotFoundError:
        return [], 0
    except OSError:
        return [], 1
    objects = [parse(line) for line in content.split(b"\n")[:-1] if line.strip()]
    return [line for line in objects if line], objects.count({})


def parse(content: bytes | str) -> Record:
    """A JSON object of bounded depth, or {}. An integer beyond 18 digits becomes a float."""
    text = content if isinstance(content, str) else content.decode("utf-8", "replace")
    if text.count("[") + text.count("{") > MAX_CONTAINERS:
        return {}
    try:
        value = json.loads(text, parse_int=_bounded_int)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and is_bounded(value) else {}


def _bounded_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= 18 else float(digits)


def is_bounded(value: Any, depth: int = MAX_DEPTH, containers: int = MAX_CONTAINERS) -> bool:
    """Whether nested lists and dicts are at most so deep and so many: each visit counts, so aliases of YAML do too."""
    level, seen = [value], 0
    for _ in range(depth):
        inner = [v for node in level for v in (node.values() if isinstance(node, dict) else node)]
        level = [v for v in inner if isinstance(v, (dict, list))]
        seen += len(level)
        if not level:
            return True
        if seen > containers:
            return False
    return False


# ------------------------------------------------------------------------------------------------------------------- write


def make_run_folder(path: Path) -> bool:
    """Makes a folder with a new status.json, which is opened exclusively. Returns whether the folder was no run before."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with open(path / "status.json", "x") as f:
            f.write("{}")
        sync_folder(path)
        sync_folder(path.parent)
    except FileExistsError:
        return False
    except OSError as e:
        raise StorageError(f"cannot write to {path}: {e.strerror}", "set SSLCLI_RUNS to a folder with room") from None
    return True


def make_folder(folder: Path, name: str) -> Path:
    """The folder `folder/name`, made where it is missing. OSError where it, or one on the way, is a symbolic link."""
    path = path_of(folder, f"{name}/_").parent
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> Record:
    """Writes a new file and flushes it to the disk. Returns `bytes` and `sha256` of what was meant to be written."""
    digest, size = hashlib.sha256(), 0
    fd = _create(path)
    try:
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _create(path: Path) -> int:
    """The descriptor of a file that was not there before; what a killed process left under that name is removed."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def unlink_shared(path: Path) -> None:
    """Removes a symbolic link, or a file that has another name too: what a library writes there next is a file of its own."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        about = path.lstat()
        if stat.S_ISLNK(about.st_mode) or (stat.S_ISREG(about.st_mode) and about.st_nlink > 1):
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder: without it a new file or a rename may be gone after a power cut.

    Some network and FUSE file systems cannot flush a folder and answer EINVAL or ENOTSUP."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a new file beside `path`, and renames it at the end: a reader sees the old file or the new one, never
    a part. A symbolic link of that name is replaced, not followed. StorageError where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        os.close(_create(temporary))
        yield temporary
        os.replace(temporary, path)
    except OSError as e:
        raise StorageError(f"cannot write {path}: {e.strerror or e}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace_file(folder: Path, name: str, content: str | Iterable[bytes | memoryview]) -> Record:
    """Content in place of what `folder/name` held, whole or not at all; returns what `write_file` does. StorageError."""
    chunks = [content.encode("utf-8", "backslashreplace")] if isinstance(content, str) else content
    try:
        path = path_of(folder, name)
    except OSError as e:
        raise StorageError(f"cannot write {folder / name}: {e.strerror}") from None
    with replacing(path) as temporary:
        return write_file(temporary, chunks)


def write_json(folder: Path, name: str, value: object, indent: int | None = 2) -> None:
    """A JSON file without secrets, whole or not at all. StorageError."""
    replace_file(folder, name, json.dumps(redacted(value), indent=indent, default=str) + "\n")


def append_line(folder: Path, name: str, line: str) -> None:
    """One line, in which control characters (a line feed too) are escaped. OSError."""
    one = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)
    fd = open_file(folder, name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        rest = memoryview((one + "\n").encode("utf-8", "backslashreplace"))
        while rest:
            rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)
