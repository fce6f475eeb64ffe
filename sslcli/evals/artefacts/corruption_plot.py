"""Artefacts of the robustness evaluation: accuracy by severity, and the corruptions of one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sslcli.evals.artefacts.sample_sheets import Cell, Row, Sheet
from sslcli.evals.base.features import EvalData
from sslcli.plotting import new_figure
from sslcli.rng import derive
from sslcli.runs.files import replacing
from sslcli.views import previews
from sslcli.views.corruption import STRENGTHS, corrupt
from sslcli.views.modality import modality
from sslcli.views.preview.base import FAINT, INK, PAPER


def corruption_sheet(data: EvalData, ids: Tensor, names: Sequence[str]) -> Sheet:
    part, x = next(iter(data.batches("test", ids)))
    x, seed = x.cpu(), derive(data.seed, "robustness")
    corruptions = modality(data.dataset.modality).corruptions(data.dataset)
    rows = []
    for name in names:
        versions = [x, *(corrupt(corruptions[name], name, x, s, part, seed) for s in range(1, STRENGTHS + 1))]
        shown = previews(data.dataset, torch.stack([z[0] for z in versions]))
        rows.append(Row(name.replace("_", " "), "", [Cell(sample) for sample in shown]))
    names_text = ", ".join(row.title for row in rows)
    caption = f"one test sample, clean and at five strengths of {names_text}"
    return Sheet("What the corruptions do", rows, caption, ("clean", "strength 1 to 5"), 1)


@dataclass
class SeverityPlot:
    """Accuracy against strength, a panel a corruption: kind -> (1 + corruptions, 1 + strengths), column 0 clean."""

    names: Sequence[str]
    top1: Mapping[str, Tensor]

    @property
    def caption(self) -> str:
        means = ", ".join(f"{k or 'this backbone'} {float(t[1:, 1:].mean()):.3f}" for k, t in self.top1.items())
        return f"accuracy of the linear probe at five strengths of {len(self.names)} corruptions; means: {means}"

    def save(self, path: Path) -> None:

        columns = min(4, len(self.names))
        rows = -(-len(self.names) // columns)
        figure = new_figure(
            figsize=(2.5 * columns + 0.5, 2.0 * rows + 0.7), dpi=150, facecolor=PAPER, layout="constrained"
        )
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
        styles = {"": ("#2f6690", "-", "o"), "raw": ("#8a857a", "--", "s"), "untrained": ("#d1603d", ":", "^")}
        styles["given"] = ("#7a5195", "-.", "v")
        for axes in panels[len(self.names) :]:
            axes.set_axis_off()
        for i, (axes, name) in enumerate(zip(panels, self.names, strict=False), start=1):
            for kind, table in self.top1.items():
                color, line, mark = styles[kind]
                label = kind or "this backbone"
                axes.plot(table[i].tolist(), line, marker=mark, markersize=3, linewidth=1.3, color=color, label=label)
            axes.set_title(name.replace("_", " "), fontsize=9, color=INK)
            axes.set(ylim=(0, 1.02), xticks=range(STRENGTHS + 1))
            axes.tick_params(labelsize=8, colors=INK, length=2)
            axes.grid(axis="y", color=FAINT, linewidth=0.6)
            axes.spines[:].set_visible(False)
            axes.set_facecolor("white")
        figure.supxlabel("strength (0: clean)", fontsize=9, color=INK)
        figure.supylabel("accuracy", fontsize=9, color=INK)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names), fontsize=8, frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", facecolor=PAPER)
