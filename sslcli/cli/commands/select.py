"""sslcli select RUN ...: which run, or which checkpoint of one, is best, said without any label; and how well that agrees
with the probe where there is one."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass
from typing import Any

from sslcli import console
from sslcli.cli.arguments import Request
from sslcli.config import compose
from sslcli.config.overrides import refuse_unused
from sslcli.errors import RequestError, TrainingError, command, listing, nearest
from sslcli.evals.base.candidates import Candidate, checkpoints, fitting, gathered, measure, same_data
from sslcli.evals.metrics import ranking
from sslcli.runs import results
from sslcli.runs.find import short_name
from sslcli.runs.run import Run
from sslcli.runtime import progress
from sslcli.training.configuration import resolve

FEW = 5  # candidates below which a rank correlation says next to nothing
SHARES = ("learnability",)  # numbers that are an accuracy over samples
COLLAPSED = 2.0  # directions (rankme) below which features are hardly more than one number
NOT_HERE = ("run", "dataset", "train", "method", "backbone", "augmentation", "optimizer", "schedule", "init")


def main(request: Request) -> int:
    own = dict(o.split("=", 1) for o in request.overrides if o.split("=", 1)[0] in ("by", "probe"))
    overrides = [o for o in request.overrides if o.split("=", 1)[0] not in own]
    by, probe = _by(own.get("by", ranking.DEFAULT)), _yes("probe", own.get("probe", "false"))
    settings = {"quality": _composed("quality", overrides, request)}
    if probe:
        settings["probe"] = _composed("probe", [o for o in overrides if not o.startswith("evaluator.")], request)
    candidates = gathered(request.positional)
    if candidates[0].checkpoint is not None:
        why = "loggers hold the numbers of runs; those of checkpoints stay in the run folder, in eval/checkpoints"
        refuse_unused(overrides, ("logger",), why, "leave it out")
    candidates = measure_all(candidates, settings)
    notes = remarks(candidates)
    found = ranked(candidates, by)
    if candidates[found.order[0]].step == 0:
        notes.append(f"step 0, which comes first, is the untrained network: by {by} training did not help")
    notes += closeness(candidates, found)
    table(candidates, found, notes)
    for c in candidates:
        if c.unsaved is not None:
            raise c.unsaved
    first = best(candidates, found)
    if first.checkpoint is not None:
        where = [f"checkpoint={first.step}", f"out={free(f'encoder-{first.step}')}"]
        console.say(f"next  {command('export', short_name(first.run.path), *where)}")
    return 0


def free(name: str) -> str:
    """The name, or with a number behind it: one that nothing in this folder has."""
    names = (name if i == 1 else f"{name}-{i}" for i in itertools.count(1))
    return next(n for n in names if not os.path.lexists(n))


def best_step(run: Run) -> int:
    """Of the checkpoint that `sslcli select RUN` ranks first, step 0 aside. RequestError where there are not two."""
    candidates = checkpoints(run)
    candidates = measure_all(candidates, {"quality": _composed("quality", [], Request())})
    return best(candidates, ranked(candidates, ranking.DEFAULT)).step


def best(candidates: list[Candidate], found: Ranking) -> Candidate:
    """The first that has learned something: the untrained network of step 0 is a baseline, nothing to take away."""
    return next((candidates[i] for i in found.order if candidates[i].step > 0), candidates[found.order[0]])


def closeness(candidates: list[Candidate], found: Ranking) -> list[str]:
    """Whether the first is distinguishable from the next: by the number of the ranking, where it is a share of samples, and by
    their probes, where there are any."""
    from sslcli.evals.metrics.interval import of_share
    from sslcli.evals.metrics.paired import by_intervals, separation

    if len(found.order) < 2:
        return []
    first, second = (candidates[i] for i in found.order[:2])
    values = [found.rows[i][found.by] for i in found.order[:2]]
    points = [c.quality["protocol"].get("points", 0) for c in (first, second)]
    spans = [
        of_share(value, n) if found.by in SHARES and 0 <= value <= 1 and n else (None, None)
        for value, n in zip(values, points, strict=True)
    ]
    notes = [f"by {found.by} {label(first)} is {by_intervals(values[0] - values[1], spans, found.by).words}"]
    if first.probe and second.probe:
        probes = [c.known(c.probe["fingerprint"]).get(c.probe_name) for c in (first, second)]
        notes.append(f"by their probes it is {separation(probes[0], probes[1], 'top1').words}")
    return notes


def measure_all(candidates: list[Candidate], settings: dict[str, dict[str, Any]]) -> list[Candidate]:
    """`quality` of each; of `probe` what is known, or what is measured where its settings are given. A checkpoint that cannot
    be loaded (a run that is being trained removes old ones) is left out. RequestError where fewer than two are left."""
    fingerprint = same_data(candidates, bool(settings["quality"].get("allow_data_change")))
    known = probe_name(candidates, settings, fingerprint)
    measured = []
    for number, c in enumerate(progress.track(candidates, "candidate"), start=1):
        console.say(f"{number}/{len(candidates)}  {label(c)}")
        try:
            c.quality = measure(c, "quality", settings["quality"], fingerprint)
            c.probe_name, c.probe = known, fitting(c, known, fingerprint)
            if "probe" in settings and not c.probe:
                c.probe = measure(c, "probe", settings["probe"], fingerprint)
        except TrainingError as e:
            if c.checkpoint is None:
                raise
            console.warn(f"{label(c)} is left out: {e.message}")
            continue
        measured.append(c)
    if len(measured) < 2:
        raise RequestError(
            f"{len(measured)} of {len(candidates)} checkpoints could be loaded: there is nothing to choose from",
            "train.keep=10 keeps more of them while training",
        )
    return measured


def probe_name(candidates: list[Candidate], settings: dict[str, dict[str, Any]], fingerprint: str) -> str:
    """The result that is shown beside the ranking: with the labels that were asked for, else those of most candidates."""
    if "probe" in settings:
        return results.name_of("probe", settings["probe"]["evaluator"]["labels"])
    names = [name for c in candidates for name, kept in c.known(fingerprint).items() if kept.evaluator == "probe"]
    return max(["probe", *dict.fromkeys(names)], key=names.count)


def _by(name: str) -> str:
    if name not in (known := list(ranking.METRICS)):
        close = nearest(name, known)
        raise RequestError(
            f"by={name}: there is no such number", f"by={close}" if close else f"one of {listing(known)}"
        )
    return name


def _yes(key: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise RequestError(f"{key}={text}: true or false", f"{key}=true")
    return text.lower() == "true"


def _composed(name: str, overrides: list[str], request: Request) -> dict[str, Any]:
    """The configuration of `sslcli eval NAME`, checked. Baselines are left out: they are the same for all."""
    from sslcli.config import instantiate
    from sslcli.runs import loggers

    refuse_unused(overrides, NOT_HERE, "that comes from each run", "leave it out")
    own = [f"evaluator={name}", "evaluator.baselines=false"]
    values = resolve(compose.compose("eval", [*own, *overrides], request.config_dirs))
    instantiate.check("evaluator", values["evaluator"], given=["backbone", "data"])
    loggers.Loggers(values["logger"]).check()
    return values


def label(c: Candidate) -> str:
    return c.checkpoint.name if c.checkpoint is not None else short_name(c.run.path)


def remarks(candidates: list[Candidate]) -> list[str]:
    """What makes these candidates hard to compare. A probe with another protocol than most is left out."""
    notes = []
    dims = sorted({c.quality["protocol"].get("dim", 0) for c in candidates})
    if len(dims) > 1:
        notes.append(f"features of {listing(map(str, dims))} numbers: what counts directions favours the wider ones")
    if len({repr(c.cfg["augmentation"]) for c in candidates}) > 1:
        notes.append(
            "trained with different augmentations: lidar, alignment and uniformity are of each one's own views"
        )
    unfinished = [c for c in candidates if c.checkpoint is None and c.run.status.get("status") != "done"]
    if unfinished:
        said = [f"{label(c)} ({c.run.status.get('status')}, encoder of step {c.step:,})" for c in unfinished]
        notes.append(f"not done: {listing(said, 5)}")
    collapsed = [label(c) for c in candidates if c.quality["numbers"].get("rankme", 2) < COLLAPSED]
    if collapsed:
        notes.append(f"may have collapsed, and look learnable for that: {listing(collapsed, 5)}")
    kinds = [_protocol(c) for c in candidates if c.probe]
    if len(set(kinds)) > 1:
        usual = max(kinds, key=kinds.count)
        for c in candidates:
            if c.probe and _protocol(c) != usual:
                c.probe = {}
        notes.append(f"probes of another protocol than labels={usual[0]} seeds={usual[1]} are left out")
    return notes


def _protocol(c: Candidate) -> tuple[Any, ...]:
    protocol = c.probe.get("protocol", {})
    return protocol.get("labels"), protocol.get("seeds"), repr(protocol.get("splits"))


def numbers_of(candidates: list[Candidate]) -> list[dict[str, float]]:
    """The label-free numbers of each, nan where one has not what others have."""
    rows = [{k: v for k, v in c.quality["numbers"].items() if isinstance(v, (int, float))} for c in candidates]
    for row, value in zip(rows, ranking.clid(rows), strict=True):
        row["clid"] = value
    known = [name for name in ranking.METRICS if any(not math.isnan(row.get(name, math.nan)) for row in rows)]
    return [{name: row.get(name, math.nan) for name in known} for row in rows]


def gaps(rows: list[dict[str, float]]) -> list[str]:
    """Which numbers some candidates lack (a collapsed one has no intrinsic_dim, one without an augmentation no lidar)."""
    lacking = {name: sum(math.isnan(row[name]) for row in rows) for name in rows[0]}
    return [f"{n} of {len(rows)} have no {name}: they rank last by it" for name, n in lacking.items() if n]


def agreements(rows: list[dict[str, float]], truth: list[float | None]) -> dict[str, dict[str, float]]:
    """How the ranking by each number agrees with the probe's, over the candidates that have one."""
    kept = [i for i, t in enumerate(truth) if t is not None]
    if len(kept) < 2:
        return {}
    right = [truth[i] for i in kept]
    scores = {name: [ranking.goodness(name, rows[i][name]) for i in kept] for name in rows[0]}
    return {name: ranking.agreement(values, right) for name, values in scores.items()}  # type: ignore[arg-type]


@dataclass
class Ranking:
    """Of candidates by one number: what each has, its rank by every number, and who comes first."""

    by: str
    rows: list[dict[str, float]]
    places: list[dict[str, float]]
    order: list[int]


def ranked(candidates: list[Candidate], by: str) -> Ranking:
    """RequestError where no candidate has the number."""
    rows = numbers_of(candidates)
    if by not in rows[0]:
        why = listing(dict.fromkeys(n for c in candidates for n in c.quality["protocol"].get("notes", [])), 3)
        raise RequestError(f"by={by}: no candidate has it", why or f"there are {listing(rows[0])}")
    places = ranking.rank_all(rows)
    return Ranking(by, rows, places, sorted(range(len(rows)), key=lambda i: places[i][by]))


def table(candidates: list[Candidate], found: Ranking, notes: list[str]) -> None:
    """The ranking, best first, and its agreement with the probe, onto stdout."""
    by, rows, places, order = found.by, found.rows, found.places, found.order
    notes += gaps(rows)
    tops = [c.probe.get("numbers", {}).get("top1") for c in candidates]
    agreed = agreements(rows, tops)
    n = sum(t is not None for t in tops)
    if agreed and n < FEW:
        notes.append(f"the correlations are of {n} candidates: with fewer than {FEW} they say next to nothing")
    elif not agreed:
        notes.append(
            "no probe to compare with: probe=true measures one of each (it reads labels; the ranking does not)"
        )
    if console.flag(console.JSON):
        each = [
            {
                "run": str(candidates[i].run.path),
                "checkpoint": candidates[i].checkpoint and str(candidates[i].checkpoint),
                "step": candidates[i].step,
                "numbers": rows[i],
                "ranks": places[i],
                "probe.top1": tops[i],
            }
            for i in order
        ]
        console.out_json(_finite({"by": by, "candidates": each, "agreement": agreed, "notes": notes}))
        return
    names = [by, *(n for n in rows[0] if n != by)]
    head = ["", "checkpoint" if candidates[0].checkpoint else "run", *names, *(["probe.top1"] if n else [])]
    body = [
        [
            f"{places[i][by]:g}",
            label(candidates[i]),
            *("" if math.isnan(rows[i][name]) else f"{rows[i][name]:.4g}" for name in names),
            *(["" if tops[i] is None else f"{tops[i]:.4f}"] if n else []),
        ]
        for i in order
    ]
    console.out(*console.table(head, body, numbers=[0, *range(2, len(head))]))
    if agreed:
        lines = [[k, f"{v['spearman']:.3f}", f"{v['kendall']:.3f}", str(v["n"])] for k, v in agreed.items()]
        head = ["agreement with probe.top1", "spearman", "kendall", "n"]
        console.out("", *console.table(head, lines, numbers=[1, 2, 3]))
    for note in notes:
        console.warn(note)


def _finite(value: Any) -> Any:
    """JSON has neither nan nor inf."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
