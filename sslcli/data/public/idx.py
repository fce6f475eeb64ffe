"""Read IDX files, plain or gzipped: the format of MNIST and related data sets.

http://yann.lecun.com/exdb/mnist/, "FILE FORMATS".
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from sslcli.console import escape
from sslcli.data.folders.paths import require_regular
from sslcli.errors import DataError

MAX_BYTES = 1 << 30  # of one unpacked file; the largest published one, EMNIST ByClass, has 0.6 GB


def read(path: str | Path) -> np.ndarray:
    """An IDX file of unsigned bytes with 1 to 4 dimensions. Raises DataError where it is truncated or another format."""
    name = require_regular(os.fspath(path))
    try:
        with gzip.open(name) if name.endswith(".gz") else open(name, "rb") as file:
            start = file.read(4)
            if len(start) != 4 or start[:2] != b"\0\0" or start[2] != 0x08 or not 1 <= start[3] <= 4:
                raise DataError(
                    f"{escape(name)} is not an IDX file of bytes: it begins with {start.hex(' ') or 'nothing'}"
                )
            shape = tuple(int.from_bytes(file.read(4), "big") for _ in range(start[3]))
            expected = math.prod(shape)
            if expected > MAX_BYTES:
                raise DataError(f"{escape(name)} declares the shape {shape}, more than {MAX_BYTES:,} bytes")
            data = file.read(expected + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{escape(name)} is corrupt: {error}", "download the file again") from error
    except OSError as error:
        raise DataError(f"{escape(name)} cannot be read: {error.strerror or error}") from error
    if len(data) != expected:
        more = "more" if len(data) > expected else f"{len(data):,}"
        raise DataError(
            f"{escape(name)} has {more} bytes of data; expected {expected:,} for the shape {shape}",
            "download the file again",
        )
    return np.frombuffer(data, np.uint8).reshape(shape).copy()
