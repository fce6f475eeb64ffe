"""`sslcli pick`: the samples to label next, in order, with a stratum and a reason each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli import console
from sslcli.config import Config
from sslcli.data.files.csv_text import FORMULA
from sslcli.errors import RequestError, listing, nearest
from sslcli.evals.active_learning.names import RULE_NAMES
from sslcli.evals.active_learning.pool import Pool
from sslcli.evals.active_learning.rules import RULES
from sslcli.evals.fit.kmeans import kmeans
from sslcli.inference.features import collect
from sslcli.inference.inputs import InputRequest, Inputs, read_inputs
from sslcli.inference.session import Session, open_session
from sslcli.pick.labeled import Known, known_labels
from sslcli.rng import derive
from sslcli.runs.run import Run

CLASSES = 10  # expected where no class is known
COLUMNS = ("rank", "stratum", "reason", "label", "split")  # of a file of picks, beside the name of each sample


@dataclass(frozen=True)
class PickRequest:
    """What a command line asks for: a run, its samples, how many by which rule, and the file of the labels that there are."""

    run: str
    samples: InputRequest
    n: int = 100
    by: str = "typical"
    have: str | None = None
    seed: int = 0

    def check(self) -> None:
        """RequestError for an unknown rule, or without any sample to pick."""
        if self.by not in RULE_NAMES:
            close = nearest(self.by, RULE_NAMES)
            raise RequestError(
                f"by={self.by}: unknown rule", f"by={close}" if close else f"one of {listing(RULE_NAMES)}"
            )
        if self.n < 1:
            raise RequestError(f"n={self.n}: expected an integer of at least 1", "n=100")


@dataclass(frozen=True)
class PickedSample:
    """A sample to label: its index in the inputs, what a label file calls it, its stratum from 1, and why it is picked."""

    index: int
    name: str
    rank: int
    stratum: int
    reason: str


@dataclass(frozen=True)
class Picked:
    """The samples to label in order. `key`: the column of their names in a label file: path, id, or that of `dataset.id`."""

    request: PickRequest
    inputs: Inputs
    known: Known
    key: str
    samples: Sequence[PickedSample]
    strata: int  # of all samples
    notes: Sequence[str]
    run: Run | None  # that trained the encoder

    @property
    def labeled(self) -> int:
        """How many samples have a label already."""
        return int((self.known.labels >= 0).sum())

    @property
    def per_stratum(self) -> dict[int, int]:
        """How many samples of each stratum are picked, by stratum."""
        return dict(sorted(Counter(sample.stratum for sample in self.samples).items()))


def pick(request: PickRequest, values: Config) -> Picked:
    """Computes the features of all samples and picks `request.n` without a label.

    `values`: the resolved configuration, with `device` and `train.devices`. RequestError where there are too few samples, DataError
    for a file of labels that does not fit."""
    request.check()
    session = open_session(request.run, values)
    inputs = read_inputs(session.encoder, request.samples)
    known = known_labels(inputs, session.encoder, request.have)
    _check_amount(request, known, range(len(inputs)))
    _check_classes(request, inputs, known)
    about = [
        ("what", f"{request.n:,} samples by={request.by}: {RULE_NAMES[request.by]}"),
        ("data", f"{len(inputs):,} samples, {int((known.labels >= 0).sum()):,} with a label"),
        ("where", session.runtime.describe()),
    ]
    console.rows(about)
    for note in known.notes:
        console.say(note)
    features, ids, unreadable = _features(session, inputs, request, values)
    _check_amount(request, known, ids)
    for name, reason in list(unreadable.items())[:3]:
        console.warn(f"{console.escape(name)} cannot be read and is not picked: {reason}")
    classes = known.classes if inputs.dataset.task == "classes" else ()
    pool = Pool(features, known.labels[ids], classes, len(classes) or CLASSES)
    stratum = _strata(pool, request.seed)
    key, names = _names(inputs)
    samples = [
        PickedSample(int(ids[p.index]), names[int(ids[p.index])], rank, int(stratum[p.index]), p.reason)
        for rank, p in enumerate(RULES[request.by](pool, request.n, request.seed), start=1)
    ]
    notes = [f"{len(unreadable):,} unreadable"] if unreadable else []
    return Picked(request, inputs, known, key, samples, int(stratum.max()), notes, session.encoder.run)


def _features(
    session: Session, inputs: Inputs, request: PickRequest, values: Config
) -> tuple[Tensor, Tensor, dict[str, str]]:
    """Features (m, d) and ids (m,) of the readable samples, and name -> reason of the others."""
    with session.launch("pick", request.run, values):
        features, ids, unreadable = collect(session.blocks(inputs))
    named = {inputs.ids[i]: reason for i, reason in unreadable.items()}
    return features, ids, {**inputs.unreadable, **named}


def _check_amount(request: PickRequest, known: Known, ids: Sequence[int] | Tensor) -> None:
    free = int((known.labels[torch.as_tensor(ids)] < 0).sum())
    if request.n > free:
        raise RequestError(
            f"n={request.n}: there are {free:,} samples without a label that can be read",
            f"n={free}" if free else "name other files, or dataset=NAME",
        )


def _check_classes(request: PickRequest, inputs: Inputs, known: Known) -> None:
    if request.by != "uncertain":
        return
    if inputs.dataset.task != "classes":
        raise RequestError(
            f"by=uncertain compares classes, and {inputs.dataset.name} has a value to predict", "by=typical"
        )
    present = len(known.labels[known.labels >= 0].unique())
    if present < 2:
        raise RequestError(
            f"by=uncertain requires labels of at least 2 classes, and there are those of {present}",
            "have=labels.csv names the labels so far; by=typical needs none",
        )


def _strata(pool: Pool, seed: int) -> Tensor:
    """(n,) int64: the stratum of each sample, from 1 for the largest: a cluster of k-means, as many as expected classes."""
    k = min(pool.expected_classes, len(pool))
    found = kmeans(pool.unit, k, seed=derive(seed, "strata"), max_iter=20).assignment
    by_size = found.bincount(minlength=k).argsort(descending=True, stable=True)
    return by_size.argsort()[found] + 1


def _names(inputs: Inputs) -> tuple[str, Sequence[str]]:
    """The column that identifies samples in a label file, and its cell for each: an identifier, the path of a file, the name of a
    sample in a larger file, or its index. RequestError for identifiers that repeat across files."""
    names, id = inputs.source.names, inputs.dataset.id
    if id is not None and names is not None:
        if len(set(names)) < len(names):
            raise RequestError(
                f"identifiers of {console.escape(id)} repeat across files, so that a file of labels cannot name samples by them",
                "pick from one file or split: split=train",
            )
        return (id if id not in COLUMNS else "id"), names
    if inputs.paths and inputs.paths[0] and len(set(inputs.paths)) == len(inputs):
        names = inputs.ids
    if names is None or len(set(names)) < len(inputs):
        return "id", [str(i) for i in range(len(inputs))]
    return "path", _SafeNames(names)


class _SafeNames(Sequence[str]):
    """Names that no spreadsheet takes for a formula: `=a.png` becomes `./=a.png`, which names the same file."""

    def __init__(self, names: Sequence[str]):
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index):
        name = self._names[index]
        return f"./{name}" if name.startswith(FORMULA) else name
