"""Rank candidates (runs, or the checkpoints of one) by a label-free metric; agreement of the ranking with linear probes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sslcli import console
from sslcli.config import Config
from sslcli.errors import RequestError, TrainingError, listing
from sslcli.evals.base.candidates import Candidate, Fingerprints, evaluate_candidate, find_record, require_same_data
from sslcli.evals.metrics import ranking
from sslcli.evals.metrics.interval import share_interval
from sslcli.evals.pairing.separation import by_intervals, separation
from sslcli.runs import results
from sslcli.runtime import progress

SHARES = ("learnability",)  # metrics that are an accuracy over samples
COLLAPSED = 2.0  # RankMe below which the features are nearly one-dimensional


@dataclass
class Ranking:
    """Candidates ranked by one label-free metric."""

    by: str
    rows: list[dict[str, float]]  # the label-free metrics of each candidate
    ranks: list[dict[str, float]]  # its rank by each metric, from 1
    order: list[int]  # indices of the candidates, best first


def evaluate_candidates(candidates: list[Candidate], settings: dict[str, Config]) -> list[Candidate]:
    """Evaluates `quality` of each candidate, and `probe` where `settings` hold its configuration; a saved probe is read.

    A checkpoint that cannot be loaded (a run in training removes old ones) is left out. RequestError for fewer than two."""
    labels = settings["probe"]["evaluator"]["labels"] if "probe" in settings else "all"
    fingerprints = require_same_data(candidates, labels, bool(settings["quality"].get("allow_data_change")))
    shared = probe_name(candidates, settings, fingerprints)
    evaluated = []
    for number, c in enumerate(progress.track(candidates, "candidate"), start=1):
        console.say(f"{number}/{len(candidates)}  {c.label}")
        try:
            c.quality = evaluate_candidate(c, "quality", settings["quality"], fingerprints)
            c.probe_name, c.probe = shared, find_record(c, shared, fingerprints)
            if "probe" in settings and not c.probe:
                c.probe = evaluate_candidate(c, "probe", settings["probe"], fingerprints)
        except TrainingError as e:
            if c.checkpoint is None:
                raise
            console.warn(f"{c.label} is left out: {e.message}")
            continue
        evaluated.append(c)
    if len(evaluated) < 2:
        raise RequestError(
            f"{len(evaluated)} of {len(candidates)} checkpoints could be loaded: two or more are needed",
            "train.keep=10 keeps more of them while training",
        )
    return evaluated


def probe_name(candidates: list[Candidate], settings: dict[str, Config], fingerprints: Fingerprints) -> str:
    """The probe result shown beside the ranking: with the requested labels, else with those that most candidates have."""
    if "probe" in settings:
        return results.result_name("probe", settings["probe"]["evaluator"]["labels"])
    names = [name for c in candidates for name, result in c.known(fingerprints).items() if result.evaluator == "probe"]
    return max(["probe", *dict.fromkeys(names)], key=names.count)


def rank_candidates(candidates: list[Candidate], by: str) -> Ranking:
    """Ranks candidates by metric `by`. RequestError where no candidate has it."""
    rows = label_free_metrics(candidates)
    if by not in rows[0]:
        reasons = listing(dict.fromkeys(n for c in candidates for n in c.quality["protocol"].get("notes", [])), 3)
        raise RequestError(f"by={by}: no candidate has it", reasons or f"available: {listing(rows[0])}")
    ranks = ranking.rank_all(rows)
    return Ranking(by, rows, ranks, sorted(range(len(rows)), key=lambda i: ranks[i][by]))


def best_candidate(candidates: list[Candidate], result: Ranking) -> Candidate:
    """The best candidate after step 0: the untrained network is a baseline and not worth exporting."""
    return next((candidates[i] for i in result.order if candidates[i].step > 0), candidates[result.order[0]])


def label_free_metrics(candidates: list[Candidate]) -> list[dict[str, float]]:
    """The label-free metrics of each candidate; nan for a metric that only others have."""
    rows = [{k: v for k, v in c.quality["numbers"].items() if isinstance(v, (int, float))} for c in candidates]
    for row, value in zip(rows, ranking.clid(rows), strict=True):
        row["clid"] = value
    known = [name for name in ranking.METRICS if any(not math.isnan(row.get(name, math.nan)) for row in rows)]
    return [{name: row.get(name, math.nan) for name in known} for row in rows]


def probe_agreement(rows: list[dict[str, float]], accuracies: list[float | None]) -> dict[str, dict[str, float]]:
    """Rank correlation of each metric with the accuracy of the probes, over the candidates that have one."""
    known = {i: accuracy for i, accuracy in enumerate(accuracies) if accuracy is not None}
    if len(known) < 2:
        return {}
    scores = {name: [ranking.goodness(name, rows[i][name]) for i in known] for name in rows[0]}
    return {name: ranking.agreement(values, list(known.values())) for name, values in scores.items()}


def missing_metric_notes(rows: list[dict[str, float]]) -> list[str]:
    """Metrics that some candidates lack (intrinsic_dim where features collapsed, lidar without an augmentation)."""
    lacking = {name: sum(math.isnan(row[name]) for row in rows) for name in rows[0]}
    return [f"{n} of {len(rows)} lack {name} and rank last by it" for name, n in lacking.items() if n]


def comparability_notes(candidates: list[Candidate]) -> list[str]:
    """Reasons why candidates are hard to compare. Discards probes whose protocol differs from that of most candidates."""
    notes = []
    dims = sorted({c.quality["protocol"].get("dim", 0) for c in candidates})
    if len(dims) > 1:
        notes.append(f"feature dimensions differ ({listing(map(str, dims))}): metrics of rank favor the wider ones")
    if len({repr(c.cfg["augmentation"]) for c in candidates}) > 1:
        notes.append("trained with different augmentations: lidar, alignment and uniformity use the views of each run")
    unfinished = [c for c in candidates if c.checkpoint is None and c.run.status.get("status") != "done"]
    if unfinished:
        states = [f"{c.label} ({c.run.status.get('status')}, encoder of step {c.step:,})" for c in unfinished]
        notes.append(f"not done: {listing(states, 5)}")
    collapsed = [c.label for c in candidates if c.quality["numbers"].get("rankme", 2) < COLLAPSED]
    if collapsed:
        notes.append(f"may have collapsed, which inflates learnability: {listing(collapsed, 5)}")
    kinds = [_protocol(c) for c in candidates if c.probe]
    if len(set(kinds)) > 1:
        usual = max(kinds, key=kinds.count)
        for c in candidates:
            if c.probe and _protocol(c) != usual:
                c.probe = {}
        notes.append(f"probes with a protocol other than labels={usual[0]} seeds={usual[1]} are left out")
    return notes


def _protocol(c: Candidate) -> tuple[Any, ...]:
    protocol = c.probe.get("protocol", {})
    return protocol.get("labels"), protocol.get("seeds"), repr(protocol.get("splits"))


def separation_notes(candidates: list[Candidate], result: Ranking) -> list[str]:
    """Whether the best candidate is distinguishable from the next, by the metric of the ranking and by their probes."""
    if len(result.order) < 2:
        return []
    first, second = (candidates[i] for i in result.order[:2])
    values = [result.rows[i][result.by] for i in result.order[:2]]
    points = [c.quality["protocol"].get("points", 0) for c in (first, second)]
    spans = [
        share_interval(value, n) if result.by in SHARES and 0 <= value <= 1 and n else (None, None)
        for value, n in zip(values, points, strict=True)
    ]
    notes = [f"by {result.by} {first.label} is {by_intervals(values[0] - values[1], spans, result.by).words}"]
    if first.probe and second.probe:
        probes = [c.known({"all": c.probe["fingerprint"]}).get(c.probe_name) for c in (first, second)]
        notes.append(f"by their probes it is {separation(probes[0], probes[1], 'top1').words}")
    return notes
