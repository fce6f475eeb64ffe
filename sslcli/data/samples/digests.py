"""Hashes of samples: equal ones have the same content."""

from __future__ import annotations

import hashlib

from sslcli.data.dataset import Source
from sslcli.data.files.parallel import parallel_map
from sslcli.data.images.encoded import EncodedImages
from sslcli.data.subset import Concat, Subset


def digests(source: Source) -> list[bytes]:
    """SHA-256 of the file of each sample where the samples are image files, otherwise of its values."""
    if isinstance(source, EncodedImages):
        return parallel_map(source.digest, len(source), "comparing files")
    if isinstance(source, Subset) and source.whole.resident is None:
        whole = digests(source.whole)
        return [whole[i] for i in source.ids.tolist()]
    if isinstance(source, Concat) and source.resident is None:
        return [d for part in source.parts for d in digests(part)]
    x = source.resident
    assert x is not None, type(source)
    return [hashlib.sha256(x[i].contiguous().numpy().tobytes()).digest() for i in range(len(x))]
