"""Paired comparison of runs on the test samples, or the users, that both predicted: bootstrap interval, test, Holm's correction."""

from __future__ import annotations

from dataclasses import asdict

from sslcli.errors import RequestError, SslError, command, listing
from sslcli.evals.metrics import paired
from sslcli.evals.pairing import predictions, ranks
from sslcli.rng import derive
from sslcli.runs import Record, records
from sslcli.runs.files import size_of
from sslcli.runs.results import SavedResult
from sslcli.runs.run import Run

FILES = (predictions.FILE, ranks.RANKS)


def compare_predictions(names: list[str], runs: list[Run], seed: int) -> tuple[list[Record], list[str]]:
    """Compares each run with the first in every evaluation that saved its predictions, and the first with the baselines of its
    recommendations; and notes on what is missing."""
    items: list[Record] = []
    saved = [evaluations_with_predictions(run) for run in runs]
    missing = [(name, run) for name, run, evaluations in zip(names, runs, saved, strict=True) if not evaluations]
    shared = sorted(set.intersection(*(set(run.results) for run in runs)))
    if shared and not any(saved):
        return [], [f"{listing(shared)}: without predictions of single samples, so that no paired test is made"]
    notes = [
        f"{name} has no predictions to compare: {command('eval', _evaluator(saved), f'run={run.path}')}"
        for name, run in missing
    ]
    for evaluation in saved[0]:
        rows: list[Record] = []
        for name, run, evaluations in zip(names[1:], runs[1:], saved[1:], strict=True):
            if evaluation in evaluations:
                try:
                    found = compare_pair(runs[0], run, evaluation, seed)
                    rows += [{"evaluation": evaluation, "run": name, **row} for row in found]
                except SslError as e:
                    notes.append(f"{evaluation} of {names[0]} and {name}: {e.message}")
        if rows:
            rows += [{"evaluation": evaluation, **row} for row in compare_baselines(runs[0].results[evaluation], seed)]
        for metric in dict.fromkeys(row["metric"] for row in rows):
            family = [row for row in rows if row["metric"] == metric]
            for row, p in zip(family, paired.holm([row["p"] for row in family]), strict=True):
                row["p_holm"] = p
            items += family
    if not missing and not any(set(saved[0]) & set(evaluations) for evaluations in saved[1:]):
        notes.append(
            f"no evaluation saved predictions of both {names[0]} and another run: "
            f"{command('eval', _evaluator(saved), 'run=RUN')}"
        )
    return items, notes


def _evaluator(saved: list[list[str]]) -> str:
    """The evaluator that a run lacks: one that another run has."""
    return next((name.partition("@")[0] for evaluations in saved for name in evaluations), "probe")


def evaluations_with_predictions(run: Run) -> list[str]:
    return [
        name
        for name, result in run.results.items()
        if any(size_of(run.path, result.artefact_path(file)) is not None for file in FILES)
    ]


def compare_pair(first: Run, second: Run, name: str, seed: int) -> list[Record]:
    """`second` against `first` on the test samples, or the users, of evaluation `name`, for each metric. RequestError where the
    data differ."""
    results = [run.results[name] for run in (first, second)]
    if not predictions.same_data(*results):
        raise RequestError("evaluated on different data: accuracies on different samples do not compare")
    notes = []
    for place, run, result in zip(("first", "second"), (first, second), results, strict=True):
        if result.record.get("sha256") != records.encoder(run.path).get("sha256"):
            notes.append(
                f"the result of the {place} is of step {result.record.get('step')}: it was trained further since"
            )
    settings = [result.record.get("evaluator") or {} for result in results]
    if other := [k for k in {**settings[0], **settings[1]} if settings[0].get(k) != settings[1].get(k)]:
        notes.append(f"evaluated with different {listing(sorted(other))}: the difference may be due to that")
    compared = _classes if _has_classes(results) else _ranks
    rows, sizes, what = compared(results[0], results[1], seed)
    shared = rows[0]["items"] if rows else 0
    if rows and shared < max(sizes):
        notes.append(f"on the {shared:,} {what} that both predicted, of {sizes[0]:,} and {sizes[1]:,}")
    return [{**row, "notes": notes} for row in rows]


def _has_classes(results: list[SavedResult]) -> bool:
    return all(size_of(result.run, result.artefact_path(predictions.FILE)) is not None for result in results)


def _classes(first: SavedResult, second: SavedResult, seed: int) -> tuple[list[Record], list[int], str]:
    a, b = (predictions.read_predictions(result) for result in (first, second))
    assert a is not None and b is not None  # noqa: PT018
    _, correct_a, correct_b = predictions.align(a, b)
    difference = paired.compare(correct_a, correct_b, derive(seed, "paired", first.name))
    draws = [len(arrays[2]) for arrays in (a, b)]
    return [{"metric": "top1", **asdict(difference), "draws": draws}], [len(a[0]), len(b[0])], "samples"


def _ranks(first: SavedResult, second: SavedResult, seed: int) -> tuple[list[Record], list[int], str]:
    a, b = (ranks.read_ranks(result) for result in (first, second))
    if a is None or b is None:
        raise RequestError("one of them was evaluated without ranks of single users", "sslcli eval recommend run=RUN")
    rows = []
    for metric in ranks.COMPARED:
        scores = ranks.align_ranks(a, b, metric)
        if scores is not None:
            difference = paired.compare(*scores, derive(seed, "paired", first.name), test=ranks.rank_test(metric))
            rows.append({"metric": metric, **asdict(difference)})
    return rows, [len(a.ids), len(b.ids)], "users"


def compare_baselines(result: SavedResult, seed: int) -> list[Record]:
    """Each baseline of recommendations against the run."""
    arrays = ranks.read_ranks(result)
    rows = []
    for metric in ranks.COMPARED if arrays is not None else ():
        assert arrays is not None
        for name in arrays.baselines:
            own, other = arrays.scores(metric), arrays.scores(f"{name}.{metric}")
            if own is not None and other is not None:
                found = paired.compare(own, other, derive(seed, "paired", result.name), test=ranks.rank_test(metric))
                rows.append({"run": name, "metric": metric, **asdict(found), "notes": []})
    return rows
