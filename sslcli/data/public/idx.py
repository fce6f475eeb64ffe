"""IDX files, plain or gzipped: the format of MNIST and its relatives.

http://yann.lecun.com/exdb/mnist/, "FILE FORMATS".
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from sslcli.data.folders.paths import require_regular
from sslcli.data.notify import shown
from sslcli.errors import DataError

MAX_BYTES = 1 << 30  # bytes of one file once unpacked; the largest of the family, EMNIST by class, has 0.6 GB


def read(path: str | Path) -> np.ndarray:
    """An IDX file of unsigned bytes, of any number of dimensions. DataError when it is cut short or something else."""
    name = require_regular(os.fspath(path))
    try:
        with gzip.open(name) if name.endswith(".gz") else open(name, "rb") as file:
            start = file.read(4)
            if len(start) != 4 or start[:2] != b"\0\0" or start[2] != 0x08 or not 1 <= start[3] <= 4:
                raise DataError(f"{shown(name)} is no IDX file of bytes: it starts with {start.hex(' ') or 'nothing'}")
            shape = tuple(int.from_bytes(file.read(4), "big") for _ in range(start[3]))
            expected = math.prod(shape)
            if expected > MAX_BYTES:
                raise DataError(f"{shown(name)} announces {shape}, more than {MAX_BYTES:,} bytes")
            data = file.read(expected + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{shown(name)} is broken: {error}", "get the file again") from error
    except OSError as error:
        raise DataError(f"{shown(name)} cannot be read: {error.strerror or error}") from error
    if len(data) != expected:
        more = "more" if len(data) > expected else f"{len(data):,}"
        raise DataError(
            f"{shown(name)} should hold {expected:,} bytes for {shape}, but has {more}", "get the file again"
        )
    return np.frombuffer(data, np.uint8).reshape(shape).copy()
