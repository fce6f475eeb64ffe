"""Interpret folder names: splits, containers of images, and masks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

SPLITS = ("train", "test", "val", "unlabelled")
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
UNAMBIGUOUS = {"test", "testing", "val", "validation"}  # read as splits beside class folders even without `train`
NEUTRAL = {"set", "images", "image", "img", "imgs", "data", "dataset", "split", "folder", "pictures", "photos"}
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
MASKS = {
    "mask",
    "masks",
    "label",
    "labels",
    "annotation",
    "annotations",
    "groundtruth",
    "gt",
    "segmentation",
    "segmentations",
    "trimaps",
}


@cache
def tokenize(name: str) -> tuple[str, ...]:
    """`TestImages_2017` -> `test`, `images`."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).casefold())
    return tuple(" ".join(words).replace("ground truth", "groundtruth").split())


def parse_split(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The split in a name, and the remaining words; None where it names no split, or both train and test."""
    words = tokenize(name)
    kinds = {WORDS[w] for w in words if w in WORDS}
    if not kinds or {"train", "test"} <= kinds:
        return None
    kind = next(k for k in ("unlabelled", "test", "train", "val") if k in kinds)
    return kind, tuple(w for w in words if w not in WORDS and w not in NEUTRAL)


def exact_split(text: str) -> str | None:
    """The split that a name denotes exactly: `Validation` is val; None for other names."""
    parsed = parse_split(text)
    return parsed[0] if parsed and not parsed[1] else None


def matching_splits(names: Iterable[str]) -> dict[str, str]:
    """Name -> split of those names that are splits of one set, with the same remaining words. Prefers a set with a training
    split and another split."""
    by_rest: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in sorted(names):
        if parsed := parse_split(name):
            by_rest[parsed[1]][name] = parsed[0]

    def worth(rest: tuple[str, ...]) -> tuple[bool, bool, int]:
        kinds = set(by_rest[rest].values())
        return "train" in kinds and len(kinds) > 1, not rest, len(kinds)

    best = max(by_rest, key=worth, default=())
    if best in by_rest and worth(best)[0]:
        return by_rest[best]
    every = {name: kind for parsed in by_rest.values() for name, kind in parsed.items()}
    if () in by_rest and "train" in every.values() and len(set(every.values())) > 1:  # train_mini beside val
        return every
    return by_rest.get((), {})


def is_container(name: str) -> bool:
    """Whether a name means only that a folder contains images."""
    return "".join(tokenize(name)) in CONTAINERS


def format_splits(splits: Mapping[str, Any]) -> str:
    """`dataset.splits=...`, quoted for a shell."""

    def word(text: str) -> str:
        return text if re.fullmatch(r"[\w./*-]+", text) else '"' + text.replace('"', '\\"') + '"'

    def value(v: Any) -> str:
        return word(v) if isinstance(v, str) else word(v[0]) if len(v) == 1 else f"[{', '.join(map(word, v))}]"

    return "'dataset.splits={" + ", ".join(f"{k}: {value(v)}" for k, v in splits.items()) + "}'"
