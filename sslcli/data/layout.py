"""Which files a folder of images holds, in which splits and classes.

Layouts, in the order in which they are recognised:

- `train/` with `test/` or `val/` (and `unlabelled/`): splits; each is then read as below. `test` wins over `val`.
- sub-folders with images: the top-level folder names are the classes, however deep the images lie. Folders that hold
  nothing but one folder are stepped into. Images beside the class folders have no label.
- images only: no labels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sslcli.data.files import Listing
from sslcli.data.talk import count, shown
from sslcli.errors import DataError, listing

SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "unlabelled": "unlabelled",
    "unlabeled": "unlabelled",
}
OTHER_KINDS = {".npy": "arrays", ".npz": "arrays", ".pt": "arrays"}
NEED_A_READER = (".heic", ".heif", ".jxl", ".avif")  # pictures that Pillow reads only with help


@dataclass
class Files:
    """Files of one split, in order."""

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

    def take(self, ids: Iterable[int]) -> Files:
        ids = list(ids)
        out = Files()
        for i in ids:
            out.add(self.paths[i], self.names[i], self.sizes[i], self.classes[i])
        out.groups = None if self.groups is None else [self.groups[i] for i in ids]
        return out

    def __len__(self) -> int:
        return len(self.paths)


@dataclass
class Found:
    """What a folder or a list file names."""

    root: str
    parts: dict[str, Files]  # "train", and where there are any "test", "val", "unlabelled"
    details: dict[str, Any]
    lost: dict[str, str] = field(default_factory=dict)  # name -> reason: named, but not even worth opening
    by_value: bool = False  # classes that are numbers come in the order of these, not of their letters

    def order(self, classes: Iterable[str]) -> tuple[str, ...]:
        """Classes in the order of their ids."""
        names = sorted(set(classes))
        if self.by_value and all(n.isdecimal() for n in names):
            names.sort(key=int)
        return tuple(names)


def from_folder(found: Listing, notes: list[str]) -> Found:
    """The splits and classes of what was found below a folder. DataError where there is no image."""
    if not found.files:
        raise _nothing(found)
    lost = {os.path.relpath(path, found.root): "the file is empty" for path in found.empty}
    details: dict[str, Any] = {
        "ignored": dict(found.ignored),
        "hidden": found.hidden,
        "special": found.special,
        "dangling": found.dangling,
        "repeated": found.linked_again,
        "denied": list(found.denied),
    }
    parts, details["layout"] = _parts(found, notes)
    notes += found.notes()
    foreign = {e: n for e, n in found.ignored.items() if e in NEED_A_READER}
    if foreign:
        what = ", ".join(f"{n:,} {e}" for e, n in foreign.items())
        notes.append(f"warning: {what}: this Pillow does not read them; convert them to .jpg or .png")
    return Found(found.root, parts, details, lost)


def _parts(found: Listing, notes: list[str]) -> tuple[dict[str, Files], str]:
    """Files by split, and what the layout is."""
    tops = {parts[0] for parts, _ in found.files if len(parts) > 1}
    loose = any(len(parts) == 1 for parts, _ in found.files)
    kinds = {top: SPLITS.get(top.lower()) for top in tops}
    if not (tops and not loose and all(kinds.values()) and "train" in kinds.values()):
        files = Files()
        layout = _classes_of(found, (), files, notes)
        return {"train": files}, layout
    notes.append("splits by folder: " + ", ".join(f"{shown(t)}/" for t in sorted(tops)))
    parts_, layouts = {}, []
    for kind in sorted({k for k in kinds.values() if k}):
        files = Files()
        for top in (t for t in sorted(tops) if kinds[t] == kind):
            layouts.append(_classes_of(found, (top,), files, notes, quiet=kind == "unlabelled"))
        if kind == "unlabelled":
            files.classes = [None] * len(files)
        parts_[kind] = files
    return parts_, f"splits of {layouts[0]}"


def _classes_of(found: Listing, base: tuple[str, ...], out: Files, notes: list[str], quiet: bool = False) -> str:
    """Add the files below `base` with their classes; returns what the layout is, and says it in the notes."""
    inside = [(parts, size) for parts, size in found.files if parts[: len(base)] == base]
    root = _step_into(found, base, inside)
    k = len(root)
    tops = {parts[k] for parts, _ in inside if len(parts) > k + 1}
    loose = sum(len(parts) == k + 1 for parts, _ in inside)
    nested = any(len(parts) > k + 2 for parts, _ in inside)
    for parts, size in inside:
        cls = parts[k] if len(parts) > k + 1 else None
        out.add(os.path.join(found.root, *parts), "/".join(parts), size, cls)
    where = "/".join(map(shown, base)) + ": " if base else ""
    if not tops:
        layout, text = "flat", f"flat folder of {count(len(inside), 'image')}, no labels"
    else:
        layout = "nested class folders" if nested else "class folders"
        text = f"{layout}: {count(len(inside), 'image')} of {count(len(tops), 'class', 'classes')}"
        text += " (the top folders)" if nested else ""
        if loose:
            text += f"; {count(loose, 'image')} beside them without label"
        bare = sorted(_siblings(found, root) - tops)
        if bare and not quiet:
            notes.append(
                f"warning: {where}{count(len(bare), 'folder')} without images, no class: {listing(map(shown, bare), 5)}"
            )
    notes.append(where + text)
    return layout


def _siblings(found: Listing, root: tuple[str, ...]) -> set[str]:
    k = len(root)
    return {f[k] for f in found.folders if len(f) == k + 1 and f[:k] == root}


def _step_into(found: Listing, root: tuple[str, ...], inside: list[tuple[tuple[str, ...], int]]) -> tuple[str, ...]:
    """Down through folders that hold one folder and nothing else, to the one that holds the classes."""
    while True:
        k = len(root)
        tops = {parts[k] for parts, _ in inside if len(parts) > k + 1}
        alone = len(tops) == 1 and len(_siblings(found, root)) == 1 and not any(len(p) == k + 1 for p, _ in inside)
        deeper = any(len(parts) > k + 2 for parts, _ in inside)
        if not alone or not deeper or any(len(parts) == k + 2 for parts, _ in inside):
            return root  # images and folders in one folder: it is a class
        root = (*root, *tops)


def _nothing(found: Listing) -> DataError:
    """An empty folder, told by what is there instead."""
    seen = Counter(found.ignored)
    what = ", ".join(f"{n:,} {e}" for e, n in seen.most_common(6))
    folders = len(found.folders) - 1
    sentence = f"no image in {shown(found.root)}"
    if folders > 0:
        sentence += f" and the {count(folders, 'folder')} below it"
    if found.empty:
        sentence += f"; {count(len(found.empty), 'file')} of zero bytes"
    if found.denied:
        sentence += f"; {count(len(found.denied), 'folder')} may not be read: {listing(map(shown, found.denied), 3)}"
    sentence += f"; seen: {what}" if what else ("" if found.empty or found.denied else "; nothing else either")
    other = next((OTHER_KINDS[e] for e, _ in seen.most_common() if e in OTHER_KINDS), None)
    if other:
        hint = f"dataset={other} reads such files"
    elif any(e in NEED_A_READER for e in seen):
        hint = "this Pillow does not read them; convert them to .jpg or .png"
    else:
        hint = "dataset.path=FOLDER with .jpg, .png, .webp, .tif ... files"
    return DataError(sentence, hint)
