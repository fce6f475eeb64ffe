"""`sslcli predict` of histories: the items that each user is likely to take next, by the method of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcli import builders, console
from sslcli.config import Config, modalities
from sslcli.data.histories.next_items import FIRST, NextItems
from sslcli.data.histories.preprocessor import InteractionsPreprocessor
from sslcli.errors import RequestError
from sslcli.evals.recommendation.models import MethodScores
from sslcli.evals.recommendation.ranks import without_seen
from sslcli.inference.encoder import open_trained
from sslcli.inference.inputs import InputRequest, read_inputs
from sslcli.inference.predict import Show, rows_to
from sslcli.methods.base import Method
from sslcli.runs import Record
from sslcli.runtime import device, processes, progress

AT_ONCE = 20_000_000  # scores in memory
COLUMNS = ("user", "rank", "item", "score", "title")  # title: where the data have some
SEEN = ("mask", "keep")
MOST_ITEMS = 8  # of the summary
DIGITS = 6  # of scores


@dataclass(frozen=True)
class NextSettings:
    """k: items of each user. seen: whether items that the user has had are left out (`mask`) or not (`keep`)."""

    k: int = 10
    seen: str = "mask"

    def __post_init__(self) -> None:
        if self.seen not in SEEN:
            raise RequestError(f"seen={self.seen}: expected {' or '.join(SEEN)}", "seen=mask")


@dataclass
class NextSummary:
    """Counts of the rows of a prediction."""

    users: int = 0
    rows: int = 0
    items: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> Record:
        return {"users": self.users, "rows": self.rows, "items": len(self.items)}

    def lines(self) -> list[str]:
        most = ", ".join(f"{console.escape(name)} {n:,}" for name, n in self.items.most_common(MOST_ITEMS))
        return [f"{self.rows:,} items for {console.plural(self.users, 'user')}, most often {most}"]


def predicts_next(spec: str) -> bool:
    """Whether the method of a run predicts the next item."""
    encoder = open_trained(spec)
    if encoder.run is None or "items" not in modalities.provides(encoder.preprocessor.kind):
        return False
    classes = builders.method_classes(encoder.run.valid_config["method"])
    return any(kind.next_scores is not Method.next_scores for kind in classes[1:] or classes)  # tasks, or the method


def predict_next(
    spec: str, samples: InputRequest, settings: NextSettings, values: Config, out: Path | None, show: Show
) -> NextSummary:
    """Predicts the next items of the users of a data set or of files; the rows go to the file `out`, or to `show` where there is
    none.

    `values`: the resolved configuration, with `device`. RequestError where the data have no histories, or for several processes."""
    if str(values["train"]["devices"]) != "1":
        raise RequestError("next items are predicted by one process", "leave train.devices= out")
    encoder = open_trained(spec)
    inputs = read_inputs(encoder, samples)
    whole = inputs.dataset.next_items
    if whole is None or encoder.run is None:
        raise RequestError(f"{inputs.dataset.name} has no histories of users", "dataset=interactions")
    users = _users(whole, samples.split)
    process = processes.process_info(1, device.kind_of(values["device"]))
    runtime = device.start(values["device"], channels_last=False, process=process)
    method, _ = builders.load_method(encoder.run, encoder.run.valid_config, inputs.dataset)
    runtime.place(method)
    k = min(settings.k, whole.items)
    console.rows(
        [
            ("what", f"{type(method).__name__}: {k} of {console.plural(whole.items, 'item')} for each user"),
            ("data", console.plural(len(users), "user")),
            ("where", runtime.describe()),
        ]
    )
    own = encoder.preprocessor
    assert isinstance(own, InteractionsPreprocessor), own
    scorer = MethodScores(method, whole, own.max_length, runtime.device, runtime.autocast)
    columns = COLUMNS if own.titles else COLUMNS[:-1]
    summary = NextSummary(users=len(users))
    with rows_to(out, columns, show) as add, progress.task("users", len(users)) as task:
        for part in users.split(max(1, AT_ONCE // whole.items)):
            rows = [row[: len(columns)] for row in next_rows(scorer, part, settings, own)]
            summary.rows += len(rows)
            summary.items.update(row[-1] if own.titles else row[2] for row in rows)
            add(rows)
            task.done += len(part)
    return summary


def next_rows(
    scorer: MethodScores, users: Tensor, settings: NextSettings, own: InteractionsPreprocessor
) -> list[tuple[Any, ...]]:
    """(user, rank, item, score, title): the best items of each user; the score is the probability among all items."""
    whole = scorer.whole
    places = whole.events.lengths[users]
    shares = scorer.scores(users, places).softmax(dim=1)
    if settings.seen == "mask":
        before = whole.first(users, places)
        rows = torch.arange(len(users)).repeat_interleave(before.lengths)
        shares = without_seen(shares, rows, before.flat.long() - FIRST)
    best = shares.topk(min(settings.k, whole.items), dim=1)
    return [
        (whole.users[user], rank, own.items[i], round(p, DIGITS), own.title(i + FIRST))
        for user, ids, found in zip(users.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
        for rank, (i, p) in enumerate(zip(ids, found, strict=True), 1)
        if p >= 0  # an item that is left out is at -inf
    ]


def _users(whole: NextItems, split: str) -> Tensor:
    """The users (m,) of a split: those that training reads, or those that are held out. RequestError where there are none."""
    chosen = {"all": torch.ones_like(whole.trained), "train": whole.trained, "test": ~whole.trained}[split]
    users = chosen.nonzero()[:, 0]
    if not len(users):
        raise RequestError(f"split={split}: no user is in it", "split=all")
    return users
