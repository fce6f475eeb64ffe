"""Samples in columns, and line panels, as artefacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sslcli.plotting import new_figure
from sslcli.runs import Record
from sslcli.runs.files import replacing
from sslcli.views.contact_sheet import sheet
from sslcli.views.preview import prose
from sslcli.views.preview.base import FAINT, INK, PAPER, Preview
from sslcli.views.preview.clip_sheet import ClipSheet, clip_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = (("#2f6690", "-"), ("#d1603d", ":"), ("#8a857a", "--"))  # what is meant, and what stands beside it


@dataclass
class Columns:
    """A row a sample, a column a view of it, as `sslcli.views.sheet` draws them."""

    rows: Sequence[Sequence[Preview]]
    titles: Sequence[str]
    caption: str

    def save(self, path: Path) -> None:
        with replacing(path) as temporary:
            sheet(temporary, self.rows, self.titles)

    def table(self) -> Record | None:
        """Samples that are read, such as documents, as a table of text for reports; None for others."""
        if not prose.is_prose(sample for row in self.rows for sample in row):
            return None
        return prose.table(prose.groups_of(self.rows, self.titles), {})

    def clips(self) -> ClipSheet | None:
        """Samples with sound or motion as they play in reports; None for others."""
        return clip_sheet(prose.groups_of(self.rows, self.titles), {}, self.caption, strips=True)


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
