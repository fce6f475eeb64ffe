"""Find split folders by their names, below wrapper folders, beside other folders, or inside class folders.

Common names are recognized in any letter case, with a common prefix or suffix: `train` and `test`, `Training` and
`Validation`, `seg_train` and `seg_test`, `train2017` and `val2017`, `train_images` and `test_images`.

`find_splits` searches, from the root down, for:

- a training split beside another split: these are the splits, and other folders beside them are excluded (with a warning);
- class folders (or images) beside `test`, `val` or `unlabelled`: the former are the training split;
- a single folder, or the only one of several that contains splits: it is descended into. Where every folder contains splits
  (`CLASS/train`, `CLASS/test`), these folders are the classes.

Where two interpretations are plausible, it raises a DataError that describes both and how to choose.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from sslcli.console import escape, format_override, plural
from sslcli.data.folders.split_names import (
    CONTAINERS,
    MASKS,
    SPLITS,
    UNAMBIGUOUS,
    exact_split,
    format_splits,
    is_container,
    matching_splits,
    tokenize,
)
from sslcli.errors import DataError, RequestError, listing

PathParts = tuple[str, ...]
SplitRule = tuple[str | None, PathParts]  # the split of a folder (None: excluded), and the path prefix of its classes

MAX_DEPTH = 8  # levels of folders that are searched for splits


class FolderTree:
    """The tree of folders that hold images, with the number of images in each."""

    def __init__(self, folders: Mapping[PathParts, int]):
        self.direct: Counter[PathParts] = Counter(folders)
        self.total: Counter[PathParts] = Counter()
        self.children: dict[PathParts, set[str]] = defaultdict(set)
        for folder, n in folders.items():
            for k in range(len(folder) + 1):
                self.total[folder[:k]] += n
            for k in range(len(folder)):
                self.children[folder[:k]].add(folder[k])

    def without(self, folders: Iterable[PathParts]) -> FolderTree:
        gone = set(folders)
        return FolderTree({d: n for d, n in self.direct.items() if not any(d[:k] in gone for k in range(len(d) + 1))})

    def masks(self) -> Iterator[PathParts]:
        """Folders of segmentation masks: `masks` or `labels` beside `images`, `train_masks` beside `train`, `gtFine` beside
        `leftImg8bit`, but not classes such as `mask` and `no_mask`."""
        for folder, names in list(self.children.items()):
            plain = {n: tokenize(n) for n in names if not MASKS & set(tokenize(n))}
            for name in names - plain.keys():
                rest, path = tuple(w for w in tokenize(name) if w not in MASKS), (*folder, name)
                for other, words in plain.items():
                    sibling = (*folder, other)
                    if (
                        (is_container(other) and not rest)
                        or (rest == words and (is_container(other) or exact_split(other)))
                        or (rest == words and self.total[path] == self.total[sibling])
                        or (
                            CONTAINERS & set(words)
                            and self.children[path]
                            and self.children[path] == self.children[sibling]
                        )
                    ):
                        yield path
                        break

    def named(self, folder: PathParts, names: Iterable[str]) -> str:
        """`train/ (40 images), test/ (8 images)`."""
        examples = (
            f"{escape('/'.join((*folder, n)))}/ ({plural(self.total[*folder, n], 'image')})" for n in sorted(names)
        )
        return listing(examples, 6)


def find_splits(tree: FolderTree, root: str, notes: list[str]) -> dict[PathParts, SplitRule] | None:
    """Folder -> rule, where the rule of the deepest folder applies; None where there are no splits. Raises DataError where the
    splits are ambiguous."""
    rules = _find(tree, (), (), False, 0, root, notes)
    if rules is None:
        return None
    for folder, (kind, prefix) in list(rules.items()):
        inner = matching_splits(tree.children[folder]) if kind == "train" else {}
        if "train" in inner.values() and len(set(inner.values())) > 1:  # labelled/train, labelled/test
            rules |= {folder: (None, ()), **{(*folder, n): (k, prefix) for n, k in inner.items()}}
    rules.setdefault((), (None, ()))
    return rules


def _find(
    tree: FolderTree, at: PathParts, prefix: PathParts, sure: bool, depth: int, root: str, notes: list[str]
) -> dict[PathParts, SplitRule] | None:
    """`sure`: accept only a training split beside another split."""
    names, loose = tree.children[at], tree.direct[at]
    named = matching_splits(names)
    kinds, others = set(named.values()), names - named.keys()
    splits: dict[PathParts, SplitRule] = {(*at, n): (kind, prefix) for n, kind in named.items()}
    if "train" in kinds and len(kinds) > 1:
        return splits
    if named and not sure:
        if "train" in kinds:
            if not (others or loose) or not any(tree.direct[p] for p in splits):
                return splits
            notes.append(f"warning: {_class_or_split(tree, at, named, others)}")
        elif rules := _beside_classes(tree, at, named, others, root, notes):
            return rules
    if depth == MAX_DEPTH:
        return None
    if len(names) == 1 and not loose:
        return _find(tree, (*at, *names), prefix, sure, depth + 1, root, notes)
    inside = {n: _find(tree, (*at, n), (*prefix, n), True, depth + 1, root, notes) for n in sorted(names)}
    with_splits = {n: rules for n, rules in inside.items() if rules}
    if not with_splits:
        return None
    if len(with_splits) == 1:  # a wrapper beside other folders, not a class
        (rules,) = with_splits.values()
        return {folder: (kind, prefix + below[len(prefix) + 1 :]) for folder, (kind, below) in rules.items()}
    rules = {folder: rule for inner in with_splits.values() for folder, rule in inner.items()}
    if any(not is_container(n) for folder in rules for n in tree.children[folder]):
        examples = listing((f"{escape(n)}/" for n in with_splits), 4)
        first = "/".join((*at, next(iter(with_splits))))
        by_split = {
            kind: list(
                dict.fromkeys("/".join((*at, "*", *f[len(at) + 1 :])) for f, (k, _) in rules.items() if k == kind)
            )
            for kind in SPLITS
            if kind in {k for k, _ in rules.values()}
        }
        raise DataError(
            f"{examples} in {escape('/'.join((root, *at)))} each contain splits with class folders: "
            "these may be domains, folds or data sets",
            f"to read one of them: {format_override('dataset.path', f'{root}/{first}')}; "
            f"to read all: {format_splits(by_split)}, with dataset.label=parent for the inner classes",
        )
    return rules


def _beside_classes(
    tree: FolderTree, at: PathParts, named: dict[str, str], others: set[str], root: str, notes: list[str]
) -> dict[PathParts, SplitRule] | None:
    """The rules where `test`, `val` or `unlabelled` are beside class folders or images, without `train`."""
    kinds = set(named.values())
    splits: dict[PathParts, SplitRule] = {(*at, n): (kind, ()) for n, kind in named.items()}
    if not (others or tree.direct[at]):
        if "unlabelled" in kinds:
            return splits
        if len(named) == 1:
            (name,) = named
            notes.append(f"warning: {escape(name)}/ is the only split and is read as the training split")
            return {(*at, name): ("train", ())}
        first, second = sorted(named, key=lambda n: named[n] != "val")[:2]
        raise DataError(
            f"no training split in {escape(root)}, only {tree.named(at, named)}",
            f"to train on one of them: {format_splits({'train': '/'.join((*at, first)), 'test': '/'.join((*at, second))})}; "
            "dataset.splits=none reads every folder as a class",
        )
    plausible = {
        n: k
        for n, k in named.items()
        if k == "unlabelled" or UNAMBIGUOUS & set(tokenize(n)) or tree.children[*at, n] & others
    }
    if not plausible:
        return None
    for name in (n for n, k in plausible.items() if k != "unlabelled" and not tree.children[*at, n] & others):
        notes.append(
            f"warning: {escape(name)}/ is read as the {plausible[name]} split, beside {tree.named(at, others) or 'images'}; "
            "dataset.splits=none reads every folder as a class"
        )
    return {at: ("train", ()), **{(*at, n): (k, ()) for n, k in plausible.items()}}


def _class_or_split(tree: FolderTree, at: PathParts, named: dict[str, str], others: set[str]) -> str:
    train = ["/".join((*at, n)) for n, kind in named.items() if kind == "train"]
    return (
        f"{tree.named(at, named)} is read as a class, as is {tree.named(at, others) or 'a folder among images'}; if it is the "
        f"training split: {format_splits({'train': train})}"
    )


def explicit_splits(tree: FolderTree, splits: Any, root: str) -> dict[PathParts, SplitRule]:
    """The rules of `dataset.splits={train: FOLDER, test: [FOLDER, FOLDER], ...}`: paths below the root, in which * matches any
    name. Raises RequestError for unknown splits and for folders without images."""
    rules: dict[PathParts, SplitRule] = {(): (None, ())}
    for name, value in splits.items():
        kind = exact_split(str(name))
        if kind is None:
            raise RequestError(
                f"dataset.splits: unknown split {escape(str(name))}", f"the splits are {', '.join(SPLITS)}"
            )
        for text in [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [None]:
            if not isinstance(text, str):
                raise RequestError(
                    f"dataset.splits: expected a folder or a list of folders for {name}, got {escape(str(value))}",
                    format_splits({"train": "train", "test": "test"}),
                )
            pattern = tuple(p for p in text.replace("\\", "/").split("/") if p not in ("", "."))
            matches = [f for f in tree.total if len(f) == len(pattern) and all(map(fnmatchcase, f, pattern))]
            if not matches:
                available = tree.named((), tree.children[()]) or "no folder"
                raise RequestError(
                    f"dataset.splits: no image in {escape(text)} of {escape(root)}", f"it contains {available}"
                )
            for folder in matches:  # a name matched by a pattern may be a class
                rules[folder] = kind, tuple(f for f, p in zip(folder, pattern, strict=True) if set("*?[") & set(p))
    return rules


def require_unambiguous(
    tree: FolderTree, rules: Mapping[PathParts, SplitRule], left_out: Mapping[PathParts, int], root: str
) -> None:
    """Raises DataError where more images are excluded than read."""
    gone, split = sum(left_out.values()), [f for f, (kind, _) in rules.items() if kind]
    if gone <= tree.total[()] - gone:
        return
    examples = listing((f"{escape('/'.join(f))}/ ({plural(n, 'image')})" for f, n in left_out.items()), 4)
    used = listing((f"{escape('/'.join(f))}/ ({plural(tree.total[f], 'image')})" for f in split), 4)
    raise DataError(
        f"{escape(root)} contains {used}, which look like splits, and more images beside them: {examples}",
        f"to read the splits only: {format_splits(group_by_split(rules))}; to read every folder as a class: dataset.splits=none",
    )


def group_by_split(rules: Mapping[PathParts, SplitRule]) -> dict[str, list[str]]:
    """Split -> its folders."""
    out: dict[str, list[str]] = {}
    for kind in SPLITS:
        if folders := ["/".join(f) or "." for f, (k, _) in rules.items() if k == kind]:
            out[kind] = folders
    return out


def is_explicit(splits: object) -> bool:
    """Whether `dataset.splits` is a mapping of splits to folders."""
    return isinstance(splits, Mapping)


def check_splits(splits: object) -> None:
    """Raises RequestError unless `dataset.splits` is auto, none or a mapping."""
    if splits not in ("auto", "none", None) and not (is_explicit(splits) and splits):
        raise RequestError(
            f"dataset.splits: expected auto, none or a mapping of splits to folders, got {splits}",
            format_splits({"train": "train", "test": "test"}),
        )
