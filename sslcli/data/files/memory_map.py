"""Detect changes of memory-mapped files.

A program that rewrites such a file truncates it first: reading the map then ends the process by SIGBUS, or yields other
samples than before. So the files are checked before every batch.
"""

from __future__ import annotations

import itertools
import os
import weakref

import numpy as np

from sslcli.console import escape
from sslcli.errors import DataError

_numbers = itertools.count()
_mapped: dict[int, tuple[str, tuple[int, int, int]]] = {}  # path and state of each currently mapped file


def watch(array: np.ndarray, path: str) -> np.ndarray:
    """Watch the file of an array that was just mapped from `path`, as long as the map exists. Returns the array."""
    map_ = array.base
    if isinstance(array, np.memmap) and map_ is not None:
        number = next(_numbers)
        _mapped[number] = (os.path.abspath(path), _state(os.stat(path)))
        weakref.finalize(map_, _mapped.pop, number, None)
    return array


def require_unchanged() -> None:
    """Raises DataError where a mapped file was written to. A removed or replaced file does no harm: its map stays valid."""
    for path, was in list(_mapped.values()):
        try:
            now = _state(os.stat(path))
        except OSError:
            continue
        if now[0] == was[0] and now != was:
            raise DataError(
                f"{escape(path)} was modified while in use",
                "restore the file and resume the run, or start a new one; "
                "to replace a file in use, write another file and rename it",
            )


def _state(about: os.stat_result) -> tuple[int, int, int]:
    return about.st_ino, about.st_size, about.st_mtime_ns
