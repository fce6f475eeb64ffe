"""Predicted values against true ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sslcli.plotting import new_figure
from sslcli.runs.files import replacing
from sslcli.views.preview.base import FAINT, INK, PAPER


@dataclass
class ValuePlot:
    """y (n,) and predictions (n,) of one draw of labels."""

    y: Tensor
    predicted: Tensor

    @property
    def caption(self) -> str:
        return f"predicted against true values of {len(self.y):,} test samples; on the line they are equal"

    def save(self, path: Path) -> None:
        figure = new_figure(figsize=(4.2, 4.0), dpi=150, facecolor=PAPER, layout="constrained")
        axes = figure.subplots()
        ends = [float(self.y.min()), float(self.y.max())]
        axes.plot(ends, ends, color=FAINT, linewidth=1.5)
        axes.scatter(self.y.tolist(), self.predicted.tolist(), s=6, color="#2f6690", alpha=0.5, linewidths=0)
        axes.set_xlabel("true value", fontsize=9, color=INK)
        axes.set_ylabel("predicted value", fontsize=9, color=INK)
        axes.tick_params(labelsize=8, colors=INK, length=2)
        axes.spines[:].set_visible(False)
        axes.set_facecolor("white")
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")
