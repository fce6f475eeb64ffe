"""Artefacts of `explain`: attribution maps of some samples, deletion and insertion curves, and a ranking of positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslcli.evals.artefacts.figures import Bars
from sslcli.evals.artefacts.sample_grid import Columns, Panels
from sslcli.evals.artefacts.sample_sheets import Cell, Row, Sheet, class_name
from sslcli.evals.base.features import EvalData
from sslcli.evals.metrics import attribution_maps
from sslcli.runs import Record
from sslcli.views import previews
from sslcli.views.preview import prose
from sslcli.views.preview.base import Preview

HEADS = 6  # shown


@dataclass
class AttributionExample:
    id: int
    x: Tensor
    each: Tensor  # (heads, *grid)


def map_sheet(
    data: EvalData, title: str, source: str, shown: list[AttributionExample], tokens: Tensor
) -> tuple[dict[str, Any], float]:
    """maps.png, and how much of the variance its colors hold."""
    colors, share = attribution_maps.pca_colors(tokens.flatten(0, 1))
    colors = colors.view(*tokens.shape[:2], 3)
    what = f"{len(shown)} test samples, not chosen, and the importance of their positions ({source}); dark is more"
    n_heads = min(HEADS, len(shown[0].each)) if len(shown[0].each) > 1 else 0
    titles = ["source", title, *(f"head {i + 1}" for i in range(n_heads)), "features"]
    x, ids = torch.stack([one.x for one in shown]), torch.tensor([one.id for one in shown])
    samples = previews(data.dataset, x, data.source(data.eval_split), ids)
    if prose.is_prose(samples):
        return {"maps.png": _list(data, title, source, shown, samples)}, share
    rows = []
    for one, sample, patch_colors in zip(shown, samples, colors, strict=True):
        grid = one.each.shape[1:]
        maps = [one.each.mean(dim=0), *one.each[:n_heads]]
        patches = sample.overlay(patch_colors.T.reshape(3, *grid))
        rows.append([sample, *map(sample.importance, maps), patches])
    what += f"; features: three principal components of those of each position as red, green and blue ({share:.0%} of the variance)"
    return {"maps.png": Columns(rows, titles, what)}, share


def _list(data: EvalData, title: str, source: str, shown: list[AttributionExample], samples: list[Preview]) -> Sheet:
    """Samples that are read, on the colors of the importance of their words, the mean over heads."""
    split, names = data.eval_split, data.dataset.classes
    y = data.labels(split)
    rows = []
    for one, sample in zip(shown, samples, strict=True):
        about = class_name(names, int(y[one.id])) if y[one.id] >= 0 else ""
        weighted = sample.importance(one.each.mean(dim=0).clamp(min=0))  # what speaks against the score is light
        rows.append(Row(data.source(split).name_of(one.id), about, [Cell(weighted)]))
    caption = f"{len(shown)} {split} samples, not chosen, and the importance of their words ({source}); dark is more"
    return Sheet(f"{title} of {len(shown)} samples", rows, caption)


def curve_panels(details: dict[str, Any], y_label: str) -> Panels:
    names = {"backbone": "this map", "untrained": "map of an untrained backbone"}
    names |= {"given": "map of the given weights", "random": "random map"}
    x = torch.linspace(0, 1, len(details["backbone"]["deletion"])).tolist()
    panels = {
        f"{title}: {better} is better": {names[kind]: (x, curves[title]) for kind, curves in details.items()}
        for title, better in (("deletion", "lower"), ("insertion", "higher"))
    }
    means = ", ".join(f"{names[k]} {sum(c['deletion']) / len(x):.3f}" for k, c in details.items())
    return Panels(
        panels,
        "share of the places, most important first",
        y_label,
        f"mean {y_label} as places are deleted and inserted by their importance; deletion: {means}",
    )


def ranking_bars(rankings: dict[str, list[Record]], source: str, samples: str) -> Bars:
    """`rankings`: by the name of a model, "backbone" first, its positions by descending importance."""
    first, *others = rankings.values()
    shares = [{row["name"]: row["share"] for row in ranking} for ranking in others]
    names = [row["name"] for row in first]
    marks = {f"{kind} backbone": [by[n] for n in names] for kind, by in zip(list(rankings)[1:], shares, strict=True)}
    most = ", ".join(f"{row['name']} {row['share']:.1%}" for row in first[:3])
    return Bars(
        names,
        [row["share"] for row in first],
        [1.96 * row["standard_error"] for row in first],
        marks,
        f"importance of each position, mean of {samples}",
        f"mean absolute importance of each position ({source}) over {samples}, as a share of the sum over positions: {most}; "
        "lines: 95 % intervals of the mean over samples",
        "share of the importance of all positions",
    )
