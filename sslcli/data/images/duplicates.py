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


def warn_duplicates(train: FileList, test: FileList | None, load: FileLoader, notes: list[str]) -> int:
    """Warn about test files that are byte for byte in train: files of equal size are compared by hash. Returns their number."""
    if not test:
        return 0
    sizes = set(train.sizes) & set(test.sizes)
    pairs = [[p for p, s in zip(f.paths, f.sizes, strict=True) if s in sizes] for f in (train, test)]
    if sum(map(len, pairs)) > MAX_COMPARED:
        notes.append("not checked for duplicates between train and test (too many files of equal size)")
        return 0

    def hashed(paths: list[str]) -> list[bytes | None]:
        def one(i: int) -> bytes | None:
            try:
                file = load(paths[i])
                return content_hash(file) if isinstance(file, str) else hashlib.sha256(file).digest()
            except (OSError, decode.BadImage):
                return None  # counted when samples are loaded

        return parallel_map(one, len(paths), "comparing files")

    train_hashes = set(hashed(pairs[0])) - {None}
    duplicates = sum(h in train_hashes for h in hashed(pairs[1]))
    if duplicates:
        notes.append(
            f"warning: {plural(duplicates, 'test image')} also in train (same bytes): metrics will be too optimistic"
        )
    return duplicates
