"""The page of a study of `few_labels.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.few_labels import Study


def page(known: dict[str, Any], study: Study) -> str:
    """The page in Markdown."""
    results: dict[str, dict[str, float]] = known["results"]
    labels = study.labels

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
        f"# {study.title}",
        "",
        f"{study.facts} Made by `{about['command']}` on {about['machine']}, {about['date']}; torch "
        f"{about['versions'].get('torch')}.",
        "",
        f"The {' and the '.join(map(heading, study.metrics))} on the test samples, mean ± standard deviation over the seeds "
        "(n - 1). All models of a seed have the same labeled samples. Pretraining reads samples without their labels. Fine-tuning "
        "has the same recipe as training from scratch, with the same network.",
        *study.notes,
    ]
    lines += ["", *summary(results, study)]
    kinds = {"probe": "linear probe", "finetune": "fine-tuning", "baseline": ""}
    kinds |= {f"{kind}@{study.windows}": f"{kinds[kind]}, {study.windows} windows" for kind in ("probe", "finetune")}
    groups = [("", "Baselines without a network"), *((b, f"`{b}`") for b in study.backbones)]
    for backbone, title in groups:
        rows = list(dict.fromkeys((k.split("/")[1], k.split("/")[4]) for k in results if k.split("/")[0] == backbone))
        if not rows:
            continue
        lines += ["", f"## {title}", ""]
        if backbone:
            lines += [f"`{' '.join(study.backbones[backbone])}`", ""]
        columns = [
            f"{n} labels, {heading(m)}" if m == study.metrics[0] else heading(m) for n in labels for m in study.metrics
        ]
        lines += ["| | " + " | ".join(columns) + " | seeds |", "|---|" + "--:|" * (len(columns) + 1)]
        for method, kind in rows:
            found = [values(backbone, method, n, kind, m) for n in labels for m in study.metrics]
            name = {"scratch": "from scratch", "untrained": "random weights, linear probe"}.get(method)
            if name is None:
                name = study.baselines.get(method, f"`{method}`, {kinds[kind]}")
            elif "@" in kind:
                name += f", {study.windows} windows"
            lines.append(f"| {name} | " + " | ".join(map(cell, found)) + f" | {max(map(len, found))} |")
        lines += paired(backbone, rows, values, study) if backbone else []
    return "\n".join(lines) + "\n"


def heading(metric: str) -> str:
    return {"auroc": "AUROC"}.get(metric, metric)


def words(kind: str) -> str:
    """`probe@8` in words."""
    name, _, windows = kind.partition("@")
    return f"{name}, {windows} windows" if windows else name


def summary(results: Mapping[str, Mapping[str, float]], study: Study) -> list[str]:
    """For each number of labels: the best self-supervised model, training from scratch and the baselines, by their means."""
    lines, methods, name = [], study.methods, heading(study.metric)
    for n in study.labels:
        groups: dict[tuple[str, str, str], list[float]] = {}
        for key, scores in results.items():
            backbone, method, _, amount, kind = key.split("/")
            if amount == n:
                groups.setdefault((backbone, method, kind), []).append(scores[study.metric])
        means = {key: mean(values) for key, values in groups.items()}
        best = max((key for key in means if key[1] in methods), key=means.__getitem__, default=None)
        scratch = max((key for key in means if key[1] == "scratch"), key=means.__getitem__, default=None)
        if best is None or scratch is None:
            continue
        better = "above" if means[best] > means[scratch] else "not above"
        others = (
            f"{title} has {means['', b, 'baseline']:.3f}"
            for b, title in study.baselines.items()
            if ("", b, "baseline") in means
        )
        model = f"`{best[1]}`, `{best[0]}`, {words(best[2])}"
        lines.append(
            f"- {n} labels: the best self-supervised model ({model}) has {name} {means[best]:.3f} and is {better} the best one "
            f"from scratch (`{scratch[0]}`, {means[scratch]:.3f}); {', '.join(others)}."
        )
    return lines


def paired(
    backbone: str,
    rows: list[tuple[str, str]],
    values: Callable[..., dict[int, float]],
    study: Study,
) -> list[str]:
    """The metric of each self-supervised model less that of training from scratch, seed by seed."""
    lines, labels, methods = [], study.labels, study.methods
    for method, kind in rows:
        if method in methods:
            cells = []
            for n in labels:
                start = "".join(("finetune", *kind.partition("@")[1:]))  # over as many windows
                mine, scratch = (
                    values(backbone, m, n, k, study.metric) for m, k in ((method, kind), ("scratch", start))
                )
                both = [mine[s] - scratch[s] for s in mine if s in scratch]
                cells.append(f"{mean(both):+.3f} ({sum(b > 0 for b in both)} of {len(both)} above)" if both else "–")
            lines.append(f"| `{method}`, {words(kind)} | " + " | ".join(cells) + " |")
    if not lines:
        return []
    head = [
        f"| {heading(study.metric)} less that from scratch | " + " | ".join(f"{n} labels" for n in labels) + " |",
        "|---|--:|--:|--:|",
    ]
    return ["", *head, *lines]
