"""Splits and labels of a data set of files, such as images and clips."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.folders.contents import FileList, FolderContents
from sslcli.data.split import NOTHING_HELD_OUT, split, split_hash
from sslcli.errors import DataError


def select_splits(
    contents: FolderContents, label: str | None, holdout: float | str, notes: list[str]
) -> dict[str, FileList]:
    """The files of train, test (test or val, whichever has labels) and unlabelled. Raises DataError without training images."""
    parts = {kind: files for kind, files in contents.parts.items() if files}
    if label == "none":
        for files in parts.values():
            files.classes = [None] * len(files)
    if "train" not in parts and "unlabelled" in parts:
        parts["train"] = parts.pop("unlabelled")
    if "train" not in parts:
        raise DataError(f"no image of {escape(contents.root)} is left to train on")
    unused = {kind: parts.pop(kind) for kind in ("test", "val") if kind in parts}
    held_out = next((kind for kind, files in unused.items() if any(files.classes)), None)
    unsupervised = len(set(parts["train"].classes) - {None}) < 2
    if held_out is None and (contents.explicit_splits or holdout == 0 or unsupervised):
        held_out = next(iter(unused), None)  # labels are not required
    if held_out is not None:
        parts["test"] = unused.pop(held_out)
    for kind, files in unused.items():
        text = f"{kind}: {plural(len(files), 'image')} not used, because "
        if held_out and (any(files.classes) or not any(parts["test"].classes)):
            notes.append(f"{text}{held_out} is the held-out split")
        else:
            instead = f"; {held_out} is the held-out split" if held_out else ""
            notes.append(f"warning: {text}they have no labels{instead}")
    return {kind: parts[kind] for kind in ("train", "test", "unlabelled") if kind in parts}


def hold_out(
    parts: dict[str, FileList], classes: tuple[str, ...], holdout: float | str, split_seed: int, notes: list[str]
) -> str:
    """Split `train` where there is no `test`. Returns the hash of the split, "" where `test` exists."""
    train = parts["train"]
    if "test" in parts:
        return ""
    train_ids, held_ids = split(len(train), holdout, split_seed, encode_classes(train, classes), train.groups)
    if len(held_ids):
        rule = "by group" if train.groups else "stratified by class" if classes else "at random"
        notes.append(f"held out: {plural(len(held_ids), 'image')} of {len(train):,}, {rule}")
        parts["test"], parts["train"] = train.take(held_ids.tolist()), train.take(train_ids.tolist())
    else:
        notes.append(NOTHING_HELD_OUT)
    return split_hash(held_ids)


def encode_classes(files: FileList, classes: tuple[str, ...]) -> Tensor | None:
    """(n,) int64 class ids, -1 without a label; None where no file has a label."""
    if not classes or not any(c is not None for c in files.classes):
        return None
    index: dict[str | None, int] = {c: i for i, c in enumerate(classes)}
    return torch.tensor([index.get(c, -1) for c in files.classes], dtype=torch.int64)
