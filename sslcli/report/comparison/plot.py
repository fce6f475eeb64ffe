"""Curves of several runs in one picture. matplotlib is imported when it is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcli.plotting import new_figure
from sslcli.runs.files import replacing

Line = list[tuple[float, float]]  # epoch, value
# Okabe & Ito's colours, which stay apart for colour-blind eyes; each also has a line of its own.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
STYLES = ("-", "--", ":", "-.")
WANTED = {"train/loss": "training loss", "eval/knn/top1": "nearest neighbours while training (top 1)"}
MOST = 1_000  # points of a line


class Curves:
    """The lines of `WANTED` metrics, a panel each: `metrics` are the parsed lines of metrics.jsonl, a list a run.

    Losses of different methods (`alike` false) have nothing in common but their course: each is drawn between its own least and
    largest value.
    """

    def __init__(self, names: Sequence[str], metrics: Sequence[Sequence[Mapping[str, Any]]], alike: bool = True):
        self.names, self.panels = names, dict[str, list[Line]]()
        for key, title in WANTED.items():
            lines = [points(run, key) for run in metrics]
            if not any(lines):
                continue
            if key.endswith("loss") and not alike:
                title, lines = "training loss, each between its own least and largest value", [own(x) for x in lines]
            self.panels[title] = lines

    @property
    def caption(self) -> str:
        return f"{' and '.join(self.panels)} of {len(self.names)} runs, by epoch"

    def save(self, path: Path) -> None:

        rows = -(-len(self.names) // 2)
        figure = new_figure(figsize=(5.2 * len(self.panels) + 0.4, 3.6 + 0.2 * rows), dpi=150, layout="constrained")
        handles: list[Any] = []
        for place, (title, lines) in enumerate(self.panels.items(), start=1):
            axes = figure.add_subplot(1, len(self.panels), place, sharex=figure.axes[0] if place > 1 else None)
            handles = []
            for i, (name, line) in enumerate(zip(self.names, lines, strict=True)):
                handles += axes.plot(
                    [x for x, _ in line],
                    [y for _, y in line],
                    label=name,
                    color=COLOURS[i % len(COLOURS)],
                    linestyle=STYLES[i % len(STYLES)],
                    linewidth=1.5,
                    marker="o" if len(line) < 4 else None,
                    markersize=3.5,
                )
            axes.set_title(title, fontsize=10, loc="left")
            axes.set_xlabel("epoch", fontsize=9)
            axes.tick_params(labelsize=8, length=0)
            axes.grid(color="#e3e8ee", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.spines[:].set_visible(False)
        labels = [name.replace("$", r"\$") for name in self.names]
        figure.legend(
            handles, labels, loc="outside lower left", ncols=min(len(self.panels), 2), fontsize=8, frameon=False
        )
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": "sslcli"})


def points(lines: Sequence[Mapping[str, Any]], key: str) -> Line:
    """The finite values of a metric over epochs, thinned to at most `MOST` points."""
    found = [
        (float(line["epoch"]), float(value))
        for line in lines
        if isinstance(value := line.get(key), (int, float)) and math.isfinite(value) and "epoch" in line
    ]
    step = -(-len(found) // MOST)
    return found[:: max(1, step)] if step <= 1 else [*found[::step], found[-1]]


def own(line: Line) -> Line:
    """Between 0 and 1, its least and its largest value."""
    if not line:
        return []
    low, high = min(y for _, y in line), max(y for _, y in line)
    return [(x, (y - low) / (high - low) if high > low else 0.5) for x, y in line]
