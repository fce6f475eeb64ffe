"""Find duplicates between the training and the held-out files."""

from __future__ import annotations

import hashlib
from collections import Counter

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

    train_hashes = set(_hashes(compared[0].paths, load)) - {None}
    found = zip(compared[1].names, _hashes(compared[1].paths, load), strict=True)
    if duplicates := [name for name, h in found if h in train_hashes]:
        notes.append(
            f"warning: {plural(len(duplicates), 'test image')} also in train (same bytes): metrics will be too optimistic"
        )
    return duplicates


def group_copies(files: FileList, load: FileLoader, notes: list[str]) -> None:
    """Give files of the same bytes one group, so that no split divides them. Without copies, or where there are more than
    `MAX_COMPARED` files of a size that others have too, the files have no groups."""
    sizes = Counter(files.sizes)
    places = [i for i, size in enumerate(files.sizes) if sizes[size] > 1]
    if len(places) > MAX_COMPARED:
        return
    first: dict[bytes, int] = {}
    group = list(range(len(files)))
    for i, found in zip(places, _hashes([files.paths[i] for i in places], load), strict=True):
        if found is not None:
            group[i] = first.setdefault(found, i)
    if copies := sum(i != own for i, own in enumerate(group)):
        files.groups = [files.names[i] for i in group]
        notes.append(
            f"{plural(copies, 'copy', 'copies')} of images (same bytes): all copies of one are in the same split"
        )


def _hashes(paths: list[str], load: FileLoader) -> list[bytes | None]:
    """The SHA-256 of each file; None for one that cannot be read, which is counted when samples are loaded."""

    def one(i: int) -> bytes | None:
        try:
            file = load(paths[i])
            return content_hash(file) if isinstance(file, str) else hashlib.sha256(file).digest()
        except (OSError, decode.BadImage):
            return None

    return parallel_map(one, len(paths), "comparing files")
