"""Names of results. A run keeps one for each question: an evaluator, the data set it is measured on, and the labels used.

    eval/probe.json                  labels=all, on the run's own data set
    eval/probe@5-class.json          labels=5/class; 1pct for 1%, 100 for 100
    eval/probe@mine-3fa29c.json      labels=mine.csv, with the first digits of its content's SHA-256
    eval/probe@cifar100@1pct.json    dataset=cifar100 labels=1%

Everything else (number of draws, `evaluator.*`) says how a question was answered: the same question asked again with other
settings replaces the result. Imports no torch.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcli.runs import records
from sslcli.runs.files import files_in


def name_of(evaluator: str, labels: Any = "all", dataset: str = "") -> str:
    """The name under which the answer is kept. `dataset`: where it is another one than the run's."""
    return "@".join(part for part in (evaluator, dataset, tag(labels)) if part)


def tag(labels: Any, opened: bool = True) -> str:
    """What `labels=` adds to a name; "" for all. It holds letters, digits, `_` and `-` alone. `opened`: whether a file of
    labels may be read (not where the name comes from a record)."""
    text = str(labels).strip()
    if text.lower().endswith(".csv"):
        return "-".join(part for part in (_plain(Path(text).stem), opened and _digest(Path(text))) if part)
    text = text.lower()
    if share := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text):
        return "" if float(share[1]) == 100 else f"{float(share[1]):g}pct".replace(".", "_")
    return "" if text == "all" else _plain(re.sub(r" ?/ ?", "-", text))


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")[:40]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:6]
    except OSError:
        return ""


def labels_of(record: dict[str, Any]) -> str:
    """The `labels` of a record, as they were asked for; "" where the evaluator takes none."""
    for place in ("protocol", "evaluator"):
        node = record.get(place)
        if isinstance(node, dict) and isinstance(node.get("labels"), (str, int)):
            return str(node["labels"])
    return ""


def without_labels(name: str, record: dict[str, Any]) -> str:
    """`probe` for `probe@5-class`."""
    return name.rpartition("@")[0] if tagged(name, labels_of(record) or "all") else name


@dataclass(frozen=True)
class Kept:
    """A result in a run folder, and its file (`eval/probe.json`)."""

    name: str
    run: Path
    file: str
    record: dict[str, Any]

    @property
    def evaluator(self) -> str:
        return self.name.partition("@")[0]

    @property
    def labels(self) -> str:
        return labels_of(self.record) or "all"

    @property
    def dataset(self) -> str:
        """The data set, where it is another one than the run's; else ""."""
        return without_labels(self.name, self.record).partition("@")[2]

    def beside(self, artefact: str) -> str:
        """The file of an artefact: eval/NAME_predictions.safetensors."""
        return f"{self.file.removesuffix('.json')}_{artefact}"


def holding(run: Path, number: str) -> tuple[Kept | None, str]:
    """The result of a run that holds a number such as `probe@5-class.top1`, and the rest of its name."""
    for name, found in kept(run).items():
        if number.startswith(f"{name}.") and number.removeprefix(f"{name}.") in found.record["numbers"]:
            return found, number.removeprefix(f"{name}.")
    return None, number


def tagged(name: str, labels: Any) -> bool:
    """Whether a name says these labels. A file of labels may have another content by now, or be gone."""
    said, wanted = name.rpartition("@")[2] if "@" in name else "", tag(labels, opened=False)
    if str(labels).lower().endswith(".csv"):
        return bool(re.fullmatch(re.escape(_plain(Path(str(labels)).stem)) + "(-[0-9a-f]{6})?", said))
    return bool(wanted) and said == wanted


def make_room(run: Path, name: str, prefix: str = "") -> None:
    """Moves an older result out of the way that lies under this name and is of another question, with what lies beside it."""
    for old in kept(run, prefix).values():
        here, there = f"eval/{prefix}{name}", f"eval/{prefix}{old.name}"
        if old.file == f"{here}.json" and here != there:
            for artefact in files_in(run, f"{here}_*"):
                (run / artefact).rename(run / f"{there}{artefact.removeprefix(here)}")
            (run / old.file).rename(run / f"{there}.json")


def kept(run: Path, prefix: str = "") -> dict[str, Kept]:
    """All results of a run, by name. Before names said the labels, eval/probe.json could be of labels=5/class: it is
    `probe@5-class` then, so `probe` always means labels=all. `prefix`: what the names of the files begin with
    (`checkpoints/step-0000000004_`)."""
    found: dict[str, Kept] = {}
    for file in files_in(run, f"eval/{prefix}*.json"):
        given = file.removeprefix("eval/").removesuffix(".json")
        record = records.result(run, given)
        name, labels = given.removeprefix(prefix), labels_of(record) or "all"
        if tag(labels, opened=False) and not tagged(name, labels):
            name = f"{name}@{tag(labels, opened=False)}"
        if name not in found or given == prefix + name:
            found[name] = Kept(name, run, file, record)
    return dict(sorted(found.items()))
