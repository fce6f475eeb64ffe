"""Folders of this process: runs, temporary files, caches.

Temporary files and caches are kept where no other user can write. Where the usual folders are missing (a container with a
read-only root), others are used. Imports no torch: the folders must be known before torch is imported."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sslcli import console
from sslcli.errors import MachineError

KEY, KEY_BYTES = "features.key", 32
MISSING = "there is no folder for temporary files"


def runs_root() -> Path:
    """The folder of the run folders: $SSLCLI_RUNS, or `runs` in the working folder."""
    return Path(os.environ.get("SSLCLI_RUNS") or "runs")


def shorten(path: Path) -> Path:
    """A path relative to the working folder, where it is inside that."""
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def available() -> bool:
    """Whether there is a folder for temporary files. Where the usual ones are missing, sets $TMPDIR to shared memory or the folder
    of runs, also for libraries (multiprocessing, matplotlib)."""
    try:
        tempfile.gettempdir()
        return True
    except OSError:
        pass
    for base in (Path("/dev/shm"), runs_root().absolute()):
        if base.is_dir() and os.access(base, os.W_OK | os.X_OK):
            tempfile.tempdir = os.environ["TMPDIR"] = str(base)
            console.say(f"{MISSING}: {base} is used")
            return True
    return False


def prepare() -> None:
    """Set the folders of this process and its children before torch is imported. torch requires a folder for temporary files,
    and by default caches compiled code in /tmp under a name that another user can take first."""
    available()
    folder = cache_folder()
    if folder is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "torchinductor"))


def cache_folder() -> Path | None:
    """The user's cache folder; None unless it exists and only the user can write to it."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "sslcli"
    if not folder.is_absolute():  # no home folder, or a relative path, which the XDG specification ignores
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if only_mine(folder.stat()) and os.access(folder, os.W_OK) else None
    except OSError:
        return None


def user_key() -> bytes | None:
    """A secret key in the user's cache folder, created on first use: files signed with it were written by the user."""
    if (folder := cache_folder()) is None:
        return None
    file = folder / KEY
    for _ in range(2):
        with contextlib.suppress(OSError):
            if not file.is_symlink() and len(key := file.read_bytes()) == KEY_BYTES:
                return key
        temporary = folder / f".{KEY}.{os.getpid()}"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as out:
                out.write(secrets.token_bytes(KEY_BYTES))
            os.replace(temporary, file)
        except OSError:
            return None
    return None


def only_mine(about: os.stat_result) -> bool:
    """Whether only this user can write to a file or folder."""
    return os.name == "posix" and about.st_uid == os.getuid() and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def new_private_folder() -> Path:
    """Create a folder of mode 0700, which the caller removes. MachineError where it cannot be created."""
    if not available():
        raise MachineError(MISSING, "export TMPDIR=FOLDER, a writable folder")
    try:
        return Path(tempfile.mkdtemp(prefix="sslcli-"))
    except OSError as e:
        raise MachineError(f"cannot write temporary files: {e.strerror}", "export TMPDIR=FOLDER") from None


def remove_folder(folder: Path) -> None:
    """Remove a private folder in which another process may create files: it is renamed first, so that the path known to that
    process no longer exists."""
    removed = folder.with_name(f"{folder.name}.removed")
    with contextlib.suppress(OSError):
        folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """`new_private_folder`, removed after the block."""
    folder = new_private_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
