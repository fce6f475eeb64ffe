"""`sslcli predict`: classes of samples by the classifier that an evaluator kept, to a file or block by block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.classifier.files import check_evaluator
from sslcli.classifier.model import Classifier
from sslcli.config import Config
from sslcli.errors import SslError, StorageError
from sslcli.inference.encoder import kept_classifier, open_trained
from sslcli.inference.features import ROWS
from sslcli.inference.inputs import InputRequest, read_inputs
from sslcli.inference.predictions import (
    MANY_CLASSES,
    Predictor,
    Row,
    Summary,
    check_probabilities,
    check_threshold,
)
from sslcli.inference.row_file import open_rows
from sslcli.inference.session import open_session
from sslcli.inference.vectors.shared_space import SHARED
from sslcli.inference.zero_shot import ZeroShot, zero_shot_classifier
from sslcli.runs import records
from sslcli.runs.run import now

MOST_CLASSES = 20  # in the report
TEXT = ("user", "item", "title")  # columns of next items

Add = Callable[[Sequence[Row]], None]
Show = Callable[[Sequence[Row], Sequence[str]], None]  # rows, and the names of the columns


@dataclass(frozen=True)
class Settings:
    """evaluator: whose classifier; "" for the newer one. zero_shot: the names of classes instead of a classifier. threshold,
    probabilities: see `Predictor`. batch_size: see `FeatureExtractor`."""

    evaluator: str = ""
    zero_shot: ZeroShot | None = None
    threshold: float | None = None
    batch_size: int = ROWS
    probabilities: str = "auto"

    def __post_init__(self) -> None:
        check_evaluator(self.evaluator)
        check_threshold(self.threshold)
        check_probabilities(self.probabilities)


def predict(
    spec: str, samples: InputRequest, settings: Settings, values: Config, out: Path | None, show: Show
) -> Summary:
    """Predicts samples with the classifier of the run `spec`; the rows go to the file `out`, or to `show` where there is none.

    `values`: the resolved configuration, with `device` and `train.devices`. RequestError where the run kept no classifier."""
    run, size = open_trained(spec).run, settings.batch_size
    if settings.zero_shot is not None:
        options: dict[str, Any] = {"batch_size": size, "pool": SHARED}
        session = open_session(spec, values, **options)
        classifier = zero_shot_classifier(session.encoder, settings.zero_shot)
    else:
        classifier = kept_classifier(run, settings.evaluator)
        options = {"batch_size": size, "finetuned": classifier.backbone is not None}
        session = open_session(spec, values, **options)
    predictor = Predictor(classifier, settings.threshold, settings.probabilities)
    launched = session.launch("predict", spec, values, **options)
    inputs = read_inputs(session.encoder, samples)
    predictor = replace(predictor, id=inputs.dataset.id)
    ids = None if inputs.dataset.id is None else inputs.source.names
    console.rows(
        [
            ("what", describe(classifier)),
            ("data", f"{len(inputs):,} samples"),
            ("where", session.runtime.describe()),
        ]
    )
    if settings.probabilities == "auto" and len(classifier.classes) > MANY_CLASSES:
        console.say(f"{len(classifier.classes):,} classes: probabilities=all writes a column for each")
    summary = Summary(predictor.columns)
    with launched, rows_to(out, predictor.columns, show, predictor.texts) as add:
        for rows in predictor.predict(session.blocks(inputs), inputs.places, inputs.unreadable, ids):
            summary.add(rows)
            add(rows)
    if out is not None and run is not None:
        keep_summary(run.path, f"Predictions of {inputs.dataset.name}", out, summary, describe(classifier))
    return summary


@contextlib.contextmanager
def rows_to(out: Path | None, columns: Sequence[str], show: Show, texts: Collection[str] = TEXT) -> Iterator[Add]:
    """A function that adds rows to the file `out`, or hands them to `show` where there is none. texts: the columns of text."""
    if out is None:
        yield lambda rows: show(rows, columns)
        return
    with open_rows(out, {name: str if name in texts else float for name in columns}) as add:
        yield add


def describe(classifier: Classifier) -> str:
    """`probe: 10 classes, top1 0.953, temperature 1.3`"""
    scores = classifier.protocol.get("test", {})
    measured = ", ".join(f"{name} {scores[name]:.3f}" for name in ("top1", "r2") if isinstance(scores.get(name), float))
    what = "a value" if classifier.predicts_value else f"{len(classifier.classes)} classes"
    temperature = "" if classifier.predicts_value else f"temperature {classifier.temperature:.3g}"
    return f"{classifier.evaluator}: " + ", ".join(part for part in (what, measured, temperature) if part)


def keep_summary(run: Path, title: str, out: Path, summary: Summary, classifier: str) -> None:
    """Writes the summary that the report shows; a run that cannot be written causes a warning."""
    numbers = {key: value for key, value in summary.to_json().items() if isinstance(value, int | float)}
    numbers |= {f"class {name}": n for name, n in summary.classes.most_common(MOST_CLASSES)}
    notes = [f"classifier of {classifier}", *summary.notes()]
    try:
        records.save_summary(run, "predict", title, out.name, numbers, notes, now())
    except (StorageError, OSError) as e:
        console.warn(f"the summary is not in the report: {e.message if isinstance(e, SslError) else e}")
