"""Paired comparison of runs on the test samples that both predicted: bootstrap interval, McNemar's test, Holm's correction."""

from __future__ import annotations

from dataclasses import asdict

from sslcli.errors import RequestError, SslError, command, listing
from sslcli.evals.metrics import paired
from sslcli.rng import derive
from sslcli.runs import Record, records
from sslcli.runs.files import size_of
from sslcli.runs.run import Run


def compare_predictions(names: list[str], runs: list[Run], seed: int) -> tuple[list[Record], list[str]]:
    """Compares each run with the first in every evaluation that saved its predictions; and notes on what is missing."""
    items: list[Record] = []
    saved = [evaluations_with_predictions(run) for run in runs]
    missing = [(name, run) for name, run, evaluations in zip(names, runs, saved, strict=True) if not evaluations]
    shared = sorted(set.intersection(*(set(run.results) for run in runs)))
    if shared and not any(saved):
        return [], [f"{listing(shared)}: without predictions of single samples, so that no paired test is made"]
    notes = [
        f"{name} has no predictions to compare: {command('eval', 'probe', f'run={run.path}')}" for name, run in missing
    ]
    for evaluation in saved[0]:
        rows = []
        for name, run, evaluations in zip(names[1:], runs[1:], saved[1:], strict=True):
            if evaluation in evaluations:
                try:
                    row = compare_pair(runs[0], run, evaluation, seed)
                    rows.append({"evaluation": evaluation, "run": name, **row})
                except SslError as e:
                    notes.append(f"{evaluation} of {names[0]} and {name}: {e.message}")
        for row, p in zip(rows, paired.holm([row["p"] for row in rows]), strict=True):
            row["p_holm"] = p
        items += rows
    if not missing and not any(set(saved[0]) & set(evaluations) for evaluations in saved[1:]):
        notes.append(
            f"no evaluation saved predictions of both {names[0]} and another run: {command('eval', 'probe', 'run=RUN')}"
        )
    return items, notes


def evaluations_with_predictions(run: Run) -> list[str]:
    return [
        name for name, result in run.results.items() if size_of(run.path, result.artefact_path(paired.FILE)) is not None
    ]


def compare_pair(first: Run, second: Run, name: str, seed: int) -> Record:
    """`second` against `first` on the test samples of evaluation `name`. RequestError where the data differ."""
    results = [run.results[name] for run in (first, second)]
    if not paired.same_data(*results):
        raise RequestError("evaluated on different data: accuracies on different samples do not compare")
    a, b = (paired.read_predictions(result) for result in results)
    assert a is not None and b is not None  # noqa: PT018
    ids, correct_a, correct_b = paired.align(a, b)
    difference = paired.compare(correct_a, correct_b, derive(seed, "paired", name))
    notes = []
    for place, run, result in zip(("first", "second"), (first, second), results, strict=True):
        if result.record.get("sha256") != records.encoder(run.path).get("sha256"):
            notes.append(
                f"the result of the {place} is of step {result.record.get('step')}: it was trained further since"
            )
    settings = [result.record.get("evaluator") or {} for result in results]
    if other := [k for k in {**settings[0], **settings[1]} if settings[0].get(k) != settings[1].get(k)]:
        notes.append(f"evaluated with different {listing(sorted(other))}: the difference may be due to that")
    sizes = [len(predictions[0]) for predictions in (a, b)]
    if len(ids) < max(sizes):
        notes.append(f"on the {len(ids):,} samples that both predicted, of {sizes[0]:,} and {sizes[1]:,}")
    draws = [len(predictions[2]) for predictions in (a, b)]
    return {**asdict(difference), "draws": draws, "notes": notes}
