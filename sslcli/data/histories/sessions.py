"""Generated sessions: users of three kinds who walk through a shop of items, department by department."""

from __future__ import annotations

import numpy as np

from sslcli.data.dataset import Dataset
from sslcli.data.histories.build import Options, build_dataset
from sslcli.data.histories.events import Events
from sslcli.data.histories.preprocessor import InteractionsPreprocessor
from sslcli.errors import RequestError

CLASSES = ("cook", "gardener", "reader")
SHORTEST, LONGEST = 5, 40  # events of a user
STAY = 0.85  # probability that the next item is of the favored department
STEP = 0.8  # probability that it is one of the two items that usually follow
PERIOD = 1_000  # time units over which users arrive


def sessions(
    name: str = "sessions",
    users: int = 600,
    items: int = 60,
    max_length: int = 20,
    split: str = "last",
    holdout: float | str = 0.2,
    split_seed: int = 0,
    like: InteractionsPreprocessor | None = None,
) -> Dataset:
    """Histories of 5 to 40 events. Each of three departments has a third of the items; a user of the class of a department mostly
    takes its items, and after an item usually one of two others: one that follows every visit to it, or one that follows if the
    item before it came from the first half of its department. So the last item tells much about the next one, the last two more.
    The label is the class of the user; a fifth of the users is held out.

    `users`: their number; `items`: a multiple of 6, at least 12; all others as in `interactions`."""
    if items < 12 or items % 6:
        raise RequestError(f"dataset.items: expected a multiple of 6 from 12 on, got {items}", "dataset.items=60")
    if users < 2 * len(CLASSES):
        raise RequestError(f"dataset.users: expected at least {2 * len(CLASSES)}, got {users}", "dataset.users=600")
    options = Options(max_length, split, None, holdout, split_seed)
    return build_dataset(name, generate(users, items), options, [], like=like)


def generate(users: int, items: int) -> Events:
    """Events sorted by user and time."""
    draw = np.random.Generator(np.random.PCG64(0))
    size = items // len(CLASSES)
    follows = np.stack(
        [np.concatenate([d * size + draw.permutation(size) for d in range(len(CLASSES))]) for _ in range(2)]
    )
    rows: list[tuple[int, int, float, int]] = []
    for user in range(users):
        kind = user % len(CLASSES)
        time, last, before = float(draw.uniform(0, PERIOD)), -1, -1
        for _ in range(int(draw.integers(SHORTEST, LONGEST + 1))):
            here = last // size if last >= 0 else kind
            if last >= 0 and here == kind and draw.random() < STEP:
                item = int(follows[int(before >= 0 and before % size < size // 2), last])
            else:
                department = kind if draw.random() < STAY else int(draw.integers(len(CLASSES)))
                item = department * size + int(draw.integers(size))
            rows.append((user, item, time, kind))
            last, before, time = item, last, time + float(draw.exponential(1.0))
    columns = list(zip(*rows, strict=True))
    return Events(
        users=np.array(columns[0], np.int32),
        items=np.array(columns[1], np.int32),
        times=np.array(columns[2], np.float64),
        ratings=None,
        labels=np.array(columns[3], np.int32),
        user_names=[f"user {i + 1}" for i in range(users)],
        item_names=[f"{CLASSES[i // size]} {i % size + 1}" for i in range(items)],
        classes=list(CLASSES),
    )
