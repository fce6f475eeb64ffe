"""Files that are mapped into memory, and whether they still are what was mapped.

A program that writes such a file again cuts it short first: reading the map then ends the process by SIGBUS, or yields
other samples than before. So whoever makes a batch asks first.
"""

from __future__ import annotations

import itertools
import os
import weakref

import numpy as np

from sslcli.data.notify import shown
from sslcli.errors import DataError

_numbers = itertools.count()
_mapped: dict[int, tuple[str, tuple[int, int, int]]] = {}  # path and state of each file that is mapped now


def watch(array: np.ndarray, path: str) -> np.ndarray:
    """An array that was just mapped from `path`, watched as long as the map exists."""
    map_ = array.base
    if isinstance(array, np.memmap) and map_ is not None:
        number = next(_numbers)
        _mapped[number] = (os.path.abspath(path), _state(os.stat(path)))
        weakref.finalize(map_, _mapped.pop, number, None)
    return array


def require_unchanged() -> None:
    """DataError where a mapped file was written to. A file that was removed or replaced is no matter: its map stays."""
    for path, was in list(_mapped.values()):
        try:
            now = _state(os.stat(path))
        except OSError:
            continue
        if now[0] == was[0] and now != was:
            raise DataError(
                f"{shown(path)} was written to while it was read",
                "put it back as it was and resume the run, or start a new one; "
                "a program that replaces a file in use must write another one and rename it",
            )


def _state(about: os.stat_result) -> tuple[int, int, int]:
    return about.st_ino, about.st_size, about.st_mtime_ns
