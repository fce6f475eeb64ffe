"""Checks of paths that a user gives, with hints at what is there instead."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from sslcli.console import escape, format_override
from sslcli.errors import RequestError, listing, nearest


def is_hidden(name: str) -> bool:
    """Whether a name is ignored: dot files, and files that macOS and Windows create."""
    return name.startswith(".") or name in HIDDEN


HIDDEN = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information",
          "lost+found", "__pycache__"}  # fmt: skip


def require_path(path: object, what: str, key: str = "dataset.path") -> str:
    """The path as a string, with `~` expanded. Raises RequestError where it does not exist, with a hint at what does.

    `what` completes "expected ...": "a folder of images".
    """
    if path is None or str(path) == "":
        raise RequestError(f"{key} is missing: expected {what}", f"{key}=FOLDER")
    if not isinstance(path, (str, os.PathLike)):
        raise RequestError(f"{key}: expected {what}, got {path}", f"'{key}=\"{path}\"' if that is the name")
    text = os.path.expanduser(os.fspath(path))
    if "\0" in text:
        raise RequestError(f"{key} holds a null character: {escape(text)}", f"{key}=FOLDER")
    try:
        os.stat(text)
    except PermissionError as error:
        raise RequestError(f"{escape(text)} may not be read: {error.strerror}", f"ls -ld {escape(text)}") from error
    except (OSError, UnicodeEncodeError) as error:
        raise RequestError(f"{key}={escape(text)} does not exist: expected {what}", _nearest_hint(text, key)) from error
    return text


def _nearest_hint(text: str, key: str) -> str:
    """A hint that names the nearest existing parent folder and its entries."""
    parent = Path(os.path.abspath(text)).parent
    missing = Path(os.path.abspath(text)).name
    while not parent.is_dir():
        missing, parent = parent.name, parent.parent
    try:
        entries = sorted(e for e in os.listdir(parent) if not is_hidden(e))
    except OSError:
        return f"the nearest folder that exists is {escape(str(parent))}, which may not be read"
    lower = {e.lower(): e for e in entries}
    close = nearest(missing, lower)
    if close:
        return f"did you mean {format_override(key, str(parent / lower[close]))} ?"
    holds = f"it holds {listing(map(escape, entries), 8)}" if entries else "it is empty"
    return f"the nearest folder that exists is {escape(str(parent))}; {holds}"


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


def unpack_hint(path: str, key: str = "dataset.path") -> str | None:
    """A hint how to unpack an archive, recognized by its name; None for other files."""
    for endings, command in UNPACK.items():
        for ending in endings:
            if path.lower().endswith(ending) and len(os.path.basename(path)) > len(ending):
                file, folder = shlex.quote(escape(path)), shlex.quote(escape(path[: -len(ending)]))
                text = f"unpack it: {command.format(file=file, folder=folder)}; then {format_override(key, path[: -len(ending)])}"
                return f"{text}; or read it without unpacking: dataset=tar" if ending == ".tar" else text
    return None


def require_folder(path: str | os.PathLike[str] | None, what: str, key: str = "dataset.path") -> str:
    """As `require_path`, for a folder. Raises RequestError for a file."""
    text = require_path(path, what, key)
    if not os.path.isdir(text):
        how = unpack_hint(text, key) or f"did you mean {format_override(key, os.path.dirname(text) or '.')} ?"
        raise RequestError(f"{key}={escape(text)} is a file: expected {what}", how)
    return text


def require_regular(path: str) -> str:
    """The path of a regular file. Raises RequestError for others: reading a FIFO or device could block forever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise RequestError(f"{escape(path)} is not a regular file", "dataset.path=FILE")
    return path
