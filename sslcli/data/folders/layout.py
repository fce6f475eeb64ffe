"""Which files a folder of images holds, in which splits and classes.

Layouts, in the order in which they are recognised:

- split folders (`split_folders.py`), wherever they lie; each split is then read as below.
- sub-folders with images (`class_folders.py`): the names of the top folders are the classes, however deep the images lie;
  with `label=parent` those of the folders that the images lie in. Folders that hold nothing but one folder are stepped
  into, and an `images` folder inside a class folder is none. Images beside the class folders have no label.
- images only: no labels.

`read` does this for any list of paths: those below a folder, or those in tar files.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sslcli.data import notify
from sslcli.data.folders.class_folders import agree, classes_of, leave_masks
from sslcli.data.folders.scan import Listing, is_output, unpacking
from sslcli.data.folders.split_folders import Parts, Rule, Tree, by_kind, chosen, find, require_sure
from sslcli.data.folders.split_names import kind_of, split_of, typed
from sslcli.data.label_warnings import HOW_TO_LABEL
from sslcli.data.notify import count, shown
from sslcli.errors import DataError, RequestError, listing

OTHER_KINDS = {".npy": "arrays", ".npz": "arrays", ".pt": "arrays", ".tar": "tar"}
NEED_A_READER = (".heic", ".heif", ".jxl", ".avif")  # pictures that Pillow reads only with help
ANNOTATIONS_BYTES = 1 << 26  # a longer file of labels is not read
READINGS = ("auto", "top", "parent", "none")  # of `dataset.label`, for folders


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
    chosen: bool = False  # what the splits are was asked for
    known_by_split: bool = False  # the names of the files do not say which split each is in: the fingerprint does

    def order(self, classes: Iterable[str]) -> tuple[str, ...]:
        """Classes in the order of their ids."""
        names = sorted(set(classes))
        if self.by_value and all(n.isdecimal() for n in names):
            names.sort(key=int)
        return tuple(names)


@dataclass
class Reading:
    """The split (None: left out) and the class (None: no label) of each path."""

    kinds: list[str | None]
    classes: list[str | None]
    layout: str
    rules: dict[Parts, Rule]
    left_out: dict[Parts, int]  # folder -> images, without masks
    known_by_split: bool = False


def from_folder(found: Listing, notes: list[str], label: str | None = "auto", splits: Any = "auto") -> Found:
    """The splits and classes of what was found below a folder. DataError where there is no image."""
    if not found.files:
        raise _nothing(found)
    lost = {os.path.relpath(path, found.root): "the file is empty" for path in found.empty}
    read_ = read([parts for parts, _ in found.files], found.folders, found.root, label, splits, notes)
    parts_: dict[str, Files] = {}
    for (parts, size), kind, cls in zip(found.files, read_.kinds, read_.classes, strict=True):
        if kind is not None:
            parts_.setdefault(kind, Files()).add(os.path.join(found.root, *parts), "/".join(parts), size, cls)
    if label != "none":
        _annotated(parts_, read_.rules, found.root, notes)
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
    foreign = {e: n for e, n in found.ignored.items() if e in NEED_A_READER}
    if foreign:
        what = ", ".join(f"{n:,} {e}" for e, n in foreign.items())
        notes.append(f"warning: {what}: this Pillow does not read them; convert them to .jpg or .png")
    return Found(found.root, parts_, details, lost, chosen=is_chosen(splits), known_by_split=read_.known_by_split)


def _warn_of_root(root: str, parts: Mapping[str, Files], notes: list[str]) -> None:
    """Says that a folder is itself one split of several."""
    path = os.path.abspath(root)
    kind = split_of(os.path.basename(path))
    if kind is None or parts.keys() != {"train"}:
        return
    try:
        beside = sorted(e.name for e in os.scandir(os.path.dirname(path)) if e.is_dir() and split_of(e.name))
    except OSError:
        return
    others = [n for n in beside if split_of(n) not in (kind, None)]
    if others:
        more = (
            f": {notify.typed('dataset.path', os.path.dirname(root) or '..')} reads all of them"
            if kind == "train"
            else ""
        )
        warning = "" if kind == "train" else "warning: this folder looks like a test split, and is trained on; "
        notes.append(f"{warning}beside it lie {listing((shown(n) + '/' for n in others), 3)}{more}")


def is_chosen(splits: Any) -> bool:
    """Whether the user said what the splits are."""
    return isinstance(splits, Mapping)


def check_splits(splits: Any) -> None:
    """`dataset.splits` as given: auto, none or a mapping; else a RequestError."""
    if splits not in ("auto", "none", None) and not (is_chosen(splits) and splits):
        raise RequestError(
            f"dataset.splits={splits} must be auto, none, or the folders of the splits",
            typed({"train": "train", "test": "test"}),
        )


def read(
    paths: Sequence[Parts], folders: Iterable[Parts], root: str, label: str | None, splits: Any, notes: list[str]
) -> Reading:
    """What the folders in `paths` say. `folders`: those that are there, with images or not. `label`: one of READINGS.
    Raises RequestError for `splits`, DataError where it cannot be sure which folders are splits."""
    tree = Tree(Counter(p[:-1] for p in paths))
    everything: dict[Parts, Rule] = {(): ("train", ())}
    masks: dict[Parts, int] = {}
    rules = everything
    if is_chosen(splits):
        rules = chosen(tree, splits, root)
    elif splits != "none":
        masks = {folder: tree.total[folder] for folder in tree.masks()}
        rest = tree.without(masks)
        if found := find(rest, root, notes):
            rules = found
            require_sure(rest, rules, _left_out(rest, rules), root)
    if rules is not everything:
        said = (f"{kind} = {listing((shown(f) + '/' for f in fs), 4)}" for kind, fs in by_kind(rules).items())
        notes.append("splits by folder: " + "; ".join(said))
    left_out = _left_out(tree.without(masks), rules)
    if left_out:
        some = listing((f"{shown('/'.join((*f, '')))} ({count(n, 'image')})".strip() for f, n in left_out.items()), 4)
        warning = "" if is_chosen(splits) else "warning: "
        how = "" if is_chosen(splits) else _how(tree, rules, left_out)
        notes.append(f"{warning}left out, beside the splits: {some}{how}")
    rules = rules | dict.fromkeys(masks, (None, ()))
    places = {folder: _place(folder, rules) for folder in {*tree.direct, *folders}}
    kinds = [places[p[:-1]][1] for p in paths]
    if splits != "none":
        leave_masks(paths, kinds, masks, notes)
    images = Counter(p[:-1] for p, kind in zip(paths, kinds, strict=True) if kind is not None)
    by_folder, layout = classes_of(images, places, label, notes)
    classes = [by_folder[p[:-1]] if kind is not None else None for p, kind in zip(paths, kinds, strict=True)]
    agree(kinds, classes, notes)
    split = rules.keys() - masks.keys() != {()}
    return Reading(
        kinds,
        classes,
        f"splits of {layout}" if split else layout,
        rules,
        left_out,
        known_by_split=len({kind for kind, _ in rules.values() if kind}) > 1 and not _by_top(tree, rules),
    )


def _how(tree: Tree, rules: Mapping[Parts, Rule], left_out: Iterable[Parts]) -> str:
    """How to pretrain on what was left out, where it does not look like a test split, nor holds one."""
    folders = ["/".join(f) for f in left_out if f and not any(kind_of(n) for n in (f[-1], *tree.children[f]))]
    splits = by_kind(rules)
    more = {**splits, "unlabelled": [*splits.get("unlabelled", []), *folders]}
    return f"; to pretrain on it, too: {typed(more)}" if folders else ""


def _left_out(tree: Tree, rules: Mapping[Parts, Rule]) -> dict[Parts, int]:
    """Images of no split, by the highest folder that holds no split."""
    above = {f[:k] for f, (kind, _) in rules.items() if kind for k in range(len(f))}
    out: Counter[Parts] = Counter()
    for folder, n in tree.direct.items():
        if n and _place(folder, rules)[1] is None:
            out[next((folder[:k] for k in range(len(folder) + 1) if folder[:k] not in above), folder)] += n
    return dict(sorted(out.items()))


def _by_top(tree: Tree, rules: Mapping[Parts, Rule]) -> bool:
    """Whether the names of the files alone say the split, by their first folder: as the first version read them."""
    plain = {"train", "training", "test", "testing", "val", "valid", "validation", "unlabelled", "unlabeled"}
    tops = tree.children[()]
    return (
        not tree.direct[()]
        and all(t.lower() in plain for t in tops)
        and {f for f, (kind, _) in rules.items() if kind} == {(t,) for t in tops}
        and any(t.lower() in ("train", "training") for t in tops)
    )


def _place(folder: Parts, rules: Mapping[Parts, Rule]) -> tuple[Parts, str | None, Parts]:
    """The folder of a rule that a folder lies in, its split, and what its class is read from."""
    at = next(folder[:k] for k in range(len(folder), -1, -1) if folder[:k] in rules)
    kind, kept = rules[at]
    return at, kind, kept + folder[len(at) :]


def _annotated(parts: Mapping[str, Files], rules: Mapping[Parts, Rule], root: str, notes: list[str]) -> None:
    """The labels of an unlabelled val or test split from the file beside its images, `val_annotations.txt` as Tiny ImageNet
    has it: a name and a class in each line."""
    classes = {c for c in parts["train"].classes if c is not None} if "train" in parts else set()
    for kind in ("val", "test"):
        files = parts.get(kind)
        if not classes or files is None or any(c is not None for c in files.classes):
            continue
        for folder in (f for f, (k, _) in rules.items() if k == kind):
            path = os.path.join(root, *folder, f"{kind}_annotations.txt")
            told = _pairs(path)
            found = [told.get(name.rpartition("/")[2]) for name in files.names]
            if any(c in classes for c in found):
                files.classes = [c if c in classes else None for c in found]
                n = sum(c is not None for c in files.classes)
                notes.append(f"{kind}: {count(n, 'label')} from {shown(os.path.relpath(path, root))}")


def _pairs(path: str) -> dict[str, str]:
    """The first two columns of a text file; {} where it cannot be read."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode) or about.st_size > ANNOTATIONS_BYTES:
            return {}
        with open(path, encoding="utf-8", errors="replace") as file:
            rows = [line.split("\t") if "\t" in line else line.split() for line in file]
    except OSError:
        return {}
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}


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
    if is_output(found.root, os.listdir(found.root)):
        hint = "this is a folder that sslcli wrote; of a pack: dataset=pack"
    elif other:
        hint = f"dataset={other} reads such files"
    elif found.archives:
        hint = str(unpacking(found.archives[0]))
    elif any(e in NEED_A_READER for e in seen):
        hint = "this Pillow does not read them; convert them to .jpg or .png"
    elif "no extension" in seen:
        hint = f"files of any name are read from a list of them: find {shown(found.root)} -type f > list.txt"
    else:
        hint = "dataset.path=FOLDER with .jpg, .png, .webp, .tif ... files"
    return DataError(sentence, hint)
