"""Artefacts of `explain`: attribution maps of some samples, and deletion and insertion curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.evals.artefacts.image_grid import Columns, Panels, Strips, heat
from sslcli.evals.base.features import EvalData
from sslcli.evals.metrics import attribution_maps
from sslcli.views import clean

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
    size = shown[0].x.shape[1:]
    grid = shown[0].each.shape[1:]
    restored = clean(data.dataset).restore([torch.stack([one.x for one in shown])])[0]
    what = f"{len(shown)} test samples, not chosen, and where they are looked at ({source}); dark is more"
    if len(size) == 1:
        strips = [attribution_maps.upsample(one.each.mean(dim=0)[None], (int(size[0]),))[0] for one in shown]
        return {"maps.png": Strips(list(restored), [_rescale(s) for s in strips], what)}, share
    n_heads = len(shown[0].each) if len(shown[0].each) > 1 else 0
    titles = ["source", title, *(f"head {i + 1}" for i in range(min(HEADS, n_heads))), "patches"]
    rows = []
    for i, (one, image) in enumerate(zip(shown, restored, strict=True)):
        large = attribution_maps.upsample(one.each, (int(size[0]), int(size[1])))
        patch_colors = F.interpolate(colors[i].T.reshape(1, 3, *grid), size=tuple(size), mode="nearest")[0]
        heads = [heat(_rescale(head)) for head in large[: min(HEADS, n_heads)]]
        rows.append([image, heat(_rescale(large.mean(dim=0))), *heads, patch_colors])
    what += (
        f"; patches: three principal components of their features as red, green and blue ({share:.0%} of the variance)"
    )
    return {"maps.png": Columns(rows, titles, what)}, share


def _rescale(x: Tensor) -> Tensor:
    """From its least to its largest value, 0..1; all 0 where nothing stands out."""
    low, high = x.min(), x.max()
    return (x - low) / (high - low) if high > low else torch.zeros_like(x)


def curve_panels(details: dict[str, Any], y_label: str) -> Panels:
    names = {"backbone": "this map", "untrained": "map of an untrained backbone", "random": "random map"}
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
