"""Figures of results: clusters by classes, dots that stand beside each other, bars. matplotlib is imported when one is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sslcli.evals.artefacts.confusion import NAMES_UP_TO, NUMBERS_UP_TO, _percent, _short
from sslcli.plotting import new_figure
from sslcli.runs.files import replacing
from sslcli.views.preview.base import FAINT, INK, PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS_UP_TO = 40  # rows of dots
BARS_UP_TO = 30
LOOKS: tuple[dict[str, Any], ...] = (  # of each kind, the evaluated backbone first: distinguished by shape and color
    {"marker": "o", "color": "#2f6690", "markersize": 7},
    {"marker": "s", "color": "#d1603d", "markersize": 9, "fillstyle": "none"},
    {"marker": "^", "color": "#3a3a3a", "markersize": 9, "fillstyle": "none"},
)


@dataclass
class Grid:
    """Counts (rows, columns), each row shown as shares of itself."""

    counts: Tensor
    rows: Sequence[str]
    columns: Sequence[str]
    title: str
    caption: str
    row_label: str = ""
    column_label: str = ""

    def save(self, path: Path) -> None:
        """Write a PNG."""
        from matplotlib.colors import PowerNorm

        n, m = self.counts.shape
        share = (self.counts / self.counts.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
        few = max(n, m) <= NUMBERS_UP_TO
        each = 0.42 if few else 0.1
        size = min(14.0, max(4.6, 3.2 + each * m)), min(14.0, 2.6 + each * n)
        figure = _figure((size[0] + 0.7, size[1]))
        axes = figure.add_subplot()
        norm = PowerNorm(1.0 if few else 0.5, 0, 1)  # among many classes each share is small: show it nonetheless
        image = axes.imshow(share, cmap="Blues", norm=norm, interpolation="nearest", aspect="auto")
        axes.set_title(self.title, fontsize=10, loc="left", color=INK)
        axes.set_xlabel(self.column_label, fontsize=9)
        axes.set_ylabel(self.row_label, fontsize=9)
        for axis, names in ((axes.xaxis, self.columns), (axes.yaxis, self.rows)):
            step = -(-len(names) // NAMES_UP_TO)
            ticks = range(0, len(names), step)
            text = 8 if len(names) <= NUMBERS_UP_TO else 6.5 if len(names) <= 50 else 5
            turned = axis is axes.xaxis and (len(names) > NUMBERS_UP_TO or max(map(len, names)) > 3)
            axis.set_ticks(ticks, [_short(names[i]) for i in ticks], rotation=90 if turned else 0, fontsize=text)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if few:
            for i, j in self.counts.nonzero().tolist():
                cell_text = f"{100 * share[i, j]:.0f}" if share[i, j] >= 0.01 else "<1"
                color = "white" if share[i, j] > 0.55 else "#1b2a41"
                axes.text(j, i, cell_text, ha="center", va="center", fontsize=7, color=color)
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 0.1, 0.5, 1], format=_percent)
        bar.ax.tick_params(labelsize=8, length=0)
        bar.outline.set_visible(False)
        _save(figure, path)


@dataclass
class Dots:
    """A row a name, in each row a dot for each of up to three kinds; the lowest rows of the first kind where there are many.

    `values`: kind -> one number a row. `level`: where a line says what knowing nothing would give.
    """

    names: Sequence[str]
    values: Mapping[str, Sequence[float]]
    title: str
    caption: str
    level: float = 0.5
    level_name: str = "chance"

    def save(self, path: Path) -> None:
        """Write a PNG."""
        first = next(iter(self.values.values()))
        rows = list(range(len(self.names)))
        title = self.title
        if len(rows) > ROWS_UP_TO:
            rows = sorted(sorted(rows, key=lambda i: first[i])[:ROWS_UP_TO])
            title = f"{title} (the {ROWS_UP_TO} lowest of {len(self.names):,})"
        figure = _figure((7.2, 1.5 + 0.27 * len(rows)))
        axes = figure.add_subplot()
        at = range(len(rows))
        shown = [values[i] for values in self.values.values() for i in rows if values[i] == values[i]]
        low = max(0.0, min(0.95, *shown) - 0.02)
        axes.set_xlim(low, 1 + 0.02 * (1 - low))
        axes.hlines(at, low, 1, color=FAINT, linewidth=1, zorder=0)
        if low < self.level:
            axes.axvline(
                self.level, color="#8a857a", linewidth=1, linestyle=(0, (4, 3)), zorder=0, label=self.level_name
            )
        for order, ((kind, values), look) in enumerate(zip(self.values.items(), LOOKS, strict=False)):
            axes.plot([values[i] for i in rows], at, linestyle="none", label=kind, zorder=2 + order, **look)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(at, [_short(self.names[i]) for i in rows], fontsize=8)
        axes.tick_params(axis="x", labelsize=8, colors="#6f6a60", length=3)
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(FAINT)
        axes.set_title(title, fontsize=10, loc="left", color=INK)
        figure.legend(loc="outside lower left", ncols=4, frameon=False, fontsize=9, labelcolor=INK)
        _save(figure, path)


@dataclass
class Bars:
    """A bar a name, in the given order, the first BARS_UP_TO of them, with an interval of `errors` to either side.

    `marks`: kind -> one number a name, each shown as a mark on the bar."""

    names: Sequence[str]
    values: Sequence[float]
    errors: Sequence[float]
    marks: Mapping[str, Sequence[float]]
    title: str
    caption: str
    label: str = ""  # of the axis

    def save(self, path: Path) -> None:
        """Write a PNG."""
        n = min(len(self.names), BARS_UP_TO)
        title = self.title if n == len(self.names) else f"{self.title} (the first {n} of {len(self.names):,})"
        figure = _figure((7.2, 1.3 + 0.27 * n))
        axes = figure.add_subplot()
        error = {"ecolor": "#1b2a41", "elinewidth": 1, "capsize": 2}
        axes.barh(range(n), self.values[:n], 0.62, xerr=self.errors[:n], color="#8fb3cf", error_kw=error)
        for (kind, values), look in zip(self.marks.items(), LOOKS[1:], strict=False):
            axes.plot(values[:n], range(n), linestyle="none", label=kind, zorder=3, **look | {"markersize": 6})
        axes.set_xlim(left=0)
        axes.set_ylim(n - 0.4, -0.6)
        axes.set_yticks(range(n), [_short(name, 32) for name in self.names[:n]], fontsize=8)
        axes.set_xlabel(self.label, fontsize=9, color=INK)
        axes.tick_params(axis="x", labelsize=8, colors="#6f6a60", length=3)
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(FAINT)
        axes.set_title(title, fontsize=10, loc="left", color=INK)
        if self.marks:
            figure.legend(loc="outside lower left", ncols=4, frameon=False, fontsize=9, labelcolor=INK)
        _save(figure, path)


def _figure(size: tuple[float, float]) -> Figure:

    figure = new_figure(figsize=size, dpi=150, facecolor=PAPER, layout="constrained")
    return figure


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
