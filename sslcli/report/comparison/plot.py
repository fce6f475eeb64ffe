"""Training curves of several runs in one figure. matplotlib is imported when the figure is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcli.plotting import new_figure
from sslcli.runs.files import replacing

Line = list[tuple[float, float]]  # epoch, value
# Okabe & Ito's palette, distinguishable with color blindness; the line style differs as well.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
STYLES = ("-", "--", ":", "-.")
METRICS = {"train/loss": "training loss", "eval/knn/top1": "online k-NN accuracy (top 1)"}
MAX_POINTS = 1_000  # of a line


class Curves:
    """One panel for each of `METRICS`; `metrics` holds the parsed lines of metrics.jsonl of each run.

    Losses of different methods have no common scale: unless `same_method`, each is scaled to its own range.
    """

    def __init__(self, names: Sequence[str], metrics: Sequence[Sequence[Mapping[str, Any]]], same_method: bool = True):
        self.names, self.panels = names, dict[str, list[Line]]()
        for key, title in METRICS.items():
            lines = [points(run, key) for run in metrics]
            if not any(lines):
                continue
            if key.endswith("loss") and not same_method:
                title, lines = "training loss, each scaled to its own range", [rescale(x) for x in lines]
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
                    color=COLORS[i % len(COLORS)],
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
    """The finite values of a metric over epochs, thinned to at most `MAX_POINTS` points."""
    values = [
        (float(line["epoch"]), float(value))
        for line in lines
        if isinstance(value := line.get(key), (int, float)) and math.isfinite(value) and "epoch" in line
    ]
    step = -(-len(values) // MAX_POINTS)
    return values[:: max(1, step)] if step <= 1 else [*values[::step], values[-1]]


def rescale(line: Line) -> Line:
    """The line scaled to the range [0, 1]."""
    if not line:
        return []
    low, high = min(y for _, y in line), max(y for _, y in line)
    return [(x, (y - low) / (high - low) if high > low else 0.5) for x, y in line]
