"""Which files a folder of images holds, in which splits and classes.

Layouts, in the order in which they are recognised:

- split folders (`split_folders.py`), wherever they lie; each split is then read as below.
- sub-folders with images (`class_folders.py`): the names of the top folders are the classes, however deep the images lie;
  with `label=parent` those of the folders that the images lie in. Folders that hold nothing but one folder are stepped
  into, and an `images` folder inside a class folder is none. Images beside the class folders have no label.
- images only: no labels.

`detect_layout` does this for any list of paths: those below a folder, or those in tar files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sslcli.console import plural
from sslcli.data import notify
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
from sslcli.data.notify import shown
from sslcli.errors import DataError, listing

OTHER_KINDS = {".npy": "arrays", ".npz": "arrays", ".pt": "arrays", ".tar": "tar"}
NEEDS_PLUGIN = (".heic", ".heif", ".jxl", ".avif")  # pictures that Pillow reads only with help
LABEL_RULES = ("auto", "top", "parent", "none")  # of `dataset.label`, for folders


@dataclass
class Layout:
    """The split (None: left out) and the class (None: no label) of each path."""

    kinds: list[str | None]
    classes: list[str | None]
    layout: str
    rules: dict[PathParts, SplitRule]
    left_out: dict[PathParts, int]  # folder -> images, without masks
    known_by_split: bool = False


def read_folder(
    found: FolderListing, notes: list[str], label: str | None = "auto", splits: Any = "auto"
) -> FolderContents:
    """The splits and classes of what was found below a folder. DataError where there is no image."""
    if not found.files:
        raise _no_images_error(found)
    lost = {os.path.relpath(path, found.root): "the file is empty" for path in found.empty}
    read_ = detect_layout([parts for parts, _ in found.files], found.folders, found.root, label, splits, notes)
    parts_: dict[str, FileList] = {}
    for (parts, size), kind, cls in zip(found.files, read_.kinds, read_.classes, strict=True):
        if kind is not None:
            parts_.setdefault(kind, FileList()).add(os.path.join(found.root, *parts), "/".join(parts), size, cls)
    if label != "none":
        add_annotations(parts_, read_.rules, found.root, notes)
        if ".csv" in found.ignored and not any(any(f.classes) for f in parts_.values()):
            notes.append(f"there is a .csv file: if it holds labels, {HOW_TO_LABEL}")
    _warn_of_root(found.root, parts_, notes)
    details: dict[str, Any] = {
        "ignored": dict(found.ignored),
        "hidden": found.hidden,
        "special": found.special,
        "dangling": found.dangling,
        "repeated": found.linked_again,
        "denied": list(found.denied),
        "layout": read_.layout,
        "left_out": {"/".join(folder): n for folder, n in read_.left_out.items()},
    }
    notes += found.notes()
    foreign = {e: n for e, n in found.ignored.items() if e in NEEDS_PLUGIN}
    if foreign:
        what = ", ".join(f"{n:,} {e}" for e, n in foreign.items())
        notes.append(f"warning: {what}: this Pillow does not read them; convert them to .jpg or .png")
    return FolderContents(
        found.root, parts_, details, lost, explicit_splits=is_explicit(splits), known_by_split=read_.known_by_split
    )


def _warn_of_root(root: str, parts: Mapping[str, FileList], notes: list[str]) -> None:
    """Says that a folder is itself one split of several."""
    path = os.path.abspath(root)
    kind = exact_split(os.path.basename(path))
    if kind is None or parts.keys() != {"train"}:
        return
    try:
        beside = sorted(e.name for e in os.scandir(os.path.dirname(path)) if e.is_dir() and exact_split(e.name))
    except OSError:
        return
    others = [n for n in beside if exact_split(n) not in (kind, None)]
    if others:
        more = (
            f": {notify.typed('dataset.path', os.path.dirname(root) or '..')} reads all of them"
            if kind == "train"
            else ""
        )
        warning = "" if kind == "train" else "warning: this folder looks like a test split, and is trained on; "
        notes.append(f"{warning}beside it lie {listing((shown(n) + '/' for n in others), 3)}{more}")


def detect_layout(
    paths: Sequence[PathParts],
    folders: Iterable[PathParts],
    root: str,
    label: str | None,
    splits: Any,
    notes: list[str],
) -> Layout:
    """What the folders in `paths` say. `folders`: those that are there, with images or not. `label`: one of READINGS.
    Raises RequestError for `splits`, DataError where it cannot be sure which folders are splits."""
    tree = FolderTree(Counter(p[:-1] for p in paths))
    everything: dict[PathParts, SplitRule] = {(): ("train", ())}
    masks: dict[PathParts, int] = {}
    rules = everything
    if is_explicit(splits):
        rules = explicit_splits(tree, splits, root)
    elif splits != "none":
        masks = {folder: tree.total[folder] for folder in tree.masks()}
        rest = tree.without(masks)
        if found := find_splits(rest, root, notes):
            rules = found
            require_unambiguous(rest, rules, _left_out(rest, rules), root)
    if rules is not everything:
        said = (f"{kind} = {listing((shown(f) + '/' for f in fs), 4)}" for kind, fs in group_by_split(rules).items())
        notes.append("splits by folder: " + "; ".join(said))
    left_out = _left_out(tree.without(masks), rules)
    if left_out:
        some = listing((f"{shown('/'.join((*f, '')))} ({plural(n, 'image')})".strip() for f, n in left_out.items()), 4)
        warning = "" if is_explicit(splits) else "warning: "
        how = "" if is_explicit(splits) else _pretrain_hint(tree, rules, left_out)
        notes.append(f"{warning}left out, beside the splits: {some}{how}")
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
        known_by_split=len({kind for kind, _ in rules.values() if kind}) > 1 and not _is_by_top_folder(tree, rules),
    )


def _pretrain_hint(tree: FolderTree, rules: Mapping[PathParts, SplitRule], left_out: Iterable[PathParts]) -> str:
    """How to pretrain on what was left out, where it does not look like a test split, nor holds one."""
    folders = ["/".join(f) for f in left_out if f and not any(parse_split(n) for n in (f[-1], *tree.children[f]))]
    splits = group_by_split(rules)
    more = {**splits, "unlabelled": [*splits.get("unlabelled", []), *folders]}
    return f"; to pretrain on it, too: {format_splits(more)}" if folders else ""


def _left_out(tree: FolderTree, rules: Mapping[PathParts, SplitRule]) -> dict[PathParts, int]:
    """Images of no split, by the highest folder that holds no split."""
    above = {f[:k] for f, (kind, _) in rules.items() if kind for k in range(len(f))}
    out: Counter[PathParts] = Counter()
    for folder, n in tree.direct.items():
        if n and _place(folder, rules)[1] is None:
            out[next((folder[:k] for k in range(len(folder) + 1) if folder[:k] not in above), folder)] += n
    return dict(sorted(out.items()))


def _is_by_top_folder(tree: FolderTree, rules: Mapping[PathParts, SplitRule]) -> bool:
    """Whether the names of the files alone say the split, by their first folder: as the first version read them."""
    plain = {"train", "training", "test", "testing", "val", "valid", "validation", "unlabelled", "unlabeled"}
    tops = tree.children[()]
    return (
        not tree.direct[()]
        and all(t.lower() in plain for t in tops)
        and {f for f, (kind, _) in rules.items() if kind} == {(t,) for t in tops}
        and any(t.lower() in ("train", "training") for t in tops)
    )


def _place(folder: PathParts, rules: Mapping[PathParts, SplitRule]) -> tuple[PathParts, str | None, PathParts]:
    """The folder of a rule that a folder lies in, its split, and what its class is read from."""
    at = next(folder[:k] for k in range(len(folder), -1, -1) if folder[:k] in rules)
    kind, kept = rules[at]
    return at, kind, kept + folder[len(at) :]


def _no_images_error(found: FolderListing) -> DataError:
    """An empty folder, told by what is there instead."""
    seen = Counter(found.ignored)
    what = ", ".join(f"{n:,} {e}" for e, n in seen.most_common(6))
    folders = len(found.folders) - 1
    sentence = f"no image in {shown(found.root)}"
    if folders > 0:
        sentence += f" and the {plural(folders, 'folder')} below it"
    if found.empty:
        sentence += f"; {plural(len(found.empty), 'file')} of zero bytes"
    if found.denied:
        sentence += f"; {plural(len(found.denied), 'folder')} may not be read: {listing(map(shown, found.denied), 3)}"
    sentence += f"; seen: {what}" if what else ("" if found.empty or found.denied else "; nothing else either")
    other = next((OTHER_KINDS[e] for e, _ in seen.most_common() if e in OTHER_KINDS), None)
    if is_output(found.root, os.listdir(found.root)):
        hint = "this is a folder that sslcli wrote; of a pack: dataset=pack"
    elif other:
        hint = f"dataset={other} reads such files"
    elif found.archives:
        hint = str(unpack_hint(found.archives[0]))
    elif any(e in NEEDS_PLUGIN for e in seen):
        hint = "this Pillow does not read them; convert them to .jpg or .png"
    elif "no extension" in seen:
        hint = f"files of any name are read from a list of them: find {shown(found.root)} -type f > list.txt"
    else:
        hint = "dataset.path=FOLDER with .jpg, .png, .webp, .tif ... files"
    return DataError(sentence, hint)
