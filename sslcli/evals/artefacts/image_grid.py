"""Images in columns, series over importance strips, and line panels as artefacts; heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcli.plotting import new_figure
from sslcli.runs.files import replacing
from sslcli.views.contact_sheet import FAINT, INK, PAPER, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HEAT = torch.tensor(  # from paper over amber and red to nearly black: darker is more, in gray too
    [[251, 250, 247], [250, 214, 137], [226, 128, 62], [160, 44, 48], [52, 12, 30]], dtype=torch.float32
)

LINES = (("#2f6690", "-"), ("#d1603d", ":"), ("#8a857a", "--"))  # what is meant, and what stands beside it


@dataclass
class Columns:
    """A row a sample, a column a view of it: images (C, H, W) in 0..1 or series (C, T), as `sslcli.views.sheet` draws them."""

    rows: Sequence[Sequence[Tensor]]
    titles: Sequence[str]
    caption: str

    def save(self, path: Path) -> None:
        with replacing(path) as temporary:
            sheet(temporary, self.rows, self.titles)


def heat(x: Tensor) -> Tensor:
    """(H, W) in 0..1 -> (3, H, W) in 0..1: light is 0, dark is 1; NaN is light."""
    place = x.detach().cpu().float().nan_to_num(0.0).clamp(0, 1) * (len(_HEAT) - 1)
    low = place.floor().clamp(max=len(_HEAT) - 2).long()
    share = (place - low)[..., None]
    color = _HEAT[low] * (1 - share) + _HEAT[low + 1] * share
    return (color / 255).permute(2, 0, 1)


@dataclass
class Strips:
    """Series (C, T), each over a strip colored by the importance (T,) in 0..1 of its steps."""

    samples: Sequence[Tensor]
    importance: Sequence[Tensor]
    caption: str

    def save(self, path: Path) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        shades = LinearSegmentedColormap.from_list("heat", (_HEAT[:4] / 255).tolist())
        figure = new_figure(figsize=(8, 1.3 * len(self.samples) + 0.4), dpi=110, facecolor=PAPER, layout="constrained")
        panels = figure.subplots(len(self.samples), 1, squeeze=False, sharex=True)[:, 0]
        for axes, x, weight in zip(panels, self.samples, self.importance, strict=True):
            known = x[x.isfinite()]
            low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
            room = 0.08 * (high - low) or 1.0
            box = (-0.5, x.shape[1] - 0.5, low - room, high + room)
            axes.imshow(weight[None].numpy(), extent=box, aspect="auto", cmap=shades, vmin=0, vmax=1, alpha=0.75)
            for channel in x:
                axes.plot(channel.numpy(), color=INK, linewidth=1.0, alpha=0.9)
            axes.set(xlim=box[:2], ylim=box[2:])
            axes.tick_params(labelsize=7, colors=INK, length=2)
            axes.spines[:].set_color(FAINT)
        _save(figure, path)


@dataclass
class Panels:
    """Lines in panels side by side: title -> name -> (x, y); the first name is the one that is meant."""

    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]
    across: str
    up: str
    caption: str

    def save(self, path: Path) -> None:

        figure = new_figure(figsize=(3.9 * len(self.panels), 3.4), dpi=140, facecolor=PAPER, layout="constrained")
        all_axes = figure.subplots(1, len(self.panels), squeeze=False, sharey=True)[0]
        for axes, (title, lines) in zip(all_axes, self.panels.items(), strict=True):
            for (name, (x, y)), (color, line) in zip(lines.items(), LINES, strict=False):
                axes.plot(x, y, linestyle=line, color=color, linewidth=1.6, label=name)
            axes.set_title(title, fontsize=10, color=INK)
            axes.tick_params(labelsize=8, colors=INK, length=2)
            axes.grid(axis="y", color=FAINT, linewidth=0.6)
            axes.spines[:].set_visible(False)
            axes.set_facecolor("white")
        figure.supxlabel(self.across, fontsize=9, color=INK)
        figure.supylabel(self.up, fontsize=9, color=INK)
        handles, names = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names), fontsize=8, frameon=False)
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", facecolor=PAPER)
