"""Which folders are splits: recognised by their names, below wrapper folders, beside other folders, or inside class folders.

The names are the words that people use, in any case and with a common rest: `train` and `test`, `Training` and
`Validation`, `seg_train` and `seg_test`, `train2017` and `val2017`, `train_images` and `test_images`.

`find` looks for, from the root down:

- a training split beside another one: these are the splits, and what else lies there is left out (with a warning);
- class folders (or images) beside `test`, `val` or `unlabelled`: the former are the training split;
- one folder alone, or one of several that holds splits: it is looked into. Where every folder holds splits
  (`CLASS/train`, `CLASS/test`), the folders above them are the classes.

Where two readings are likely, it raises a DataError that says what lies there and how to choose.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from sslcli.data.talk import count, shown
from sslcli.errors import DataError, RequestError, listing

Parts = tuple[str, ...]
Rule = tuple[str | None, Parts]  # of a folder: the split (None: left out), and what its classes begin with

KINDS = ("train", "test", "val", "unlabelled")
WORDS = {
    word: kind
    for kind, words in {
        "unlabelled": "unlabelled unlabeled unsup unsupervised",
        "test": "test testing tests testset eval evaluation holdout",
        "train": "train training trainset trainval trn labelled labeled",
        "val": "val valid validation valset dev",
    }.items()
    for word in words.split()
}
SURE = {"test", "testing", "val", "validation"}  # splits beside class folders even where there is no `train`
PLAIN = {"set", "images", "image", "img", "imgs", "data", "dataset", "split", "folder", "pictures", "photos"}
CONTAINERS = {
    "images",
    "image",
    "img",
    "imgs",
    "jpegimages",
    "jpeg",
    "jpg",
    "png",
    "photos",
    "pictures",
    "pics",
    "frames",
}
MASKS = {"mask", "masks", "label", "labels", "annotation", "annotations", "groundtruth", "gt", "segmentation"}
DEEP = 8  # folders within folders that are searched for splits


@cache
def tokens(name: str) -> tuple[str, ...]:
    """`TestImages_2017` -> `test`, `images`."""
    return tuple(re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).casefold()))


def kind_of(name: str) -> tuple[str, Parts] | None:
    """The split that a name says, and the rest of the name; None where it says none, or train and test at once."""
    words = tokens(name)
    kinds = {WORDS[w] for w in words if w in WORDS}
    if not kinds or {"train", "test"} <= kinds:
        return None
    kind = next(k for k in ("unlabelled", "test", "train", "val") if k in kinds)
    return kind, tuple(w for w in words if w not in WORDS and w not in PLAIN)


def split_of(text: str) -> str | None:
    """The split that a word means: `Validation` is val; None where it means none."""
    found = kind_of(text)
    return found[0] if found and not found[1] else None


def together(names: Iterable[str]) -> dict[str, str]:
    """Name -> kind of those that are splits of one set: their names have one rest. Training and another one, if possible."""
    by_rest: dict[Parts, dict[str, str]] = defaultdict(dict)
    for name in sorted(names):
        if found := kind_of(name):
            by_rest[found[1]][name] = found[0]

    def worth(rest: Parts) -> tuple[bool, bool, int]:
        kinds = set(by_rest[rest].values())
        return "train" in kinds and len(kinds) > 1, not rest, len(kinds)

    best = max(by_rest, key=worth, default=())
    return by_rest[best] if best in by_rest and (worth(best)[0] or not best) else {}


def is_container(name: str) -> bool:
    """A folder that says only that there are images in it."""
    return "".join(tokens(name)) in CONTAINERS


def typed(splits: Mapping[str, Any]) -> str:
    """`dataset.splits=...` as it is typed in a shell."""

    def word(text: str) -> str:
        return text if re.fullmatch(r"[\w./*-]+", text) else '"' + text.replace('"', '\\"') + '"'

    def value(v: Any) -> str:
        return word(v) if isinstance(v, str) else word(v[0]) if len(v) == 1 else f"[{', '.join(map(word, v))}]"

    return "'dataset.splits={" + ", ".join(f"{k}: {value(v)}" for k, v in splits.items()) + "}'"


class Tree:
    """The folders that hold images, with how many."""

    def __init__(self, folders: Mapping[Parts, int]):
        self.direct: Counter[Parts] = Counter(folders)
        self.total: Counter[Parts] = Counter()
        self.children: dict[Parts, set[str]] = defaultdict(set)
        for folder, n in folders.items():
            for k in range(len(folder) + 1):
                self.total[folder[:k]] += n
            for k in range(len(folder)):
                self.children[folder[:k]].add(folder[k])

    def without(self, folders: Iterable[Parts]) -> Tree:
        gone = set(folders)
        return Tree({d: n for d, n in self.direct.items() if not any(d[:k] in gone for k in range(len(d) + 1))})

    def masks(self) -> Iterator[Parts]:
        """Folders of masks: `masks` or `labels` beside `images`, `train_masks` beside `train`."""
        for folder, names in self.children.items():
            rests = {tokens(n) for n in names}
            images = any(is_container(n) for n in names)
            for name in names:
                words = tokens(name)
                rest = tuple(w for w in words if w not in MASKS)
                if (images and (not rest or "".join(words) in MASKS)) or (rest and rest != words and rest in rests):
                    yield *folder, name

    def named(self, folder: Parts, names: Iterable[str]) -> str:
        """`train/ (40 images), test/ (8 images)`."""
        some = (f"{shown('/'.join((*folder, n)))}/ ({count(self.total[*folder, n], 'image')})" for n in sorted(names))
        return listing(some, 6)


def find(tree: Tree, root: str, notes: list[str]) -> dict[Parts, Rule] | None:
    """Folder -> rule, the longest folder counts; None where there are no splits. DataError where it is unsure."""
    rules = _find(tree, (), (), False, 0, root, notes)
    if rules is None:
        return None
    for folder, (kind, kept) in list(rules.items()):
        inner = together(tree.children[folder]) if kind == "train" else {}
        if "train" in inner.values() and len(set(inner.values())) > 1:  # labelled/train, labelled/test
            rules |= {(*folder, n): (k, kept) for n, k in inner.items()}
    rules.setdefault((), (None, ()))
    return rules


def _find(
    tree: Tree, at: Parts, kept: Parts, sure: bool, depth: int, root: str, notes: list[str]
) -> dict[Parts, Rule] | None:
    """`sure`: only a training split beside another one will do."""
    names, loose = tree.children[at], tree.direct[at]
    own = together(names)
    kinds, others = set(own.values()), names - own.keys()
    splits: dict[Parts, Rule] = {(*at, n): (kind, kept) for n, kind in own.items()}
    if "train" in kinds and len(kinds) > 1:
        return splits
    if own and not sure:
        if "train" in kinds:
            if not (others or loose) or not any(tree.direct[p] for p in splits):
                return splits
            notes.append(f"warning: {_class_or_split(tree, at, own, others)}")
        elif found := _beside_classes(tree, at, own, others, root, notes):
            return found
    if depth == DEEP:
        return None
    if len(names) == 1 and not loose:
        return _find(tree, (*at, *names), kept, sure, depth + 1, root, notes)
    inside = {n: _find(tree, (*at, n), (*kept, n), True, depth + 1, root, notes) for n in sorted(names)}
    held = {n: rules for n, rules in inside.items() if rules}
    if not held:
        return None
    if len(held) == 1:  # a wrapper beside other folders: no class
        (rules,) = held.values()
        return {folder: (kind, kept + below[len(kept) + 1 :]) for folder, (kind, below) in rules.items()}
    some = listing((f"{shown(n)}/" for n in held), 4)
    first = "/".join((*at, next(iter(held))))
    notes.append(
        f"warning: {some} hold splits each: the splits of all are read together, and these folders are the classes; "
        f"to read one alone: dataset.path={shown(root)}/{shown(first)}"
    )
    return {folder: rule for rules in held.values() for folder, rule in rules.items()}


def _beside_classes(
    tree: Tree, at: Parts, own: dict[str, str], others: set[str], root: str, notes: list[str]
) -> dict[Parts, Rule] | None:
    """The rules where `test`, `val` or `unlabelled` lie beside class folders or images, without `train`."""
    kinds = set(own.values())
    splits: dict[Parts, Rule] = {(*at, n): (kind, ()) for n, kind in own.items()}
    if not (others or tree.direct[at]):
        if "unlabelled" in kinds:
            return splits
        if len(own) == 1:
            (name,) = own
            notes.append(f"warning: {shown(name)}/ is the only split: it is read as the training split")
            return None
        first, second = sorted(own, key=lambda n: own[n] != "val")[:2]
        raise DataError(
            f"no training split in {shown(root)}: there are {tree.named(at, own)}",
            f"to train on one of them: {typed({'train': '/'.join((*at, first)), 'test': '/'.join((*at, second))})}; "
            "dataset.splits=none reads every folder as a class",
        )
    likely = {
        n: k for n, k in own.items() if k == "unlabelled" or SURE & set(tokens(n)) or tree.children[*at, n] & others
    }
    if not likely:
        return None
    for name in (n for n, k in likely.items() if k != "unlabelled" and not tree.children[*at, n] & others):
        notes.append(
            f"warning: {shown(name)}/ is read as the {likely[name]} split, beside {tree.named(at, others) or 'images'}; "
            "dataset.splits=none reads every folder as a class"
        )
    return {at: ("train", ()), **{(*at, n): (k, ()) for n, k in likely.items()}}


def _class_or_split(tree: Tree, at: Parts, own: dict[str, str], others: set[str]) -> str:
    train = ["/".join((*at, n)) for n, kind in own.items() if kind == "train"]
    return (
        f"{tree.named(at, own)} is read as a class, like {tree.named(at, others) or 'a folder among images'}; if it is the "
        f"training split: {typed({'train': train})}"
    )


def chosen(tree: Tree, splits: Any, root: str) -> dict[Parts, Rule]:
    """The rules of `dataset.splits={train: FOLDER, test: [FOLDER, FOLDER], ...}`: paths below the root, with * for any name.
    RequestError for kinds that there are not, and for folders without images."""
    rules: dict[Parts, Rule] = {(): (None, ())}
    for name, value in splits.items():
        kind = split_of(str(name))
        if kind is None:
            raise RequestError(f"dataset.splits: {shown(str(name))} is no split", f"the splits are {', '.join(KINDS)}")
        for text in [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [None]:
            if not isinstance(text, str):
                raise RequestError(
                    f"dataset.splits: {name} must be a folder or a list of folders, not {shown(str(value))}",
                    typed({"train": "train", "test": "test"}),
                )
            pattern = tuple(p for p in text.replace("\\", "/").split("/") if p not in ("", "."))
            met = [f for f in tree.total if len(f) == len(pattern) and all(map(fnmatchcase, f, pattern))]
            if not met:
                there = tree.named((), tree.children[()]) or "no folder"
                raise RequestError(f"dataset.splits: no image in {shown(text)} of {shown(root)}", f"it holds {there}")
            for folder in met:  # what a pattern stands for may be a class
                rules[folder] = kind, tuple(f for f, p in zip(folder, pattern, strict=True) if set("*?[") & set(p))
    return rules


def require_sure(tree: Tree, rules: Mapping[Parts, Rule], left_out: Mapping[Parts, int], root: str) -> None:
    """DataError where more is left out than is read."""
    gone, split = sum(left_out.values()), [f for f, (kind, _) in rules.items() if kind]
    if gone <= tree.total[()] - gone:
        return
    some = listing((f"{shown('/'.join(f))}/ ({count(n, 'image')})" for f, n in left_out.items()), 4)
    found = listing((f"{shown('/'.join(f))}/ ({count(tree.total[f], 'image')})" for f in split), 4)
    raise DataError(
        f"{shown(root)} holds {found}, which look like splits, and more beside them: {some}",
        f"the splits alone: {typed(by_kind(rules))}; every folder as a class: dataset.splits=none",
    )


def by_kind(rules: Mapping[Parts, Rule]) -> dict[str, list[str]]:
    """Kind -> the folders of a split."""
    out: dict[str, list[str]] = {}
    for kind in KINDS:
        if folders := ["/".join(f) or "." for f, (k, _) in rules.items() if k == kind]:
            out[kind] = folders
    return out
