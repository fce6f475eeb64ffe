"""Find duplicates between the training and the held-out files."""

from __future__ import annotations

import hashlib

from sslcli.console import plural
from sslcli.data.files.parallel import parallel_map
from sslcli.data.fingerprint import content_hash
from sslcli.data.folders.contents import FileList
from sslcli.data.images import decode
from sslcli.data.images.headers import FileLoader

MAX_COMPARED = 20_000  # files


def warn_duplicates(train: FileList, test: FileList | None, load: FileLoader, notes: list[str]) -> list[str]:
    """Warn about test files that are byte for byte in train: files of equal size are compared by hash. Returns their names."""
    if not test:
        return []
    sizes = set(train.sizes) & set(test.sizes)
    compared = [f.take(i for i, s in enumerate(f.sizes) if s in sizes) for f in (train, test)]
    if sum(map(len, compared)) > MAX_COMPARED:
        notes.append("not checked for duplicates between train and test (too many files of equal size)")
        return []

    def hashed(paths: list[str]) -> list[bytes | None]:
        def one(i: int) -> bytes | None:
            try:
                file = load(paths[i])
                return content_hash(file) if isinstance(file, str) else hashlib.sha256(file).digest()
            except (OSError, decode.BadImage):
                return None  # counted when samples are loaded

        return parallel_map(one, len(paths), "comparing files")

    train_hashes = set(hashed(compared[0].paths)) - {None}
    found = zip(compared[1].names, hashed(compared[1].paths), strict=True)
    if duplicates := [name for name, h in found if h in train_hashes]:
        notes.append(
            f"warning: {plural(len(duplicates), 'test image')} also in train (same bytes): metrics will be too optimistic"
        )
    return duplicates
