"""The page of benchmarks/series.py."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

BASELINES = Path(__file__).resolve().parents[1] / "docs" / "results" / "series_baselines.json"
SETS = ("ArrowHead", "GunPoint", "ItalyPowerDemand", "OSULeaf", "PLAID", "JapaneseVowels", "BasicMotions")
PUBLISHED: dict[str, tuple[float | None, ...]] = {
    "1-NN with dynamic time warping": (0.703, 0.907, 0.950, 0.591, 0.840, 0.949, 0.975),
    "MiniROCKET + ridge": (0.863, 0.993, 0.963, 0.959, None, None, 1.0),
    "TS2Vec, SVM": (0.857, 0.980, 0.925, 0.851, 0.561, 0.984, 0.975),
}


def page(results: dict[str, Any], about: dict[str, Any]) -> str:
    lines = ["# Series: seven UCR and UEA data sets", ""]
    lines += [
        f"Made by `{about['command']}` on {about['machine']}, torch {about['versions'].get('torch')}. The default split;"
    ]
    lines += [
        "the backbone is pretrained on the training split without labels and frozen. Accuracy on the test split, the mean over"
    ]
    lines += [
        "training seeds. The mean is over all seven sets; – where one of them was not measured. `ts2vec` trains 200 steps on"
    ]
    lines += [
        "every set; its authors train 600 on PLAID. The other methods train 200 steps on the backbones that they have by default."
    ]
    lines += _comparison(results)
    for kind, title in (("svm", "Support-vector machine, TS2Vec's protocol"), ("probe", "Linear probe")):
        lines += ["", f"## {title}", "", *_header()]
        for method in dict.fromkeys(key.split("/", 1)[1].rsplit("/", 1)[0] for key in results):
            cells = [_values(results, name, method, kind) for name in SETS]
            if any(cells):
                lines.append(_row(f"`{method}`", [mean(c) if c else None for c in cells], _seeds(cells)))
        lines += [_row(f"{name} (own, 5 seeds)", values) for name, values in _baselines().items()]
        lines += [_row(f"{name} (published)", list(values)) for name, values in PUBLISHED.items()]
    lines += ["", "## Spread over seeds and time", ""]
    lines += [
        "Standard deviation of the support-vector machine's accuracy over seeds, and processor seconds of a pretraining.",
        "",
    ]
    lines += ["| method | " + " | ".join(SETS) + " |", "|---|" + "--:|" * len(SETS)]
    for method in dict.fromkeys(key.split("/", 1)[1].rsplit("/", 1)[0] for key in results):
        cells = []
        for name in SETS:
            values = _values(results, name, method, "svm")
            seconds = _values(results, name, method, "pretraining_seconds")
            std = f"± {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{std} {mean(seconds):.0f} s" if seconds else std)
        if any(cells):
            lines.append(f"| `{method}` | " + " | ".join(c.strip() for c in cells) + " |")
    return "\n".join(lines) + "\n"


def _comparison(results: dict[str, Any]) -> list[str]:
    """TS2Vec beside its publication, the simple baselines, and two networks with random weights where these were measured."""
    ours = [_values(results, name, "ts2vec", "svm") for name in SETS]
    if not all(ours):
        return []
    means = dict(zip(SETS, map(mean, ours), strict=True))
    published = mean(v for v in PUBLISHED["TS2Vec, SVM"] if v is not None)
    own = {title: mean(values) for title, values in _baselines().items() if None not in values}  # type: ignore[type-var]
    lines = [
        "",
        f"`ts2vec`, which `sslcli pretrain dataset=series dataset.path=FILE` trains, has a mean of {mean(means.values()):.3f};",
        f"published are {published:.3f}. " + " ".join(f"{title} has {value:.3f}." for title, value in own.items()),
    ]
    for method in ("untrained/dilated", "untrained/tcn"):
        found = {name: _values(results, name, method, "svm") for name in SETS}
        beside = {name: mean(values) for name, values in found.items() if values}
        above = sum(means[name] > value for name, value in beside.items())
        least = min(means[name] - value for name, value in beside.items())
        lines.append(
            f"It is above `{method}` on {above} of {len(beside)} sets; the smallest difference is {least:+.3f}."
        )
    return lines


def _header() -> list[str]:
    return ["| model | " + " | ".join(SETS) + " | mean | seeds |", "|---|" + "--:|" * (len(SETS) + 2)]


def _values(results: dict[str, Any], name: str, method: str, kind: str) -> list[float]:
    found = [
        v
        for key, v in results.items()
        if key.split("/", 1)[0] == name and key.split("/", 1)[1].rsplit("/", 1)[0] == method
    ]
    return [v[kind] for v in found if kind in v]


def _seeds(cells: list[list[float]]) -> str:
    counts = sorted({len(c) for c in cells if c})
    return "–".join(map(str, [counts[0], counts[-1]] if len(counts) > 1 else counts))


def _row(title: str, values: list[float | None], seeds: str = "") -> str:
    known = [v for v in values if v is not None]
    average = f"{mean(known):.3f}" if len(known) == len(SETS) else "–"
    cells = [f"{v:.3f}" if v is not None else "–" for v in values]
    return f"| {title} | " + " | ".join([*cells, average, seeds]) + " |"


def _baselines() -> dict[str, list[float | None]]:
    """Of docs/results/series_baselines.json."""
    sets = json.loads(BASELINES.read_text())["sets"] if BASELINES.exists() else {}
    names = {"dtw": "1-NN with dynamic time warping", "minirocket": "MiniROCKET + ridge"}
    return {title: [sets.get(s, {}).get(key, {}).get("top1") for s in SETS] for key, title in names.items()}
