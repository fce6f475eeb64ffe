"""Classes by folder names, and matching class names between splits."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from sslcli.console import escape, plural
from sslcli.data.folders.split_folders import PathParts
from sslcli.data.folders.split_names import CONTAINERS, is_container, tokenize
from sslcli.errors import listing

Placement = tuple[
    PathParts, str | None, PathParts
]  # the folder of the split, the split (None: excluded), and the folders below it
SUFFIX = re.compile(r"(.+?)[ _.-]*(mask|masks|seg|segmentation|gt|label|labels)(_\d+)?", re.IGNORECASE)
FLAT = "flat"


def assign_classes(
    images: Mapping[PathParts, int], places: Mapping[PathParts, Placement], label: str | None, notes: list[str]
) -> tuple[dict[PathParts, str | None], str]:
    """Folder -> class, and the name of the layout, which is also noted. `images`: number of images in each folder; `places`:
    the placement of these and of empty folders."""
    groups: dict[tuple[str, PathParts], dict[PathParts, list[PathParts]]] = defaultdict(lambda: defaultdict(list))
    empty: dict[tuple[str, PathParts], set[PathParts]] = defaultdict(set)
    for folder, (at, kind, below) in places.items():
        if kind is not None:
            group = kind, at if folder[len(at) :] == below else ()  # splits inside class folders are read as one group
            if images.get(folder):
                groups[group][below].append(folder)
            else:
                empty[group].add(below)
    out: dict[PathParts, str | None] = {}
    layouts = []
    trained: dict[PathParts, int] = {}
    for group in sorted(groups):
        kind, at = group
        counts = {below: sum(images[f] for f in folders) for below, folders in groups[group].items()}
        root = _step_into(counts, empty[group])
        names = {below: _without_containers(below[len(root) :]) for below in counts}
        if _are_parts(rest[0] for rest in names.values() if rest):
            names = {below: _without_containers(rest[1:]) if len(rest) > 1 else () for below, rest in names.items()}
        for below, folders in groups[group].items():
            rest = names[below]
            cls = None if label == "none" or kind == "unlabelled" or not rest else rest[-1 if label == "parent" else 0]
            out |= dict.fromkeys(folders, cls)
        k = len(root)
        bare = {b[k] for b in empty[group] if len(b) == k + 1 and b[:k] == root} - {b[k] for b in counts if len(b) > k}
        layouts.append(_describe_layout(kind, at, counts, names, set() if kind == "unlabelled" else bare, label, notes))
        if kind == "train":
            trained |= {names[below]: n for below, n in counts.items()}
    if label in ("auto", None):
        _warn_repeated(trained, notes)
    return out, layouts[-1] if layouts else FLAT


def _without_containers(rest: PathParts) -> PathParts:
    """Strip trailing container folders: `cat/images` is `cat`."""
    while len(rest) > 1 and is_container(rest[-1]):
        rest = rest[:-1]
    return rest


def _are_parts(tops: Iterable[str]) -> bool:
    """Whether the names are numbered parts of one folder of images, such as `images_001` and `images_002`, not classes."""
    names = set(tops)
    words = {tokenize(n) for n in names}
    return len(names) > 1 and len(words) == 1 and bool(set(words.pop()) & (CONTAINERS | {"part", "batch", "chunk"}))


def _step_into(counts: Collection[PathParts], empty: set[PathParts]) -> PathParts:
    """The folder that holds the classes (or all images), below folders that hold only one folder."""
    root: PathParts = ()
    while True:
        k = len(root)
        tops = {folder[k] for folder in counts if len(folder) > k}
        if len(tops) != 1 or root in counts:
            return root
        (top,) = tops
        empty_beside = any(len(f) == k + 1 and f[:k] == root and f[k] != top for f in empty)
        if not CONTAINERS & set(tokenize(top)) and (empty_beside or (*root, top) in counts):
            return root  # a class: it holds images, or empty folders are beside it
        root = (*root, top)


def _describe_layout(
    kind: str,
    at: PathParts,
    counts: Mapping[PathParts, int],
    names: Mapping[PathParts, PathParts],
    bare: set[str],
    label: str | None,
    notes: list[str],
) -> str:
    """The name of the layout of a split, which is also noted."""
    where = "/".join(map(escape, at)) + ": " if at else f"{kind}: " if kind != "train" else ""
    total = sum(counts.values())
    which = -1 if label == "parent" else 0
    tops = {rest[which] for rest in names.values() if rest}
    if not tops:
        notes.append(f"{where}flat folder of {plural(total, 'image')}, no labels")
        return FLAT
    nested = any(len(rest) > 1 for rest in names.values())
    layout = "nested class folders" if nested else "class folders"
    text = f"{layout}: {plural(total, 'image')} of {plural(len(tops), 'class', 'classes')}"
    text += ("", " (the top folders)", " (the innermost folders)")[nested and 1 - which]
    loose = sum(n for below, n in counts.items() if not names[below])
    if loose:
        text += f"; {plural(loose, 'image')} beside them without labels"
    if bare:
        notes.append(
            f"warning: {where}{plural(len(bare), 'folder')} without images, no classes: {listing(map(escape, sorted(bare)), 5)}"
        )
    notes.append(where + text)
    if all(re.fullmatch(r"(19|20)\d\d([-_. ]?\d\d){0,2}", top) for top in tops):
        notes.append(
            f"warning: {where}the class names look like dates: dataset.label=none reads the images without labels"
        )
    return layout


def _warn_repeated(trained: Mapping[PathParts, int], notes: list[str]) -> None:
    """Warn where folders of the same names are below several top folders: these are probably the classes, and the top folders
    domains, cameras or days."""
    tops = sorted({rest[0] for rest in trained if rest})
    below: dict[str, set[str]] = defaultdict(set)
    for rest in trained:
        if len(rest) > 1 and not rest[-1].isdecimal():
            below[rest[-1]].add(rest[0])
    shared = sorted(name for name, parents in below.items() if len(parents) > 1)
    if len(tops) > 1 and 2 * len(shared) > len(below):
        notes.append(
            f"warning: folders of the same names ({listing(map(escape, shared), 4)}) are in several of "
            f"{listing(map(escape, tops), 4)}, which are read as the classes; if the inner folders are: dataset.label=parent"
        )


def exclude_masks(
    paths: Sequence[PathParts], kinds: list[str | None], folders: Mapping[PathParts, int], notes: list[str]
) -> None:
    """Exclude `x_mask.png` beside `x.png`, and add a note that also lists the excluded `folders` of masks."""
    candidates = [i for i, p in enumerate(paths) if kinds[i] and SUFFIX.fullmatch(_stem(p))]
    stems = {(p[:-1], _stem(p)) for p in paths} if candidates else set()
    masks = 0
    for i in candidates:
        match = SUFFIX.fullmatch(_stem(paths[i]))
        if match and (paths[i][:-1], match[1]) in stems:
            kinds[i] = None
            masks += 1
    excluded = [f"{escape('/'.join(f))}/ ({plural(n, 'image')})" for f, n in folders.items()]
    excluded += [f"{plural(masks, 'image')} named like another image with the suffix `mask`"] if masks else []
    if excluded:
        notes.append(
            f"warning: excluded as masks: {listing(excluded, 4)}; dataset.splits=none reads all of them as images"
        )


def _stem(path: PathParts) -> str:
    return path[-1].rpartition(".")[0]


def match_classes(kinds: Sequence[str | None], classes: list[str | None], notes: list[str]) -> None:
    """Match the classes of test and val to those of train: `cats` and `Cat` become `cat` where that is the only candidate. A
    single folder that is not a class of train (test/images) is no label."""
    by_kind: dict[str, Counter[str]] = {kind: Counter() for kind in ("train", "test", "val")}
    for kind, cls in zip(kinds, classes, strict=True):
        if kind in by_kind and cls is not None:
            by_kind[kind][cls] += 1
    train = set(by_kind["train"])
    alike: dict[str, list[str]] = defaultdict(list)
    for cls in sorted(train):
        alike[_normalize(cls)].append(cls)
    renamed: dict[str, dict[str, str | None]] = {}
    for kind in ("test", "val"):
        names_of_split = set(by_kind[kind])
        new: dict[str, str | None] = {}
        for cls in sorted(names_of_split - train):
            near = alike[_normalize(cls)]
            if len(near) == 1 and near[0] not in names_of_split and near[0] not in new.values():
                new[cls] = near[0]
        if new:
            notes.append(
                f"{kind}: " + listing((f"{escape(c)} is read as the class {escape(str(t))}" for c, t in new.items()), 4)
            )
        elif len(names_of_split) == 1 and not names_of_split & train and len(train) > 1:
            (only,) = names_of_split
            new[only] = None
            notes.append(f"{kind}: its only folder, {escape(only)}, is not a class of train: its images have no labels")
        renamed[kind] = new
    if any(renamed.values()):
        for i, kind in enumerate(kinds):
            if kind in renamed and (cls := classes[i]) is not None and cls in renamed[kind]:
                classes[i] = renamed[kind][cls]


def _normalize(name: str) -> str:
    """The name without case, punctuation and plural ending."""
    text = "".join(c for c in name.casefold() if c.isalnum())
    return text[:-2] if re.search(r"(ss|sh|ch|x)es$", text) else text[:-1] if re.search(r"[^s]s$", text) else text
