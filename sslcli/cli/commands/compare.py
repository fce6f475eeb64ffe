"""sslcli runs compare A B ...: numbers, configuration, the same test items, encoders and curves of runs, side by side.

The first run is what the others are compared with.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.config import compose
from sslcli.errors import RequestError, SslError, command, listing, nearest, target
from sslcli.runs import records
from sslcli.runs.files import size_of
from sslcli.runs.find import find, short_name
from sslcli.runs.listing import format_length, length_warning, training_length
from sslcli.runs.run import Run

KEYS = ("out", "cka", "seed")
PROSE = (".summary", ".source", ".family")  # keys of a recipe that only tell
MANY = 40  # characters of a value of the configuration that are shown


@dataclass
class Compared:
    """What is found; plain JSON, lists in the order of the runs."""

    runs: list[dict[str, Any]]
    numbers: dict[str, list[float | None]] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)  # a pair and an evaluation each
    config: dict[str, list[Any]] = field(default_factory=dict)
    cka: list[dict[str, Any]] = field(default_factory=list)
    picture: str | None = None
    notes: list[str] = field(default_factory=list)


def main(words: list[str], overrides: list[str]) -> int:
    own, devices = taken(overrides)
    runs = [Run.open(find(word)) for word in words]
    if len({r.path.resolve() for r in runs}) < 2:
        raise RequestError("runs compare wants two runs or more", "sslcli runs compare RUN RUN")
    out = target(own.get("out", "compare.png"), "out=compare.png", (".png",))
    found = Compared([about(name, run) for name, run in zip(letters(len(runs)), runs, strict=True)])
    found.numbers = numbers(runs)
    found.config = differences(runs)
    if said := length_warning([run["length"] for run in found.runs]):
        found.notes.append(said)
    same_items(runs, int(own.get("seed", "0")), found)
    if own.get("cka", "true") == "true":
        encoders(runs, devices, found)
    draw(runs, out, found)
    if console.flag(console.JSON):
        console.out_json(asdict(found))
    else:
        show(found)
    return 0


def taken(overrides: list[str]) -> tuple[dict[str, str], list[str]]:
    """Our own keys, and those of the device. RequestError for any other."""
    pairs = [o.partition("=") for o in overrides]
    own = {key: value for key, _, value in pairs if key in KEYS}
    devices = [o for o in overrides if o.startswith(("device=", "device."))]
    for key, _, _ in pairs:
        if key not in KEYS and not key.startswith("device"):
            close = nearest(key, KEYS)
            raise RequestError(
                f"runs compare has no key `{key}`", f"did you mean {close}=?" if close else listing(KEYS)
            )
    if own.get("cka", "true") not in ("true", "false"):
        raise RequestError(f"cka={own['cka']}: true or false", "cka=false")
    if not own.get("seed", "0").isdigit():
        raise RequestError(f"seed={own['seed']}: a whole number is wanted", "seed=0")
    return own, devices


def letters(n: int) -> list[str]:
    return [chr(ord("A") + i) if i < 26 else f"R{i + 1}" for i in range(n)]


def about(name: str, run: Run) -> dict[str, Any]:
    status = run.status
    return {
        "name": name,
        "run": str(run.path),
        "short": short_name(run.path),
        "status": status.get("status"),
        "step": status.get("step"),
        "seconds": status.get("seconds"),
        "length": training_length(status.get("step"), run.config, run.metrics),
    }


def numbers(runs: list[Run]) -> dict[str, list[float | None]]:
    """All that was measured: the number's name to its value in each run."""
    rows = [{f"{n}.{k}": v for n, e in run.evals.items() for k, v in e.get("numbers", {}).items()} for run in runs]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def differences(runs: list[Run]) -> dict[str, list[Any]]:
    """The keys of what the runs compute that are not the same in all; None where a run has no such key."""
    from sslcli.runs.identity import identity_config

    flat = [identity_config(run.config) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one if not key.endswith(PROSE))
    rows = {key: [one.get(key) for one in flat] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


# ----------------------------------------------------------------------------------------------------- the same test items


def same_items(runs: list[Run], seed: int, found: Compared) -> None:
    """Every evaluation that kept what it predicted, of each run against the first."""
    names = [run["name"] for run in found.runs]
    kept = [kept_predictions(run) for run in runs]
    lacking = [run for run, own in zip(found.runs, kept, strict=True) if not own]
    for run in lacking:
        path = run["run"]
        found.notes.append(f"{run['name']} has no predictions to compare: {command('eval', 'probe', f'run={path}')}")
    for evaluation in kept[0]:
        rows = []
        for i in range(1, len(runs)):
            if evaluation in kept[i]:
                try:
                    rows.append({"evaluation": evaluation, "run": names[i], **pair(runs[0], runs[i], evaluation, seed)})
                except SslError as e:
                    found.notes.append(f"{evaluation} of A and {names[i]}: {e.message}")
        found.items += with_holm(rows)
    if not lacking and not any(set(kept[0]) & set(own) for own in kept[1:]):
        found.notes.append("no evaluation kept its predictions in A and in another run: sslcli eval probe run=RUN")


def kept_predictions(run: Run) -> list[str]:
    """The evaluations that kept what they predicted."""
    from sslcli.evals.metrics.paired import FILE

    return [name for name, kept in run.kept.items() if size_of(run.path, kept.beside(FILE)) is not None]


def with_holm(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from sslcli.evals.metrics.paired import holm

    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def pair(first: Run, second: Run, name: str, seed: int) -> dict[str, Any]:
    """`second` against `first` on the test items that both were asked. RequestError where the items are not the same."""
    from sslcli.evals.metrics import paired
    from sslcli.rng import derive

    found = [run.kept[name] for run in (first, second)]
    asked = [kept.record for kept in found]
    if not paired.same_data(*found):
        raise RequestError("measured on different data: accuracies on other items are not compared")
    a, b = (paired.said(kept) for kept in found)
    assert a is not None and b is not None  # noqa: PT018
    ids, rights_a, rights_b = paired.aligned(a, b)
    result = paired.compare(rights_a, rights_b, derive(seed, "paired", name))
    notes = []
    for letter, run, record in zip(("first", "second"), (first, second), asked, strict=True):
        if record.get("sha256") != records.encoder(run.path).get("sha256"):
            notes.append(f"the {letter}'s numbers are of step {record.get('step')}: it was trained further since")
    settings = [record.get("evaluator") or {} for record in asked]
    if other := [k for k in {**settings[0], **settings[1]} if settings[0].get(k) != settings[1].get(k)]:
        notes.append(f"measured with different {listing(sorted(other))}: the difference is of both")
    sizes = [len(said[0]) for said in (a, b)]
    if len(ids) < max(sizes):
        notes.append(f"on the {len(ids):,} items that both were asked, of {sizes[0]:,} and {sizes[1]:,}")
    draws = [len(said[2]) for said in (a, b)]
    return {**asdict(result), "draws": draws, "notes": notes}


# ---------------------------------------------------------------------------------------------------------------- encoders


def encoders(runs: list[Run], devices: list[str], found: Compared) -> None:
    """Linear CKA of each encoder with the first's, on the test split of the first's data (on all of them
    where none is held out); and of an untrained backbone, which is what the architecture alone gives."""
    from sslcli.data.record import read_record, with_recorded_path
    from sslcli.evals.base.evaluated_model import load_model
    from sslcli.evals.base.features import Split
    from sslcli.evals.metrics.cka import cka
    from sslcli.training.configuration import resolve

    values = resolve(compose.compose("eval", ["evaluator=quality", *devices]))
    try:
        data = with_recorded_path(runs[0].valid_config["dataset"], read_record(runs[0]))
    except SslError as e:
        found.notes.append(f"no CKA: {e.message}")
        return
    base: tuple[Any, Any] | None = None
    for run, told in zip(runs, found.runs, strict=True):
        try:
            cfg = run.valid_config if run is runs[0] else {**run.valid_config, "dataset": data}
            subject = load_model({**values, "data_given": run is not runs[0]}, cfg, run.path)
            split: Split = "test" if subject.dataset.test is not None else "train"
            x, _ = subject.data.features(subject.backbone, split)
        except SslError as e:
            found.notes.append(f"no CKA of {told['name']}: {e.message}")
            if base is None:
                return
            continue
        ids = subject.data.ids(split)
        if base is None:
            base = x, ids
            assert subject.data.untrained_backbone is not None
            random, _ = subject.data.features(subject.data.untrained_backbone, split)
            found.cka.append(_row("untrained", cka(x, random), len(x)))
            continue
        shared, ours, theirs = _intersection(base[1], ids)
        found.cka.append(_row(told["name"], cka(base[0][ours], x[theirs]), len(shared)))


def _row(name: str, value: float, n: int) -> dict[str, Any]:
    return {"run": name, "cka": _number(value), "samples": n}


def _intersection(a: Any, b: Any) -> Any:
    import numpy as np

    return np.intersect1d(a.numpy(), b.numpy(), return_indices=True)


# ------------------------------------------------------------------------------------------------------------------ picture


def draw(runs: list[Run], out: Path, found: Compared) -> None:
    from sslcli.report.comparison.plot import Curves

    names = [f"{told['name']}  {told['short']}" for told in found.runs]
    nodes = [run.config.get("method") for run in runs]
    methods = {str(node.get("_target_")) for node in nodes if isinstance(node, dict)}
    curves = Curves(names, [run.metrics for run in runs], alike=len(methods) == 1)
    if not curves.panels:
        found.notes.append("there is no curve to draw: no run has a line in metrics.jsonl")
        return
    curves.save(out)
    found.picture = str(out)


# --------------------------------------------------------------------------------------------------------------------- words


def show(found: Compared) -> None:
    names = [run["name"] for run in found.runs]
    two = len(names) == 2
    for run in found.runs:
        took = f" in {console.human_time(run['seconds'])}" if run["seconds"] else ""
        console.out(
            f"{run['name']}  {run['short']}  {run['status']}, {format_length(run['length']) or 'no step'}{took}"
        )
    if found.numbers:
        body = [
            [name, *map(_shown, values), *(_apart(values) if two else [])] for name, values in found.numbers.items()
        ]
        head = ["numbers", *names, *(["B - A"] if two else [])]
        _table(head, body, range(1, len(head)))
    if found.items:
        body = [_item(row, two) for row in found.items]
        head = ["same test items", "A", "run", "run - A", "95 % interval", "run better", "A better", "McNemar p"]
        head += [] if two else ["Holm p"]
        _table(head, body, range(1, len(head)))
        for row in found.items:
            for note in row["notes"]:
                console.out(f"  {row['evaluation']} {row['run']}: {note}")
    if found.config:
        body = [[key, *map(_value, values)] for key, values in found.config.items()]
        _table(["configuration", *names], body, ())
    if found.cka:
        body = [[row["run"], _shown(row["cka"]), f"{row['samples']:,}"] for row in found.cka]
        _table(["encoders, with A's", "CKA", "test samples"], body, (1, 2))
    for note in found.notes:
        console.warn(note)
    if found.picture:
        console.out("", found.picture)


def _apart(values: list[float | None]) -> list[str]:
    first, second = values
    return ["" if first is None or second is None else f"{second - first:+.4g}"]


def _table(head: list[str], body: list[list[str]], right: Any) -> None:
    console.out("", *console.table(head, body, numbers=right))


def _item(row: dict[str, Any], two: bool) -> list[str]:
    cells = [
        f"{row['evaluation']} {row['run']}",
        f"{row['first']:.4f}",
        f"{row['second']:.4f}",
        f"{row['difference']:+.4f}",
        f"{row['low']:+.4f} .. {row['high']:+.4f}",
        f"{row['better']:,}",
        f"{row['worse']:,}",
        f"{row['p']:.2g}",
    ]
    return cells if two else [*cells, f"{row['p_holm']:.2g}"]


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _value(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= MANY else f"{text[: MANY - 1]}…"
