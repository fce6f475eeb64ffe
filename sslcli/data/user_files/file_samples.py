"""Files that each hold one sample, folders of them, and lists of them (.txt, .csv), such as images and clips."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from sslcli.console import escape
from sslcli.data.files.list_file import read_list
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.contents import FileList
from sslcli.data.folders.nouns import reword
from sslcli.data.sources.folder_splits import encode_classes
from sslcli.data.user_files.samples import list_files, none_readable
from sslcli.errors import RequestError

LISTS = (".txt", ".csv", ".tsv")


@dataclass(frozen=True)
class FileKind:
    """The files of a kind of data. accept: whether a name is that of one. noun: of one sample, in notes. what: of a file, in
    errors. expected: what a command takes, in hints."""

    accept: Callable[[str], bool]
    noun: str
    what: str
    expected: str


@dataclass
class FileSamples:
    """`files`, each once, with their classes where a list names these; unreadable: path -> reason."""

    files: FileList = field(default_factory=FileList)
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({label for label in self.files.classes if label is not None}))

    @property
    def labels(self) -> Tensor | None:
        return encode_classes(self.files, self.classes) if self.classes else None

    @property
    def fingerprint(self) -> str:
        """Of names and sizes."""
        rows = (
            part for name, size in zip(self.files.names, self.files.sizes, strict=True) for part in (name, str(size))
        )
        return fingerprint(len(self.files), (text.encode("utf-8", "surrogateescape") for text in rows))


def find_samples(paths: Sequence[str], kind: FileKind, notes: list[str]) -> FileSamples:
    """RequestError for files of another kind, DataError where none can be read."""
    found, known = FileSamples(), set[str]()
    for path in paths:
        for one, size, label in _list(path, kind, found.unreadable, notes):
            if one not in known:
                known.add(one)
                found.files.add(one, one, size, label)
    if not found.files:
        raise none_readable(found.unreadable)
    return found


def _list(path: str, kind: FileKind, unreadable: dict[str, str], notes: list[str]) -> list[tuple[str, int, str | None]]:
    """(path, bytes, class) of a file, of those below a folder, or of those that a list names."""
    if os.path.isdir(path):
        return [(one, size, None) for one, size in list_files(path, kind.accept, f"{kind.what} files", unreadable)]
    if path.lower().endswith(LISTS):
        of_list: list[str] = []
        contents = read_list(path, "auto", of_list)
        notes += [reword(note, kind.noun) for note in of_list]
        unreadable |= contents.missing
        rows = (zip(part.paths, part.sizes, part.classes, strict=True) for part in contents.parts.values())
        return [row for part in rows for row in part]
    if not kind.accept(path):
        raise RequestError(f"{escape(path)} is no {kind.what}, which this encoder takes", f"expected {kind.expected}")
    try:
        return [(path, os.stat(path).st_size, None)]
    except OSError as error:
        unreadable[path] = error.strerror or str(error)
        return []
