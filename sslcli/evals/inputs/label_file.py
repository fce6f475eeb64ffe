"""Labels from a CSV file: `labels=FILE.csv`, for example for a folder of unlabeled images and a hundred labels, or in addition to
those of the data set: `labels=all+FILE.csv`.

The header has `name` (or `path`) or `id`, `label`, and optionally `split`. Of a data set with a column of identifiers
(`dataset.id`), they are in the column of that name, else in the first one. A name is one of `Source.names` or a unique
suffix of its path (usually the file name); the extension may be omitted, and the folders common to all names may differ.
Ids are file names without extension if all of them match, else indices into the training split. Rows with an empty label
are ignored. The file replaces all training labels of the data set, or with `all+` those of the samples that it names.

The test samples are the first of these that applies:

1. the rows whose `split` is test, if there are any;
2. the test split of the data set, if it has labels; none of its samples may be named in the file;
3. the rows whose samples are in the (unlabeled) test split, which pretraining held out, if there are at least 50 and
   every class is among them and among the other rows;
4. a fifth of the rows, stratified by class, at least one per class; the sample of a class with a single label is a training
   sample, and a warning names the class. Pretraining may have seen these samples, without labels; the notes report this. If
   they are fewer than 50, `probe` and `knn` test every row, in cross-validation (`cross_validation.py`).
"""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sslcli.console import escape, format_override, plural
from sslcli.data.dataset import Dataset, Source
from sslcli.data.files.label_text import class_warnings
from sslcli.data.split import split
from sslcli.data.subset import Concat, Subset
from sslcli.errors import DataError, listing, nearest
from sslcli.evals.inputs.label_rows import Row, examples, find, of_windows, read
from sslcli.evals.inputs.label_subsets import Amount, check_two_classes, draw, predictable, several
from sslcli.runs import Record

HOLDOUT = 0.2
FEW = 50  # test samples; with fewer, the confidence interval of an accuracy is wide
OWN = "all+"  # before the name of the file: beside the labels of the data set


def is_file(labels: Any) -> bool:
    """Whether this value of `labels=` is a file name."""
    return isinstance(labels, str) and labels.strip().lower().endswith((".csv", ".tsv", ".txt"))


def apply_label_file(dataset: Dataset, labels: str) -> tuple[Dataset, list[str]]:
    """Replace the labels of a data set with those of a file, or with `all+FILE` add them; also return notes on the choice of test
    samples. `labels`: the value of `labels=`.

    `details["labels"]` of the result holds the file and the SHA-256 of its content; the fingerprint changes if the splits
    contain other samples. Raises RequestError if the file cannot be read, DataError if its content is invalid.
    """
    file, beside = labels.removeprefix(OWN), labels.startswith(OWN)
    column, rows, more, sha256 = read(file, dataset.classes, dataset.id)
    pool = dataset.train if dataset.test is None else Concat(dataset.train, dataset.test)
    n_train = len(dataset.train)
    rows, windows = (rows, []) if dataset.id is not None else of_windows(rows, pool, file)
    places = find(rows, column, pool, n_train, dataset, file)
    classes, y = class_indices(rows, dataset.classes, file)
    notes = [
        f"labels of {plural(len(rows), 'sample')} from {escape(file)}",
        *windows,
        *more,
        *class_warnings(classes, len(rows)),
    ]
    pool_labels = labels_of(pool)
    if dataset.classes and classes != dataset.classes:
        if beside:
            raise _foreign(rows, dataset.classes, file)
        pool_labels.fill_(-1)
        notes.append(
            f"warning: no label of {escape(file)} is a class of {dataset.name} ({listing(map(escape, dataset.classes), 5)}): the "
            "classes are those of the file"
        )
    known = pool_labels[places]
    if differ := int(((known >= 0) & (known != y)).sum()):
        notes.append(f"{plural(differ, 'label')} of {escape(file)} differ from the data set's own")
    others = pool_labels[:n_train].index_fill(0, places[places < n_train], -1)
    own = torch.nonzero(others >= 0).flatten()  # training samples that the file does not name
    if beside:
        notes.append(f"with the labels of {plural(len(own), 'other sample')} of {dataset.name}")
    elif len(own):
        partial = "warning: " if bool((pool_labels[:n_train] < 0).any()) else ""
        notes.append(
            f"{partial}the labels of {plural(len(own), 'other training sample')} of {dataset.name} are not used; "
            f"{format_override('labels', OWN + file)} adds those of the file to them"
        )

    has_test = bool((pool_labels[n_train:] >= 0).any())
    in_test = places >= n_train
    explicit = torch.tensor([row.split == "test" for row in rows])
    details = {**dataset.details, "labels": {"file": labels, "sha256": sha256}}
    if has_test and not explicit.any():
        if in_test.any():
            raise DataError(
                f"{escape(file)} names {plural(int(in_test.sum()), 'sample')} of the test split of {dataset.name}, "
                f"{examples(rows, in_test)}: their own labels measure",
                "leave these rows out, or say in a column `split` which rows train and which test",
            )
        train = copy.copy(dataset.train)
        train.labels = _scatter_labels(places, y, n_train, others if beside else None)
        notes.append(f"measured on the test split of {dataset.name}, with its own labels")
        return replace(dataset, train=train, classes=classes, details=details), notes

    if beside:
        places, y = torch.cat([places, own]), torch.cat([y, others[own]])
        in_test, explicit = (torch.cat([mask, torch.zeros(len(own), dtype=torch.bool)]) for mask in (in_test, explicit))
    test, how = explicit, "the rows whose split is test"
    groups = several(None if pool.groups is None else pool.groups[places])
    if not explicit.any():
        test, how = _choose_test_rows(y, in_test, classes, file, notes, groups)
    measured = [f"measured on {plural(int(test.sum()), 'labelled sample')}: {how}", *_seen(test & ~in_test)]
    if not explicit.any() and int(test.sum()) < FEW:  # `measured_notes` reports how each evaluator measures
        testable = predictable(y, groups)
        how = f"few labels: each of the {int(testable.sum()):,} is tested once, in stratified cross-validation"
        details["labels"] |= {"few": True, "split": measured, "folds": [how, *_seen(testable & ~in_test)]}
    else:
        notes += measured
    return _split_dataset(dataset, pool, places, y, test, classes, details), notes


def measured_notes(dataset: Dataset, cross_validated: bool) -> list[str]:
    """Where labels are few: what an evaluator measures on, in cross-validation or on the test split."""
    notes: list[str] = dataset.details.get("labels", {}).get("folds" if cross_validated else "split", [])
    return notes


def _seen(seen: Tensor) -> list[str]:
    n = int(seen.sum())
    return [f"{n:,} of these lie in the training split: pretraining may have seen them, without labels"] if n else []


def with_label_fingerprint(dataset: Dataset) -> Dataset:
    """Include the label file in the fingerprint of the data set: results depend on the labels, features do not."""
    sha256 = dataset.details.get("labels", {}).get("sha256")
    if sha256 is None:
        return dataset
    beside = " all" if dataset.details["labels"]["file"].startswith(OWN) else ""
    return replace(dataset, fingerprint=hashlib.sha256(f"{dataset.fingerprint} {sha256}{beside}".encode()).hexdigest())


def _choose_test_rows(
    y: Tensor, in_test: Tensor, names: tuple[str, ...], file: str, notes: list[str], groups: Tensor | None
) -> tuple[Tensor, str]:
    """Choose the test rows if neither the file nor the data set defines them: a mask (m,), and the reason. `groups` (m,), or None
    where samples have none: the recordings of windows, of which none is in both parts."""
    sizes = y.bincount(minlength=len(names))
    present = int((sizes > 0).sum())
    if int(in_test.sum()) >= FEW and all(len(y[part].unique()) == present for part in (in_test, ~in_test)):
        return in_test, "those in the test split that pretraining held out"
    check_two_classes(y, names, file)
    single = [escape(names[c]) for c in torch.nonzero(sizes == 1).flatten().tolist()]
    are = f"{listing(single, 5)} {'has' if len(single) == 1 else 'have'} a single label"
    if int((sizes > 1).sum()) < 2:
        raise DataError(
            f"{escape(file)}: {are}, and there is no labelled test split: two classes with two labels are needed to measure",
            "label another sample of each class, better ten of each; or say in a column `split` which rows test",
        )
    if single:
        notes.append(
            f"warning: {are} in {escape(file)}: used in training, not measured; label another sample of each such class"
        )
    rows = torch.nonzero(sizes[y] > 1).flatten()
    test = torch.zeros(len(y), dtype=torch.bool)
    if groups is not None and 1 < len(groups[rows].unique()) < len(rows):
        rows = _rows_of_shared_classes(y, rows, groups, names, file, notes)
        if several(groups[rows]) is None:
            test[rows] = True
            return test, "the only recording or group whose classes others have, too"
        test[rows[split(len(rows), HOLDOUT, 0, y[rows], groups[rows].tolist())[1]]] = True
        return (
            test,
            f"a {HOLDOUT:.0%} of {len(rows):,} in whole recordings or groups, as there is no labelled test split",
        )
    count = max(present - len(single), math.ceil(HOLDOUT * len(rows)))
    test[rows[draw(y[rows], Amount("count", count), 0, 0)]] = True
    return test, f"a stratified {HOLDOUT:.0%} of {len(rows):,}, as there is no labelled test split"


def _rows_of_shared_classes(
    y: Tensor, rows: Tensor, groups: Tensor, names: tuple[str, ...], file: str, notes: list[str]
) -> Tensor:
    """Those of `rows` whose groups have only classes that other groups have, too: what the other groups can predict."""
    alone = rows[~predictable(y[rows], groups[rows])]
    if not len(alone):
        return rows
    shared = rows[~torch.isin(groups[rows], groups[alone])]
    only = [escape(names[c]) for c in y[alone].unique().tolist()]
    one = f"all labelled samples of {listing(only, 5)} are of one group (recording, speaker)"
    if len(y[shared].unique()) < 2:
        raise DataError(
            f"{escape(file)}: {one}, and groups are held out whole: two classes that several groups have are needed to measure",
            "label samples of other groups; or pretrain with dataset.group=none, where a group may be in both parts",
        )
    notes.append(f"warning: {one} in {escape(file)}: used in training, not measured; label samples of other groups")
    return shared


def _split_dataset(
    dataset: Dataset,
    pool: Source,
    places: Tensor,
    y: Tensor,
    test: Tensor,
    classes: tuple[str, ...],
    details: Record,
) -> Dataset:
    """The data set whose test split is the rows of the mask `test`; they are removed from the training split."""
    labels = _scatter_labels(places, y, len(pool))
    member = torch.zeros(len(pool), dtype=torch.bool)
    member[: len(dataset.train)] = True
    member[places[~test]] = True
    member[places[test]] = False
    train_ids, test_ids = torch.nonzero(member).flatten(), places[test].sort().values
    h = hashlib.sha256(dataset.fingerprint.encode())
    for ids in (train_ids, test_ids):
        h.update(ids.numpy().tobytes() + b"|")
    return replace(
        dataset,
        train=Subset(pool, train_ids, labels[train_ids]),
        test=Subset(pool, test_ids, labels[test_ids]),
        unlabelled=dataset.pretrain,
        classes=classes,
        fingerprint=h.hexdigest(),
        details=details,
    )


def labels_of(source: Source) -> Tensor:
    """A copy of the labels (n,) int64 of a source, -1 for none."""
    n = len(source)
    return (
        torch.full((n,), -1, dtype=torch.int64) if source.labels is None else source.labels.to(torch.int64, copy=True)
    )


def _scatter_labels(places: Tensor, y: Tensor, n: int, others: Tensor | None = None) -> Tensor:
    labels = torch.full((n,), -1, dtype=torch.int64) if others is None else others
    labels[places] = y
    return labels


def class_indices(rows: list[Row], known: tuple[str, ...], file: str) -> tuple[tuple[str, ...], Tensor]:
    """Class names and the class index of each row. The names are the `known` classes; where there are none, or no label is one of
    them or has a similar spelling, those of the file, numbers sorted by value. DataError for a label that is none of the `known`
    classes otherwise."""
    labels_in_file = {row.label for row in rows}
    names = tuple(sorted(labels_in_file, key=lambda c: (0, int(c), c) if c.isdecimal() else (math.inf, 0, c)))
    foreign = labels_in_file - set(known)
    if known and (not foreign or foreign != labels_in_file or any(nearest(c, known) for c in foreign)):
        names = known
        if foreign:
            raise _foreign(rows, known, file)
    index = {c: i for i, c in enumerate(names)}
    return names, torch.tensor([index[row.label] for row in rows], dtype=torch.int64)


def _foreign(rows: list[Row], known: tuple[str, ...], file: str) -> DataError:
    """For labels that are none of the `known` classes."""
    foreign = sorted({row.label for row in rows} - set(known))
    close = nearest(foreign[0], known)
    line = next(row.line for row in rows if row.label == foreign[0])
    return DataError(
        f"{escape(file)}, line {line}: {escape(foreign[0])} is no class of this data set"
        + (f" (and {plural(len(foreign) - 1, 'other label')})" if len(foreign) > 1 else ""),
        (f"did you mean {escape(close)}? " if close else "") + f"the classes are {listing(map(escape, known))}",
    )
