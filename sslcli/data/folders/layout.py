"""Detect the splits and classes of a folder of images.

Layouts, in the order in which they are recognized:

- split folders (`split_folders.py`) at any depth; each split is then read as below.
- subfolders with images (`class_folders.py`): the names of the top folders are the classes, however deep the images are;
  with `label=parent` the names of the folders that contain the images. Folders that hold only one folder are descended
  into, and an `images` folder inside a class folder is not a class. Images beside class folders have no label.
- images only: no labels.

`detect_layout` works on any list of paths, below a folder or in tar files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sslcli.console import escape, format_override, plural
from sslcli.data.folders.annotations import add_annotations
from sslcli.data.folders.class_folders import assign_classes, exclude_masks, match_classes
from sslcli.data.folders.contents import FileList, FolderContents
from sslcli.data.folders.paths import unpack_hint
from sslcli.data.folders.scan import FolderListing, is_output
from sslcli.data.folders.split_folders import (
    FolderTree,
    PathParts,
    SplitRule,
    explicit_splits,
    find_splits,
    group_by_split,
    is_explicit,
    require_unambiguous,
)
from sslcli.data.folders.split_names import exact_split, format_splits, parse_split
from sslcli.data.label_warnings import HOW_TO_LABEL
from sslcli.errors import DataError, listing

OTHER_KINDS = {".npy": "arrays", ".npz": "arrays", ".pt": "arrays", ".tar": "tar"}
NEEDS_PLUGIN = (".heic", ".heif", ".jxl", ".avif")  # images that Pillow reads only with a plugin
LABEL_RULES = ("auto", "top", "parent", "none")  # values of `dataset.label` for folders


@dataclass
class Layout:
    """The split (None: excluded) and the class (None: no label) of each path."""

    kinds: list[str | None]
    classes: list[str | None]
    layout: str
    rules: dict[PathParts, SplitRule]
    left_out: dict[PathParts, int]  # excluded folder -> number of images, without masks
    split_in_fingerprint: bool = False


def read_folder(
    folder: FolderListing, notes: list[str], label: str | None = "auto", splits: object = "auto"
) -> FolderContents:
    """The splits and classes of the files below a folder. Raises DataError where there is no image."""
    if not folder.files:
        raise _no_images_error(folder)
    missing = {os.path.relpath(path, folder.root): "the file is empty" for path in folder.empty}
    layout = detect_layout([path for path, _ in folder.files], folder.folders, folder.root, label, splits, notes)
    parts: dict[str, FileList] = {}
    for (path, size), kind, cls in zip(folder.files, layout.kinds, layout.classes, strict=True):
        if kind is not None:
            parts.setdefault(kind, FileList()).add(os.path.join(folder.root, *path), "/".join(path), size, cls)
    if label != "none":
        add_annotations(parts, layout.rules, folder.root, notes)
        if ".csv" in folder.ignored and not any(any(f.classes) for f in parts.values()):
            notes.append(f"there is a .csv file; if it holds labels: {HOW_TO_LABEL}")
    _warn_of_root(folder.root, parts, notes)
    details: dict[str, Any] = {
        "ignored": dict(folder.ignored),
        "hidden": folder.hidden,
        "special": folder.special,
        "dangling": folder.dangling,
        "repeated": folder.linked_again,
        "denied": list(folder.denied),
        "layout": layout.layout,
        "left_out": {"/".join(folder): n for folder, n in layout.left_out.items()},
    }
    notes += folder.notes()
    foreign = {e: n for e, n in folder.ignored.items() if e in NEEDS_PLUGIN}
    if foreign:
        what = ", ".join(f"{n:,} {e}" for e, n in foreign.items())
        notes.append(f"warning: {what}: not supported by the installed Pillow; convert them to .jpg or .png")
    return FolderContents(
        folder.root,
        parts,
        details,
        missing,
        explicit_splits=is_explicit(splits),
        split_in_fingerprint=layout.split_in_fingerprint,
    )


def _warn_of_root(root: str, parts: Mapping[str, FileList], notes: list[str]) -> None:
    """Add a note where the folder is itself one split of several."""
    path = os.path.abspath(root)
    kind = exact_split(os.path.basename(path))
    if kind is None or parts.keys() != {"train"}:
        return
    try:
        siblings = sorted(e.name for e in os.scandir(os.path.dirname(path)) if e.is_dir() and exact_split(e.name))
    except OSError:
        return
    others = [n for n in siblings if exact_split(n) not in (kind, None)]
    if others:
        more = (
            f": {format_override('dataset.path', os.path.dirname(root) or '..')} reads all splits"
            if kind == "train"
            else ""
        )
        warning = (
            "" if kind == "train" else "warning: this folder looks like a held-out split, and is used for training; "
        )
        notes.append(f"{warning}beside it are {listing((escape(n) + '/' for n in others), 3)}{more}")


def detect_layout(
    paths: Sequence[PathParts],
    folders: Iterable[PathParts],
    root: str,
    label: str | None,
    splits: object,
    notes: list[str],
) -> Layout:
    """The splits and classes that the folders in `paths` imply. `folders`: all folders, with images or without. `label`: one
    of LABEL_RULES. Raises RequestError for `splits`, DataError where the split folders are ambiguous."""
    tree = FolderTree(Counter(p[:-1] for p in paths))
    everything: dict[PathParts, SplitRule] = {(): ("train", ())}
    masks: dict[PathParts, int] = {}
    rules = everything
    if is_explicit(splits):
        rules = explicit_splits(tree, splits, root)
    elif splits != "none":
        masks = {folder: tree.total[folder] for folder in tree.masks()}
        rest = tree.without(masks)
        if split_rules := find_splits(rest, root, notes):
            rules = split_rules
            require_unambiguous(rest, rules, _left_out(rest, rules), root)
    if rules is not everything:
        described = (
            f"{kind} = {listing((escape(f) + '/' for f in fs), 4)}" for kind, fs in group_by_split(rules).items()
        )
        notes.append("splits by folder: " + "; ".join(described))
    left_out = _left_out(tree.without(masks), rules)
    if left_out:
        excluded = listing(
            (f"{escape('/'.join((*f, '')))} ({plural(n, 'image')})".strip() for f, n in left_out.items()), 4
        )
        warning = "" if is_explicit(splits) else "warning: "
        hint = "" if is_explicit(splits) else _pretrain_hint(tree, rules, left_out)
        notes.append(f"{warning}images in no split are excluded: {excluded}{hint}")
    rules = rules | dict.fromkeys(masks, (None, ()))
    places = {folder: _place(folder, rules) for folder in {*tree.direct, *folders}}
    kinds = [places[p[:-1]][1] for p in paths]
    if splits != "none":
        exclude_masks(paths, kinds, masks, notes)
    images = Counter(p[:-1] for p, kind in zip(paths, kinds, strict=True) if kind is not None)
    by_folder, layout = assign_classes(images, places, label, notes)
    classes = [by_folder[p[:-1]] if kind is not None else None for p, kind in zip(paths, kinds, strict=True)]
    match_classes(kinds, classes, notes)
    split = rules.keys() - masks.keys() != {()}
    return Layout(
        kinds,
        classes,
        f"splits of {layout}" if split else layout,
        rules,
        left_out,
        split_in_fingerprint=len({kind for kind, _ in rules.values() if kind}) > 1
        and not _is_by_top_folder(tree, rules),
    )


def _pretrain_hint(tree: FolderTree, rules: Mapping[PathParts, SplitRule], left_out: Iterable[PathParts]) -> str:
    """A hint how to pretrain on the excluded folders, unless they look like a held-out split or contain one."""
    folders = ["/".join(f) for f in left_out if f and not any(parse_split(n) for n in (f[-1], *tree.children[f]))]
    splits = group_by_split(rules)
    more = {**splits, "unlabelled": [*splits.get("unlabelled", []), *folders]}
    return f"; to pretrain on them as well: {format_splits(more)}" if folders else ""


def _left_out(tree: FolderTree, rules: Mapping[PathParts, SplitRule]) -> dict[PathParts, int]:
    """Highest folder without a split inside -> number of its images, for images in no split."""
    parents = {f[:k] for f, (kind, _) in rules.items() if kind for k in range(len(f))}
    out: Counter[PathParts] = Counter()
    for folder, n in tree.direct.items():
        if n and _place(folder, rules)[1] is None:
            out[next((folder[:k] for k in range(len(folder) + 1) if folder[:k] not in parents), folder)] += n
    return dict(sorted(out.items()))


def _is_by_top_folder(tree: FolderTree, rules: Mapping[PathParts, SplitRule]) -> bool:
    """Whether the first folder of each path implies the split, in the spellings that the first version recognized."""
    plain = {"train", "training", "test", "testing", "val", "valid", "validation", "unlabelled", "unlabeled"}
    tops = tree.children[()]
    return (
        not tree.direct[()]
        and all(t.lower() in plain for t in tops)
        and {f for f, (kind, _) in rules.items() if kind} == {(t,) for t in tops}
        and any(t.lower() in ("train", "training") for t in tops)
    )


def _place(folder: PathParts, rules: Mapping[PathParts, SplitRule]) -> tuple[PathParts, str | None, PathParts]:
    """The folder of the rule that applies to a folder, its split, and the path that its class is read from."""
    at = next(folder[:k] for k in range(len(folder), -1, -1) if folder[:k] in rules)
    kind, prefix = rules[at]
    return at, kind, prefix + folder[len(at) :]


def _no_images_error(folder: FolderListing) -> DataError:
    """The error for a folder without images, which lists what it contains instead."""
    seen = Counter(folder.ignored)
    what = ", ".join(f"{n:,} {e}" for e, n in seen.most_common(6))
    folders = len(folder.folders) - 1
    sentence = f"no image in {escape(folder.root)}"
    if folders > 0:
        sentence += f" and the {plural(folders, 'folder')} below it"
    if folder.empty:
        sentence += f"; {plural(len(folder.empty), 'file')} of zero bytes"
    if folder.denied:
        sentence += f"; {plural(len(folder.denied), 'folder')} cannot be read: {listing(map(escape, folder.denied), 3)}"
    sentence += f"; it contains: {what}" if what else ("" if folder.empty or folder.denied else "; it is empty")
    other = next((OTHER_KINDS[e] for e, _ in seen.most_common() if e in OTHER_KINDS), None)
    if is_output(folder.root, os.listdir(folder.root)):
        hint = "this folder was written by sslcli; a pack is read by dataset=pack"
    elif other:
        hint = f"dataset={other} reads such files"
    elif folder.archives:
        hint = str(unpack_hint(folder.archives[0]))
    elif any(e in NEEDS_PLUGIN for e in seen):
        hint = "not supported by the installed Pillow; convert them to .jpg or .png"
    elif "no extension" in seen:
        hint = f"files without an extension are read from a list file: find {escape(folder.root)} -type f > list.txt"
    else:
        hint = "dataset.path=FOLDER with .jpg, .png, .webp, .tif ... files"
    return DataError(sentence, hint)
