"""Warnings about the labels of a data set, reported before training and with every result measured on it."""

from __future__ import annotations

from sslcli.console import escape, plural
from sslcli.data.dataset import Dataset, labeled_ids
from sslcli.errors import listing

# How to supply labels for some or all files (docs/guides/data.md).
HOW_TO_LABEL = (
    "labels=FILE.csv (columns name,label), or dataset.path=FILE.csv (columns path,label,split); labels may be missing"
)


def label_notes(dataset: Dataset) -> list[str]:
    """Notes on test samples without labels, and on classes that occur in the test split only."""
    if dataset.task != "classes":
        return []
    train, test = dataset.train, dataset.test
    trained = labeled_ids(train)
    if test is None or not len(trained):
        return []
    assert train.labels is not None
    labeled = labeled_ids(test)
    if not len(labeled):
        return [
            "warning: the test split has no labels, which probe, knn and finetune require; to supply them: "
            f"{HOW_TO_LABEL}"
        ]
    assert test.labels is not None
    notes = []
    y = test.labels[labeled]
    unseen = sorted(set(y.tolist()) - set(train.labels[trained].tolist()))
    if unseen:
        n = sum(int((y == c).sum()) for c in unseen)
        names = listing((escape(str(dataset.classes[c])) for c in unseen), 5)
        notes.append(
            f"warning: class {names} occurs in the test split only: "
            f"its {plural(n, 'sample')} of {len(y):,} cannot be classified correctly from training labels"
        )
    if len(labeled) < len(test):
        notes.append(
            f"{len(test) - len(labeled):,} of {len(test):,} test samples have no label and do not count for the accuracy"
        )
    return notes


def held_out_notes(dataset: Dataset) -> list[str]:
    """A note where there is no test split, which is true for evaluators that test samples."""
    if dataset.test is not None:
        return []
    return [f"no samples are held out: all {len(dataset.train):,} are evaluated, and pretraining may have read them"]


def data_warnings(dataset: Dataset) -> list[str]:
    """The warnings that accompany a result measured on this data set."""
    return [*(note for note in dataset.notes if note.startswith("warning:")), *label_notes(dataset)]
