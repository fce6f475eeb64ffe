"""Saved results of a run and their names: one for each evaluator, data set and choice of labels.

    eval/probe.json                  labels=all, on the run's own data set
    eval/probe@5-class.json          labels=5/class; 1pct for 1%, 100 for 100
    eval/probe@mine-3fa29c.json      labels=mine.csv, with the first digits of its content's SHA-256
    eval/probe@cifar100@1pct.json    dataset=cifar100 labels=1%

Other settings (number of draws, `evaluator.*`) are no part of the name: a new result with other settings replaces the old one.
Imports no torch.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from sslcli.runs import Record, records
from sslcli.runs.files import files_in


def result_name(evaluator: str, labels: object = "all", dataset: str = "") -> str:
    """The name of a result. `dataset`: the data set if it is not that of the run."""
    return "@".join(part for part in (evaluator, dataset, label_tag(labels)) if part)


def label_tag(labels: object, opened: bool = True) -> str:
    """What `labels=` adds to a name; "" for all. It holds letters, digits, `_` and `-` alone. `opened`: whether a file of
    labels may be read (not where the name comes from a record)."""
    text = str(labels).strip()
    if text.lower().endswith(".csv"):
        digest = _digest(Path(text.removeprefix("all+"))) if opened else ""
        return "-".join(part for part in (_file_tag(text), digest) if part)
    text = text.lower()
    if share := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text):
        return "" if float(share[1]) == 100 else f"{float(share[1]):g}pct".replace(".", "_")
    return "" if text == "all" else _plain(re.sub(r" ?/ ?", "-", text))


def _file_tag(labels: str) -> str:
    """Of `FILE.csv`, or `all+FILE.csv`: beside the labels of the data set."""
    own = "all-" if labels.startswith("all+") else ""
    return own + _plain(Path(labels.removeprefix("all+")).stem)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")[:40]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:6]
    except OSError:
        return ""


def labels_of(record: Record) -> str:
    """The requested `labels` of a record; "" where the evaluator takes none."""
    for place in ("protocol", "evaluator"):
        node = record.get(place)
        if isinstance(node, dict) and isinstance(node.get("labels"), (str, int)):
            return str(node["labels"])
    return ""


def without_labels(name: str, record: Record) -> str:
    """`probe` for `probe@5-class`."""
    return name.rpartition("@")[0] if has_labels(name, labels_of(record) or "all") else name


@dataclass(frozen=True)
class SavedResult:
    """A result in a run folder, and its file (`eval/probe.json`)."""

    name: str
    run: Path
    file: str
    record: Record
    outdated: bool = False  # measured with other weights than the run has now

    @property
    def step(self) -> int | None:
        """The step of the weights that were evaluated; None where the record lacks it."""
        return self.record.get("step")

    @property
    def evaluator(self) -> str:
        return self.name.partition("@")[0]

    @property
    def labels(self) -> str:
        return labels_of(self.record) or "all"

    @property
    def dataset(self) -> str:
        """The data set if it is not that of the run, else ""."""
        return without_labels(self.name, self.record).partition("@")[2]

    def artefact_path(self, artefact: str) -> str:
        """The file of an artefact: eval/NAME_predictions.safetensors."""
        return f"{self.file.removesuffix('.json')}_{artefact}"


def is_outdated(record: Record, encoder: Record) -> bool:
    """Whether a result was measured with other weights than those of encoder.json, by their SHA-256 or, where one of both lacks
    it, by their step. False where nothing of this is known."""
    for key in ("sha256", "step"):
        if record.get(key) not in (None, "") and encoder.get(key) not in (None, ""):
            return bool(record[key] != encoder[key])
    return False


def find_result(run: Path, metric: str) -> tuple[SavedResult | None, str]:
    """The result of a run that contains a metric such as `probe@5-class.top1`, and the name of the metric within it."""
    for name, result in saved_results(run).items():
        if metric.startswith(f"{name}.") and metric.removeprefix(f"{name}.") in result.record["numbers"]:
            return result, metric.removeprefix(f"{name}.")
    return None, metric


def has_labels(name: str, labels: object) -> bool:
    """Whether a name contains these labels. A file of labels may have changed, or been removed, since."""
    present, expected = name.rpartition("@")[2] if "@" in name else "", label_tag(labels, opened=False)
    if str(labels).lower().endswith(".csv"):
        return bool(re.fullmatch(re.escape(_file_tag(str(labels))) + "(-[0-9a-f]{6})?", present))
    return bool(expected) and present == expected


def make_room(run: Path, name: str, prefix: str = "") -> None:
    """Renames an older result, and its artefacts, that has this file name but other labels."""
    for old in saved_results(run, prefix).values():
        here, there = f"eval/{prefix}{name}", f"eval/{prefix}{old.name}"
        if old.file == f"{here}.json" and here != there:
            for artefact in files_in(run, f"{here}_*"):
                (run / artefact).rename(run / f"{there}{artefact.removeprefix(here)}")
            (run / old.file).rename(run / f"{there}.json")


def saved_results(run: Path, prefix: str = "") -> dict[str, SavedResult]:
    """All results of a run, by name. Before names said the labels, eval/probe.json could be of labels=5/class: it is
    `probe@5-class` then, so `probe` always means labels=all. `prefix`: what the names of the files begin with
    (`checkpoints/step-0000000004_`)."""
    by_name: dict[str, SavedResult] = {}
    encoder = records.encoder(run)
    for file in files_in(run, f"eval/{prefix}*.json"):
        given = file.removeprefix("eval/").removesuffix(".json")
        record = records.result(run, given)
        name, labels = given.removeprefix(prefix), labels_of(record) or "all"
        if label_tag(labels, opened=False) and not has_labels(name, labels):
            name = f"{name}@{label_tag(labels, opened=False)}"
        if name not in by_name or given == prefix + name:
            by_name[name] = SavedResult(name, run, file, record, not prefix and is_outdated(record, encoder))
    return dict(sorted(by_name.items()))
