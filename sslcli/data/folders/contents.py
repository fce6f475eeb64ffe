"""What a folder or a list file holds: the files of each split with their classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class FileList:
    """The files of one split, in order."""

    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # bytes
    classes: list[str | None] = field(default_factory=list)
    groups: list[str] | None = None

    def add(self, path: str, name: str, size: int, cls: str | None) -> None:
        self.paths.append(path)
        self.names.append(name)
        self.sizes.append(size)
        self.classes.append(cls)

    def take(self, ids: Iterable[int]) -> FileList:
        ids = list(ids)
        out = FileList()
        for i in ids:
            out.add(self.paths[i], self.names[i], self.sizes[i], self.classes[i])
        out.groups = None if self.groups is None else [self.groups[i] for i in ids]
        return out

    def __len__(self) -> int:
        return len(self.paths)


@dataclass
class FolderContents:
    """The image files of a folder, a list file or tar shards, by split."""

    root: str
    parts: dict[str, FileList]  # "train", and if present "test", "val", "unlabelled"
    details: dict[str, Any]
    missing: dict[str, str] = field(default_factory=dict)  # name -> reason of files that are absent or empty
    by_value: bool = False  # sort numeric class names by value, not by their letters
    explicit_splits: bool = False  # `dataset.splits` names the folders of the splits
    split_in_fingerprint: bool = (
        False  # the names of the files do not imply their split, so the fingerprint includes it
    )

    def order(self, classes: Iterable[str]) -> tuple[str, ...]:
        """Sorted classes: the order of their ids."""
        names = sorted(set(classes))
        if self.by_value and all(n.isdecimal() for n in names):
            names.sort(key=int)
        return tuple(names)
