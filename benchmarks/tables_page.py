"""docs/results/tables.md from the measurements of `tables.py`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from statistics import mean, stdev
from typing import Any


def page(
    known: dict[str, Any], words: Mapping[str, list[str]], methods: Collection[str], labels: tuple[str, ...]
) -> str:
    """The page. `words`: of a pretraining, by backbone; `methods`: the self-supervised ones."""
    results: dict[str, dict[str, float]] = known["results"]

    def values(backbone: str, method: str, labels: str, kind: str, metric: str) -> dict[int, float]:
        keys = {s: f"{backbone}/{method}/{s}/{labels}/{kind}" for s in range(100)}
        return {s: results[k][metric] for s, k in keys.items() if k in results}

    def cell(found: dict[int, float]) -> str:
        if not found:
            return "–"
        spread = f" ± {stdev(found.values()):.3f}" if len(found) > 1 else ""
        return f"{mean(found.values()):.3f}{spread}"

    about = known["about"]
    lines = [
        "# Tables",
        "",
        f"Adult (UCI): 32,561 training rows, 16,281 test rows, 14 columns; the majority class is .764 of the test rows. Made by "
        f"`{about['command']}` on {about['machine']}, {about['date']}; torch {about['versions'].get('torch')}.",
        "",
        "Accuracy and AUROC on the test rows, mean ± standard deviation over the seeds (n - 1). All models of a seed have the same "
        "labeled rows. Pretraining reads the training rows without labels. Fine-tuning has the same recipe as training from "
        "scratch, with the same network; recipes were chosen on a fifth of the training rows.",
    ]
    lines += ["", *summary(results, methods, labels)]
    kinds = {"probe": "linear probe", "finetune": "fine-tuning", "baseline": ""}
    groups = [("", "Baselines without a network"), *((b, f"`{b}`") for b in words)]
    for backbone, title in groups:
        rows = list(dict.fromkeys((k.split("/")[1], k.split("/")[4]) for k in results if k.split("/")[0] == backbone))
        if not rows:
            continue
        lines += ["", f"## {title}", ""]
        if backbone:
            lines += [f"`{' '.join(words[backbone])}`", ""]
        lines += [
            "| | " + " | ".join(f"{n} labels, accuracy | AUROC" for n in labels) + " | seeds |",
            "|---|" + "--:|" * (2 * len(labels) + 1),
        ]
        for method, kind in rows:
            found = [values(backbone, method, n, kind, m) for n in labels for m in ("accuracy", "auroc")]
            name = {"scratch": "from scratch", "untrained": "random weights, linear probe"}.get(method)
            if name is None:
                name = {"linear": "logistic regression", "boosting": "gradient boosting"}.get(
                    method, f"`{method}`, {kinds[kind]}"
                )
            lines.append(f"| {name} | " + " | ".join(map(cell, found)) + f" | {max(map(len, found))} |")
        lines += paired(backbone, rows, values, methods, labels) if backbone else []
    return "\n".join(lines) + "\n"


def summary(results: Mapping[str, Mapping[str, float]], methods: Collection[str], labels: tuple[str, ...]) -> list[str]:
    """For each number of labels: the best self-supervised model, training from scratch and the baselines, by mean AUROC."""
    lines = []
    for n in labels:
        groups: dict[tuple[str, str, str], list[float]] = {}
        for key, scores in results.items():
            backbone, method, _, amount, kind = key.split("/")
            if amount == n:
                groups.setdefault((backbone, method, kind), []).append(scores["auroc"])
        means = {key: mean(values) for key, values in groups.items()}
        best = max((key for key in means if key[1] in methods), key=means.__getitem__, default=None)
        scratch = max((key for key in means if key[1] == "scratch"), key=means.__getitem__, default=None)
        if best is None or scratch is None:
            continue
        better = "above" if means[best] > means[scratch] else "not above"
        lines.append(
            f"- {n} labels: the best self-supervised model (`{best[1]}`, `{best[0]}`, {best[2]}) has AUROC {means[best]:.3f} and "
            f"is {better} the best one from scratch (`{scratch[0]}`, {means[scratch]:.3f}); logistic regression has "
            f"{means['', 'linear', 'baseline']:.3f}, gradient boosting {means['', 'boosting', 'baseline']:.3f}."
        )
    return lines


def paired(
    backbone: str,
    rows: list[tuple[str, str]],
    values: Callable[..., dict[int, float]],
    methods: Collection[str],
    labels: tuple[str, ...],
) -> list[str]:
    """AUROC of each self-supervised model less that of training from scratch, seed by seed."""
    lines = []
    for method, kind in rows:
        if method in methods:
            cells = []
            for n in labels:
                mine, scratch = (
                    values(backbone, m, n, k, "auroc") for m, k in ((method, kind), ("scratch", "finetune"))
                )
                both = [mine[s] - scratch[s] for s in mine if s in scratch]
                cells.append(f"{mean(both):+.3f} ({sum(b > 0 for b in both)} of {len(both)} above)" if both else "–")
            lines.append(f"| `{method}`, {kind} | " + " | ".join(cells) + " |")
    if not lines:
        return []
    head = ["| AUROC less that from scratch | " + " | ".join(f"{n} labels" for n in labels) + " |", "|---|--:|--:|--:|"]
    return ["", *head, *lines]
