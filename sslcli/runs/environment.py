"""The environment of a run: versions, host, platform and git commit.

The commit is read from the files of the repository; `git` itself is never run: the configuration of a repository may name
programs that it starts (`core.fsmonitor`, `core.sshCommand`, filters), and a folder of data may come with one.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import stat
import sys
from importlib.metadata import version
from pathlib import Path

from sslcli import __version__
from sslcli.runs import Record
from sslcli.runs.redact import redacted_overrides

MAX_HEAD, MAX_REFS = 4096, 4 << 20  # bytes


def environment() -> Record:
    """What a metric may depend on: versions, host, platform, and the git commit of the working folder."""
    packages = {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")}
    return {
        "sslcli": __version__,
        "python": platform.python_version(),
        "packages": packages,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "git": head_commit(Path.cwd()),
        "argv": redacted_overrides(sys.argv),
    }


def head_commit(folder: Path) -> str | None:
    """The commit that is checked out in `folder` or a folder above it, as hexadecimal digits; None where there is none."""
    for parent in (folder, *folder.parents):
        if os.path.lexists(place := parent / ".git"):
            return _resolve_head(place)
    return None


def _resolve_head(place: Path) -> str | None:
    if link := re.fullmatch(r"gitdir: (.+)", _read(place)):  # a file in a worktree or a submodule
        place = place.parent / link[1]
    head = _read(place / "HEAD")
    ref = re.fullmatch(r"ref: (refs/[\w./+@-]+)", head)
    if ref is None:
        return _commit(head)
    if ".." in ref[1]:
        return None
    shared = _read(place / "commondir")  # branches of a worktree are stored in its repository
    home = place / shared if shared else place
    commit = _commit(_read(home / ref[1]))
    packed = None if commit else re.search(rf"^(\w+) {re.escape(ref[1])}$", _read(home / "packed-refs", MAX_REFS), re.M)
    return commit or (_commit(packed[1]) if packed else None)


def _commit(text: str) -> str | None:
    """A SHA-1 or SHA-256 hash, or None: no other content of a file is returned."""
    return text if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) else None


def _read(path: Path, most: int = MAX_HEAD) -> str:
    """The text of a small regular file; "" for anything else. Does not block on a FIFO."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return ""
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > most:
            return ""
        return os.read(fd, most).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)
