"""The image of a label-efficiency curve."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcli.evals.metrics.interval import format_interval
from sslcli.evals.metrics.labels_saved import TOP1, Line, Measure
from sslcli.plotting import new_figure
from sslcli.runs.files import replacing
from sslcli.views.preview.base import FAINT, INK, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = 96  # characters that fit into a line above the image
# Okabe & Ito's colors, distinguishable with color blindness; marker and dashes say the same in gray.
STYLES: dict[str, tuple[str, str, str, Any]] = {  # kind -> words, color, marker, line
    "": ("self-supervised", "#0072b2", "o", "-"),
    "finetuned": ("fine-tuned", "#56b4e9", "D", (0, (6, 1.5))),
    "supervised": ("supervised from scratch", "#d55e00", "s", (0, (4, 2))),
    "given": ("given weights", "#882255", "v", (0, (2, 1))),
    "untrained": ("untrained backbone", "#009e73", "^", (0, (1, 1.5))),
    "raw": ("raw input", "#6d6d6d", "x", (0, (5, 1.5, 1, 1.5))),
}

MORE = (
    ("#cc79a7", "v", (0, (3, 1))),
    ("#e69f00", "P", (0, (2, 2))),
    ("#000000", "*", (0, (7, 2))),
)  # of further curves


def styles(kinds: Iterable[str]) -> dict[str, tuple[str, str, str, Any]]:
    """Words, color, marker and line of each curve. The baselines of a modality are called by their names."""
    further = [kind for kind in kinds if kind not in STYLES]
    return STYLES | {kind: (kind.replace("_", " "), *MORE[i % len(MORE)]) for i, kind in enumerate(further)}


@dataclass
class LabelCurve:
    """Accuracy, or error, by number of labels, and an arrow for the labels saved (`quoted` of `labels_saved`, or None)."""

    lines: list[Line]
    dataset: str
    quoted: dict[str, Any] | None = None
    measure: Measure = TOP1

    @property
    def styles(self) -> dict[str, tuple[str, str, str, Any]]:
        return styles(line.kind for line in self.lines)

    @property
    def caption(self) -> str:
        main_line = self.lines[0]
        text = f"{self.measured} on {self.dataset} by number of labels: self-supervised {self._ends(main_line)}"
        text += "".join(f", {self.styles[line.kind][0]} {self._ends(line)}" for line in self.lines[1:])
        return f"{text}; {self.saving()}" if self.quoted else text

    @property
    def measured(self) -> str:
        return "RMSE of the predicted value" if self.measure.smaller else "accuracy"

    def value(self, value: float, space: str = "") -> str:
        """The text of a value: `97.1%`, or `54.2`."""
        return f"{value:.4g}" if self.measure.smaller else f"{100 * value:.1f}{space}%"

    def saving(self) -> str:
        """The figure in words."""
        assert self.quoted is not None
        q = self.quoted
        words = self.styles[q["baseline"]][0]
        per_class = " per class" if self.measure.per_class else ""
        amount = "all labels" if q["at"] == "all" else f"{q['at']} labels{per_class}"
        what = f"what the self-supervised probe reaches with {amount} ({self.value(q[self.measure.name])})"
        if not q.get("certain", True):
            return f"these draws of labels do not show whether {words} needs more of them for {what}"
        if q.get("interval"):
            what += f"; 95 % over draws {format_interval(*q['interval'])}"
        if q["relation"] == ">":
            return f"{words} does not reach with {q['factor']:.3g} times the labels {what}"
        least = "at most " if q["relation"] == "<=" else ""
        return f"{words} needs {least}{q['factor']:.3g} times the labels for {what}"

    def _ends(self, line: Line) -> str:
        first, last = (f"{self.value(line.mean[i])} with {line.labels[i]:,}" for i in (0, -1))
        return f"{first} and {last}"

    def save(self, path: Path) -> None:
        figure = new_figure(figsize=(8.2, 4.8), dpi=150, facecolor=PAPER, layout="constrained")
        axes = figure.add_subplot(facecolor=PAPER)
        axes.set_xscale("log")
        for line in self.lines:
            _, color, marker, dashes = self.styles[line.kind]
            low = [m - (s or 0.0) for m, s in zip(line.mean, line.std, strict=True)]
            high = [m + (s or 0.0) for m, s in zip(line.mean, line.std, strict=True)]
            axes.fill_between(line.labels, low, high, color=color, alpha=0.15, linewidth=0)
            width = 2.2 if line.kind == "" else 1.5
            hollow = "none" if marker in "s^" else color
            axes.plot(
                line.labels,
                line.mean,
                color=color,
                linestyle=dashes,
                marker=marker,
                markersize=5.5,
                linewidth=width,
                markerfacecolor=hollow,
            )
        self._frame(axes)
        self._names(axes)
        if self.quoted and self.quoted.get("certain", True):
            self._arrow(axes)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", facecolor=PAPER)

    def _frame(self, axes: Axes) -> None:
        first, last = self.lines[0].labels[0], self.lines[0].labels[-1]
        wide = max(last / first, 2.0)
        axes.set_xlim(first / wide**0.04, last * wide**0.42)  # room for the names at the ends of the lines
        main_line = self.lines[0]
        ticks = [
            f"{n:,}\n{name}" if name == "all" else f"{n:,}\n{name}/class" if self.measure.per_class else f"{n:,}"
            for n, name in zip(main_line.labels, main_line.names, strict=True)
        ]
        drawn = axes.set_xticks(main_line.labels, ticks, fontsize=8)
        for i, (n, m) in enumerate(pairwise(main_line.labels)):
            if m / n < wide**0.12:  # too near for two words side by side
                drawn[i].label1.set_horizontalalignment("right")
                drawn[i + 1].label1.set_horizontalalignment("left")
        axes.set_xticks([], minor=True)
        lowest = min(m - (s or 0.0) for line in self.lines for m, s in zip(line.mean, line.std, strict=True))
        if self.measure.smaller:
            highest = max(m + (s or 0.0) for line in self.lines for m, s in zip(line.mean, line.std, strict=True))
            margin = 0.04 * (highest - lowest) or 0.04 * highest or 1.0
            axes.set_ylim(max(0.0, lowest - margin), highest + margin)
        else:
            axes.set_ylim(max(0.0, lowest - 0.04), 1.01)
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.tick_params(colors="#5a564d", length=3, labelsize=8)
        axes.set_xlabel("labels", fontsize=9, color=INK)
        title = f"{self.measured} on the test split of {self.dataset}; bands: a standard deviation over draws of labels"
        lines = textwrap.wrap(title, TITLE) + (textwrap.wrap(self.saving(), TITLE) if self.quoted else [])
        axes.set_title("\n".join(lines).replace("$", r"\$"), fontsize=9.5, loc="left", color=INK, linespacing=1.5)
        axes.grid(axis="y", color=FAINT, linewidth=0.7)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(FAINT)

    def _names(self, axes: Axes) -> None:
        """Each line's name at its right end, moved apart where they would overlap."""
        bottom, top = axes.get_ylim()
        gap = 0.052 * (top - bottom)
        ends = sorted(self.lines, key=lambda line: line.mean[-1])
        places: list[float] = []
        for line in ends:
            places.append(max(line.mean[-1], places[-1] + gap) if places else line.mean[-1])
        over = places[-1] - (top - gap / 2)
        for i in range(len(places) - 1, -1, -1):  # back under the top, pushing down what is in the way
            limit = top - gap / 2 if i == len(places) - 1 else places[i + 1] - gap
            places[i] = min(places[i], limit) if over > 0 else places[i]
        for line, place in zip(ends, places, strict=True):
            words, color, _, _ = self.styles[line.kind]
            axes.annotate(
                f"{words}  {self.value(line.mean[-1], ' ')}",
                (line.labels[-1], line.mean[-1]),
                (line.labels[-1] * (self.lines[0].labels[-1] / self.lines[0].labels[0]) ** 0.03, place),
                textcoords="data",
                va="center",
                fontsize=8.5,
                color=color,
                fontweight="bold" if line.kind == "" else "normal",
                arrowprops={
                    "arrowstyle": "-",
                    "color": FAINT,
                    "linewidth": 0.7,
                    "shrinkA": 0,
                    "shrinkB": 3,
                    "relpos": (0, 0.5),
                },
            )

    def _arrow(self, axes: Axes) -> None:
        """From the self-supervised point to where the best baseline is as good."""
        assert self.quoted is not None
        q = self.quoted
        if q["factor"] == 1:
            return
        start, end, height = q["labels"], q["labels"] * q["factor"], q[self.measure.name]
        shape = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (end, height), (start, height), arrowprops=shape, zorder=4)
        sign = {"=": "", ">": "> ", "<=": "\u2264 "}[q["relation"]]
        axes.annotate(
            f"{sign}{q['factor']:.3g} \u00d7",
            ((start * end) ** 0.5, height),
            (0, -13),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=INK,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1, "alpha": 0.85},
            zorder=4,
        )
