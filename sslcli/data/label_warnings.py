"""What the labels of a data set do not allow: said before a training, and in every result measured on it."""

from __future__ import annotations

from sslcli.console import plural
from sslcli.data.dataset import Dataset, labeled_ids
from sslcli.data.notify import shown
from sslcli.errors import listing

# Where many files have few labels, or none yet: how to give them some (docs/guides/data.md).
HOW_TO_LABEL = (
    "labels=FILE.csv (name,label), or as dataset.path a list path,label,split, where any label may be missing"
)


def label_notes(dataset: Dataset) -> list[str]:
    """That nothing can be measured, which classes no training label has, and how many test samples have no label."""
    train, test = dataset.train, dataset.test
    trained = labeled_ids(train)
    if test is None or not len(trained):
        return []
    assert train.labels is not None
    known = labeled_ids(test)
    if not len(known):
        return [
            "warning: the test split has no labels: probe, knn and finetune cannot be measured; to give it some: "
            f"{HOW_TO_LABEL}"
        ]
    assert test.labels is not None
    notes = []
    y = test.labels[known]
    unseen = sorted(set(y.tolist()) - set(train.labels[trained].tolist()))
    if unseen:
        n = sum(int((y == c).sum()) for c in unseen)
        names = listing((shown(str(dataset.classes[c])) for c in unseen), 5)
        notes.append(
            f"warning: in the test split only: class {names}; these {plural(n, 'sample')} of {len(y):,} cannot be classified right"
        )
    if len(known) < len(test):
        notes.append(
            f"{len(test) - len(known):,} of {len(test):,} test samples have no label and are left out of the accuracy"
        )
    return notes


def data_warnings(dataset: Dataset) -> list[str]:
    """What a result measured on this data set has to say of it."""
    return [*(note for note in dataset.notes if note.startswith("warning:")), *label_notes(dataset)]
