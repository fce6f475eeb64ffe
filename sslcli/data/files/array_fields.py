"""Assign named arrays to the samples and labels of each split, and make sources of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, format_override, plural
from sslcli.data.dataset import ArraySource
from sslcli.data.files.label_text import LabelParser, class_warnings, normalize_numbers
from sslcli.data.split import AUTO_FRACTION, NOTHING_HELD_OUT, split_hash
from sslcli.data.storage import Dense, Storage
from sslcli.errors import DataError, RequestError, listing, nearest

# Names of entries, in order of preference.
WHOLE_X = ("x", "data", "images", "image", "samples", "arr_0")  # the last one: np.savez(FILE, x, y)
WHOLE_Y = ("y", "labels", "label", "targets", "target", "arr_1")
PARTS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval"),
    "val": ("val", "valid", "validation", "dev"),
    "unlabelled": ("unlabelled", "unlabeled", "unsup"),
}
COMPARED_BYTES = 2 << 30  # larger data is not searched for duplicates


class ArrayFields:
    """The arrays by split (train, test, unlabelled): `x` holds (entry name, samples), `y` the labels."""

    def __init__(self) -> None:
        self.x: dict[str, tuple[str, np.ndarray]] = {}
        self.y: dict[str, np.ndarray] = {}
        self.used: set[str] = set()

    def rename(self, old: str, new: str) -> None:
        """Let the split `old` take the place of the split `new`."""
        self.x[new] = self.x.pop(old)
        self.y.pop(new, None)
        if old in self.y:
            self.y[new] = self.y.pop(old)


def _spellings(words: tuple[str, ...], part: str) -> list[str]:
    return [f"{w}_{p}" for p in PARTS[part] for w in words] + [f"{p}_{w}" for p in PARTS[part] for w in words]


def assign_fields(entries: Mapping[str, np.ndarray], label: str | None, path: str, notes: list[str]) -> ArrayFields:
    """Find the samples and labels of each split by their names: train, test (of test and val, the one that has labels) and
    unlabelled.

    Raises DataError where there are no samples, RequestError where `label` is not an entry.
    """
    by_lower = {k.lower(): k for k in entries}
    fields = ArrayFields()

    def pick(names: list[str] | tuple[str, ...]) -> str | None:
        return next((by_lower[n] for n in names if n in by_lower), None)

    for part in PARTS:
        key = pick([*_spellings(WHOLE_X, part), *PARTS[part]])
        if key is None and part == "train":
            key = pick(WHOLE_X)
            if key is None and len(entries) == 1:
                key = next(iter(entries))
        if key is None:
            continue
        fields.x[part] = key, entries[key]
        fields.used.add(key)
        if label == "none" or part == "unlabelled":
            continue
        if label in ("auto", None):
            y = pick(_spellings(WHOLE_Y, part)) or (pick(WHOLE_Y) if part == "train" else None)
        else:
            y = pick([f"{label}_{p}".lower() for p in PARTS[part]] + [f"{p}_{label}".lower() for p in PARTS[part]])
            y = y or (pick([str(label).lower()]) if part == "train" else None)
        if y is not None:
            fields.y[part] = entries[y]
            fields.used.add(y)
    if "train" not in fields.x:
        if "unlabelled" not in fields.x:
            raise DataError(
                f"no samples in {escape(path)}: its entries are {listing(map(escape, entries), 8) or 'none'}",
                "name them x and y, or x_train, y_train, x_test and y_test",
            )
        fields.x["train"] = fields.x.pop("unlabelled")
    if label not in ("auto", "none", None) and not fields.y:
        close = nearest(str(label), entries)
        raise RequestError(
            f"dataset.label={escape(str(label))} is not an entry of {escape(path)}",
            f"did you mean {format_override('dataset.label', close)} ?"
            if close
            else f"entries: {listing(map(escape, entries))}",
        )
    if "val" in fields.x:
        if "test" not in fields.x:
            fields.rename("val", "test")
        elif "val" in fields.y and "test" not in fields.y:
            notes.append(
                f"warning: test: {plural(len(fields.x['test'][1]), 'sample')} not used, because it has no labels; "
                "val is the held-out split"
            )
            fields.rename("val", "test")
        else:
            notes.append(f"val: {plural(len(fields.x['val'][1]), 'sample')} not used, because there is a test split")
        fields.x.pop("val", None)
        fields.y.pop("val", None)
    return fields


@dataclass(frozen=True)
class Targets:
    """What the samples of each split are to be predicted as: classes, with `labels` (n,) int64, or `values` (n,) float64, NaN where
    a sample has none."""

    task: Literal["classes", "value"]
    classes: tuple[str, ...] = ()
    labels: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """All labels and values, for fingerprints."""
        return [*self.labels.values(), *self.values.values()]

    def select(self, rows: Mapping[str, Tensor]) -> Targets:
        """Those of other samples: sample i of a split has the target of the former sample `rows[split][i]`."""
        chosen = ({part: y[rows[part]] for part, y in targets.items()} for targets in (self.labels, self.values))
        return Targets(self.task, self.classes, *chosen)

    def holdout(self, wish: float | str) -> float | str:
        """`dataset.holdout`, where auto is a fifth if there are values, as if there are labels."""
        known = any(bool((~v.isnan()).any()) for v in self.values.values())
        return AUTO_FRACTION if wish == "auto" and known else wish


def check_task(task: str) -> None:
    """RequestError unless `dataset.task` is auto, classes or value."""
    if task not in ("auto", "classes", "value"):
        raise RequestError(f"dataset.task: expected auto, classes or value, got {escape(task)}", "dataset.task=value")


def encode_targets(
    raw: Mapping[str, np.ndarray], lengths: Mapping[str, int], task: str, path: str, notes: list[str]
) -> Targets:
    """The targets of the splits. `task`: classes, value (numbers to predict), or auto: value for numbers with fractions.

    Raises DataError as `encode_labels` does, and for values that are not finite numbers."""
    arrays = {part: _one_column(np.asarray(y)) for part, y in raw.items()}
    measured = any(y.dtype.kind == "f" and bool((np.mod(y[np.isfinite(y)], 1) != 0).any()) for y in arrays.values())
    if not arrays or task == "classes" or (task == "auto" and not measured):
        return Targets("classes", *encode_labels(raw, lengths, path, notes))
    values = {}
    for part, y in arrays.items():
        if y.shape != (lengths[part],):
            raise DataError(
                f"values of {escape(path)} ({part}) have the shape {y.shape}; expected one for each of {lengths[part]:,} samples"
            )
        if y.dtype.kind not in "uifb" or np.isinf(y.astype(np.float64)).any():
            raise DataError(
                f"values of {escape(path)} ({part}) are not finite numbers; use NaN for missing ones",
                "dataset.task=classes, or dataset.label=none, which trains without them",
            )
        values[part] = torch.from_numpy(y.astype(np.float64))
    every = torch.cat(list(values.values()))
    known = every[~every.isnan()]
    if not len(known):
        raise DataError(f"all values of {escape(path)} are missing", "dataset.label=none trains without them")
    missing = f"; {len(every) - len(known):,} missing" if len(known) < len(every) else ""
    notes.append(
        f"{plural(len(known), 'value')} to predict, {float(known.min()):g}..{float(known.max()):g}{missing} (dataset.task)"
    )
    return Targets("value", values=values)


def _one_column(y: np.ndarray) -> np.ndarray:
    return y.reshape(len(y)) if y.ndim == 2 and y.shape[1] == 1 else y


def encode_labels(
    raw: Mapping[str, np.ndarray], lengths: Mapping[str, int], path: str, notes: list[str]
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Sorted class names (numbers by value), and int64 labels for each split. NaN, negative numbers, "" and the words for
    missing values (`label_text.py`) mean no label; labels that are only -1 and 1 are two classes.

    Raises DataError where the numbers of labels and samples differ, or where labels are not classes.
    """
    columns: dict[str, list[str | None]] = {}
    numeric, cells, negative = True, LabelParser(), 0
    # labels of -1 and 1: the only non-negative value is 1 class
    signs = len({v for y in raw.values() if np.asarray(y).dtype.kind == "i" for v in np.unique(y) if v >= 0}) == 1
    for part, y in raw.items():
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] > 1 and np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all():
            y = y.argmax(1)  # one-hot
        y = y.reshape(len(y)) if y.ndim == 2 and y.shape[1] == 1 else y
        if y.ndim != 1:
            raise DataError(
                f"labels of {escape(path)} ({part}) have the shape {y.shape}; expected one label for each sample"
            )
        if len(y) != lengths[part]:
            raise DataError(f"{escape(path)} has {lengths[part]:,} samples but {len(y):,} labels ({part})")
        if y.dtype.kind == "f":
            whole = y[~np.isnan(y)]
            if not (np.isfinite(whole).all() and np.equal(np.mod(whole, 1), 0).all()):
                raise DataError(
                    f"labels of {escape(path)} ({part}) are not integers; expected classes",
                    "dataset.task=value predicts numbers; dataset.label=none trains without labels",
                )
            columns[part] = [None if np.isnan(v) else str(int(v)) for v in y.tolist()]
        elif y.dtype.kind in "iub":
            columns[part] = [None if v < 0 and not signs else str(int(v)) for v in y.tolist()]
            negative += columns[part].count(None)
        elif y.dtype.kind in "US":
            numeric = False
            texts = (v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in y.tolist())
            columns[part] = normalize_numbers([cells.label(text) for text in texts])
        else:
            raise DataError(f"labels of {escape(path)} ({part}) have the type {y.dtype}; expected integers or strings")
    notes += cells.notes()
    if negative:
        notes.append(f"{plural(negative, 'label')} below 0 read as missing")
    names = {v for column in columns.values() for v in column if v is not None}
    numeric = numeric or all(n.removeprefix("-").isdecimal() for n in names)
    classes = tuple(sorted(names, key=lambda n: (int(n), n)) if numeric else sorted(names))
    index = {c: i for i, c in enumerate(classes)}
    return classes, {
        part: torch.tensor([-1 if v is None else index[v] for v in column], dtype=torch.int64)
        for part, column in columns.items()
    }


def make_sources(
    parts: Mapping[str, Tensor | Storage],
    targets: Targets,
    hold_out: Callable[[], tuple[Tensor, Tensor, str]],
    notes: list[str],
    groups: Mapping[str, Tensor] | None = None,
    spans: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """The fields `train`, `test`, `unlabelled` and `split` of a Dataset. Where there is no test split, `hold_out` divides the
    training samples and returns training ids, held-out ids and a description. `groups`, `spans`: those of `Source`, of each
    split. Adds notes on the classes and on the held-out split."""
    classes, labels, values = targets.classes, targets.labels, targets.values
    names = listing(map(escape, classes), 6)
    if targets.task == "classes":
        notes.append(f"{plural(len(classes), 'class', 'classes')}: {names}" if classes else "no labels")
    notes += class_warnings(classes, sum(int((y >= 0).sum()) for y in labels.values()))
    groups = groups or {}
    named = {part: {"value": v} for part, v in values.items()}
    built = {
        part: ArraySource(x, labels.get(part), groups=groups.get(part), targets=named.get(part))
        for part, x in parts.items()
    }
    for part, of_part in (spans or {}).items():
        built[part].spans = of_part
    digest = ""
    if "test" not in built:
        x, y, g = parts["train"], labels.get("train"), groups.get("train")
        train_ids, held_ids, how = hold_out()
        where = built["train"].spans
        digest = split_hash(held_ids)
        notes.append(
            f"held out: {plural(len(held_ids), 'sample')} of {len(x):,}, {how}" if len(held_ids) else NOTHING_HELD_OUT
        )
        if len(held_ids):
            for part, ids in (("train", train_ids), ("test", held_ids)):
                own = {name: v[ids] for name, v in named.get("train", {}).items()}
                groups_of = None if g is None else g[ids]
                chosen = x[ids] if isinstance(x, Tensor) else x.select(ids)
                built[part] = ArraySource(chosen, None if y is None else y[ids], groups=groups_of, targets=own)
                built[part].spans = None if where is None else where[ids]
    if "test" in built:
        train, test = (built[part].storage for part in ("train", "test"))
        if isinstance(train, Dense) and isinstance(test, Dense):
            _warn_equal_rows(train.tensor, test.tensor, notes)
    return {**{part: built.get(part) for part in ("train", "test", "unlabelled")}, "split": digest}


def _warn_equal_rows(train: Tensor, test: Tensor, notes: list[str]) -> None:
    if (train.numel() + test.numel()) * train.element_size() > COMPARED_BYTES:
        return
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        return
    hashes = {hash(r.tobytes()) for part in train.split(4096) for r in part.contiguous().numpy()}
    duplicates = sum(hash(r.tobytes()) in hashes for part in test.split(4096) for r in part.contiguous().numpy())
    if duplicates:
        notes.append(
            f"warning: {plural(duplicates, 'test sample')} also in train (same values): metrics will be too optimistic"
        )
