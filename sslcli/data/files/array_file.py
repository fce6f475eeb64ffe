"""Read arrays from .npy, .npz and .pt files, or from a folder of them.

No file can execute code: `np.load(allow_pickle=False)` and `torch.load(weights_only=True)` are used without a fallback. The
unpacked size is checked before a file is unpacked.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, human_bytes
from sslcli.data.files.memory_map import watch
from sslcli.data.folders.paths import is_hidden, require_regular, unpack_hint
from sslcli.data.folders.placeholders import detect_placeholder
from sslcli.errors import DataError, MachineError, RequestError, SslError, listing
from sslcli.runtime.resources import free_memory

SUFFIXES = (".npy", ".npz", ".pt", ".pth")


def read_entries(path: str) -> dict[str, np.ndarray]:
    """Name -> array, of one file or of all array files in a folder. A single array has the name "x"."""
    if not os.path.isdir(path):
        if not path.lower().endswith(SUFFIXES):
            raise RequestError(
                f"{escape(path)} is not an array file: expected one of {', '.join(SUFFIXES)}",
                unpack_hint(path)
                or "save the arrays with numpy.savez('data.npz', x=samples, y=labels); "
                "dataset=image_folder reads image files and lists of them",
            )
        return read_file(require_regular(path))
    files = sorted(f for f in os.listdir(path) if f.lower().endswith(SUFFIXES) and not is_hidden(f))
    if not files:
        entries_here = sorted(f for f in os.listdir(path) if not is_hidden(f))
        raise DataError(
            f"no array file ({', '.join(SUFFIXES)}) in {escape(path)}; "
            + (f"it holds {listing(map(escape, entries_here), 6)}" if entries_here else "it is empty"),
            "dataset=image_folder reads folders of image files" if entries_here else None,
        )
    if len(files) == 1:
        return read_file(require_regular(os.path.join(path, files[0])))
    entries: dict[str, np.ndarray] = {}
    for file in files:
        stem = os.path.splitext(file)[0]
        inner = read_file(require_regular(os.path.join(path, file)))
        # entries x and y of train.npz, beside test.npz, become x_train and y_train
        entries |= {stem: inner["x"]} if set(inner) == {"x"} else {f"{k}_{stem}": v for k, v in inner.items()}
    return entries


def read_file(path: str) -> dict[str, np.ndarray]:
    """The arrays of one file, read without executing anything in it. An .npy file is memory-mapped."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about old pickles
            return _read(path, path.lower())
    except SslError:
        raise
    except pickle.UnpicklingError as error:
        if what := detect_placeholder(path):
            raise DataError(f"{escape(path)} is {what}") from error
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = (
            f"names {named[1]}, which is not a tensor or plain container" if named else "is not a file of plain tensors"
        )
        raise DataError(
            f"{escape(path)} {what}; loading such a file could execute code",
            "save it again as torch.save({'x': images, 'y': labels}, FILE), with tensors",
        ) from error
    except PermissionError as error:
        raise DataError(f"{escape(path)} may not be read: {error.strerror}") from error
    except MemoryError as error:
        raise MachineError(f"{escape(path)} declares more data than fits into memory") from error
    except Exception as error:  # a malformed file can make numpy, zipfile and torch raise nearly any exception
        if what := detect_placeholder(path):
            raise DataError(f"{escape(path)} is {what}") from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if path.lower().endswith(".npy") and not _has_npy_magic(path):
            raise DataError(
                f"{escape(path)} is not an .npy file in spite of its name", "check that it is complete"
            ) from error
        if any(sign in reason for sign in ("allow_pickle", "Object arrays", "Python objects")):
            raise DataError(
                f"{escape(path)} holds Python objects (an object array), which are not read: they could execute code",
                "save numeric arrays of samples of one shape, padded with NaN; labels as strings, '' where one is missing",
            ) from error
        raise DataError(
            f"{escape(path)} cannot be read: {escape(reason)}",
            "check that it is complete and of the type of its extension",
        ) from error


def _read(path: str, lower: str) -> dict[str, np.ndarray]:
    if lower.endswith(".npy"):
        return {"x": watch(np.load(path, mmap_mode="c", allow_pickle=False), path)}
    if lower.endswith(".npz") or zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _require_memory(sum(i.file_size for i in archive.infolist()), path)
    if lower.endswith(".npz"):
        with np.load(path, allow_pickle=False) as archive_:
            return {k: archive_[k] for k in archive_.files}
    _require_memory(os.path.getsize(path), path)
    return _to_arrays(torch.load(path, map_location="cpu", weights_only=True), path)


def _has_npy_magic(path: str) -> bool:
    """Whether a file begins with the magic string of .npy; numpy unpickles any other file."""
    with open(path, "rb") as file:
        return file.read(6) == b"\x93NUMPY"


def _require_memory(n: int, path: str) -> None:
    free = free_memory()
    if n > free:
        raise MachineError(
            f"{escape(path)} unpacks to {human_bytes(n)}, but only {human_bytes(free)} of memory are available",
            "an .npy file is memory-mapped and may be larger than memory: np.save('x.npy', x)",
        )


def _to_arrays(value: object, path: str) -> dict[str, np.ndarray]:
    """Named arrays of what a .pt file holds: a tensor, a pair (x, y), or a dictionary of tensors."""

    def plain(v: object) -> Any:
        if isinstance(v, Tensor):
            v = v.detach()
            return (v.float() if v.dtype in (torch.bfloat16, torch.float16) else v).numpy()
        if isinstance(v, (list, tuple)) and v and all(isinstance(i, (int, float, str)) for i in v):
            return np.asarray(v)
        return None

    if isinstance(value, Tensor):
        return {"x": plain(value)}
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(plain(v) is not None for v in value):
        return {"x": plain(value[0]), "y": plain(value[1])}
    if isinstance(value, Mapping):
        named = {str(k): plain(v) for k, v in value.items()}
        if named := {k: v for k, v in named.items() if v is not None}:
            return named
    raise DataError(f"{escape(path)} holds no tensors", "torch.save({'x': images, 'y': labels}, FILE)")
