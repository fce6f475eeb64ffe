"""Confusion matrix as an image. matplotlib is imported when it is saved, without a display."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sslcli.plotting import new_figure
from sslcli.runs.files import replacing

NUMBERS_UP_TO = 20  # classes; above, a cell is too small for its percentage
NAMES_UP_TO = 120


@dataclass
class Confusion:
    """Counts (K, K), rows are the truth, columns what was predicted."""

    counts: Tensor
    classes: Sequence[str] = ()

    @property
    def caption(self) -> str:
        right, total = int(self.counts.diagonal().sum()), int(self.counts.sum())
        return f"confusion matrix: {right:,} of {total:,} predictions are right; rows are the truth, columns what was predicted"

    def save(self, path: Path) -> None:
        """Write a PNG: each row as shares of its class, so that rare classes are seen as well as common ones."""
        from matplotlib.colors import PowerNorm

        k = len(self.counts)
        share = (self.counts / self.counts.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
        names = [_short(self.classes[i]) if i < len(self.classes) else str(i) for i in range(k)]
        side = min(14.0, 3.2 + (0.42 if k <= NUMBERS_UP_TO else 0.1) * k)
        shade = 1.0 if k <= NUMBERS_UP_TO else 0.5  # among many classes each confusion is small: show it nonetheless
        figure = new_figure(figsize=(side + 0.7, side), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(share, cmap="Blues", norm=PowerNorm(shade, 0, 1), interpolation="nearest")
        right, total = int(self.counts.diagonal().sum()), int(self.counts.sum())
        axes.set_title(f"{right / max(1, total):.1%} of {total:,} predictions are right", fontsize=10, loc="left")
        axes.set_xlabel("predicted", fontsize=9)
        axes.set_ylabel("true", fontsize=9)
        step = 1 if k <= NAMES_UP_TO else -(-k // NAMES_UP_TO)
        size = 8 if k <= NUMBERS_UP_TO else 6.5 if k <= 50 else 5
        ticks = range(0, k, step)
        turned = k > NUMBERS_UP_TO or max(len(n) for n in names) > 3
        axes.set_xticks(ticks, [names[i] for i in ticks], rotation=90 if turned else 0, fontsize=size)
        axes.set_yticks(ticks, [names[i] for i in ticks], fontsize=size)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if k <= NUMBERS_UP_TO:
            for i in range(k):
                for j in range(k):
                    if self.counts[i, j]:
                        text = f"{100 * share[i, j]:.0f}" if share[i, j] >= 0.01 else "<1"
                        color = "white" if share[i, j] > 0.55 else "#1b2a41"
                        axes.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 0.1, 0.5, 1], format=_percent)
        bar.ax.tick_params(labelsize=8, length=0)
        bar.outline.set_visible(False)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")


def _percent(value: float, _position: int) -> str:
    return f"{100 * value:.0f} %"


def _short(name: str, most: int = 18) -> str:
    """A name of at most `most` characters, to fit beside a cell; `$` would start a formula in matplotlib."""
    name = " ".join(name.split())
    return (name if len(name) <= most else f"{name[: most - 1]}…").replace("$", r"\$")
