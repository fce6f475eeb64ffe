"""Explanations: which places of a sample its features rest on, as pictures, and whether these places matter.

Transformers: attention of the last block, by head and in the mean. Convolutional networks: Grad-CAM of the probe's class, or,
without labels, of the likeness to the nearest training sample. Both: principal components of the patches' features in colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.backbones.vit import ViT
from sslcli.errors import RequestError
from sslcli.evals.artefacts.image_grid import Columns, Panels, Strips, heat
from sslcli.evals.base.embedding import evaluating
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result, has_baseline
from sslcli.evals.fit.grid_search import remarks
from sslcli.evals.fit.linear_probe import C_GRID, fit_linear_probe
from sslcli.evals.fit.neighbors import nearest_neighbors
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.inputs.corruptions import blur
from sslcli.evals.metrics import attribution_maps
from sslcli.rng import derive, order
from sslcli.views import clean

SHOWN = 8
HEADS = 6  # shown
STEPS = 20  # of deletion and insertion
AT_ONCE = 32


def explain(
    backbone: nn.Module,
    data: EvalData,
    *,
    labels: str | int = "all",
    target: str = "auto",
    samples: int = 200,
    baselines: Baselines = True,
) -> Result:
    """`deletion`: the mean score as the most important places go first (lower is better); `insertion`: as they come first
    (higher is better); each the area below the curve. Beside them `random.` maps of the same grid, and the maps of an
    `untrained.` backbone, all judged by the backbone that is measured.

    The score is the probability of the probe's class, or (`target=neighbour`, and where there are no labels) the cosine to the
    nearest training sample's features. Maps say what an output rests on, not that it does so for good reasons.
    """
    amount = subsets.parse(labels, data.dataset)
    if target not in ("auto", "class", "neighbour"):
        raise RequestError(f"evaluator.target={target} is not known", "evaluator.target=auto, class or neighbour")
    if samples < 1:
        raise RequestError(f"evaluator.samples={samples}: at least 1 is needed", "evaluator.samples=200")
    source = data.source(data.eval_split)
    _looker(backbone, data)  # a backbone that cannot be explained is told before features are computed
    if target == "auto":
        y = data.labels("train")
        target = "class" if len(y[y >= 0].unique()) > 1 else "neighbour"
    ids = order(derive(data.seed, "explain"), 0, len(source))[:samples]
    drawn = set(ids[:SHOWN].tolist())
    judges = _judge(backbone, data, target, amount)
    lookers = {"": (_looker(backbone, data), judges)}
    if has_baseline(baselines, "untrained") and (random := data.untrained_backbone) is not None:
        lookers["untrained"] = (_looker(random, data), _judge(random, data, target, amount))

    found: dict[str, _Curves] = {}
    shown: list[_Shown] = []
    tokens: list[Tensor] = []
    with evaluating(backbone):
        for part, x in _batches(data, ids):
            wanted = judges.wanted(x)
            importance: dict[str, Tensor] = {}
            for kind, (looker, judge) in lookers.items():
                with evaluating(looker.backbone):
                    look = looker(x, judge)
                importance[kind] = look.mean(dim=1)
                if kind == "":
                    places = [j for j, i in enumerate(part.tolist()) if i in drawn]
                    shown += [_Shown(int(part[j]), x[j].cpu(), look[j].cpu()) for j in places]
                    if places:
                        tokens.append(looker.tokens(x[places]).cpu())
            importance["random"] = attribution_maps.random_map(importance[""], part, data.seed)
            base = _base(x)
            for kind, small in importance.items():
                large = attribution_maps.enlarged(small, tuple(x.shape[2:]))
                gone, back = attribution_maps.curves(lambda z, w=wanted: judges.judge(z, w), x, large, base, STEPS)  # type: ignore[misc]
                found.setdefault(kind, _Curves()).add(gone.cpu(), back.cpu())
    numbers: dict[str, float] = {}
    for kind, curve in found.items():
        prefix = f"{kind}." if kind else ""
        numbers |= {f"{prefix}deletion": curve.area("gone"), f"{prefix}insertion": curve.area("back")}
    looker = lookers[""][0]
    pictures, share = _pictures(data, looker, shown, torch.cat(tokens))
    protocol = {
        "map": looker.what,
        "target": judges.what,
        "samples": found[""].n,
        "split": data.eval_split,
        "grid": list(shown[0].each.shape[1:]),
        "steps": STEPS,
        "deleted": "becomes 0, the mean of normalised data",
        "inserted": "into a blurred copy" if len(data.dataset.shape) == 3 else "into 0",
        "pca_variance": share,
        "notes": data.protocol_notes(baselines, judges.notes),
    }
    details = {
        kind or "backbone": {"deletion": c.mean("gone"), "insertion": c.mean("back")} for kind, c in found.items()
    }
    pictures["curves.png"] = _panels(details, judges.unit)
    return Result(numbers, protocol, pictures, details)


def _batches(data: EvalData, ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for part, x in data.batches(data.eval_split, ids.sort().values):
        yield from zip(part.split(AT_ONCE), x.split(AT_ONCE), strict=True)


def _base(x: Tensor) -> Tensor:
    """What insertion begins with: a copy blurred by an eighth of the longer side; of a series the mean."""
    return blur(x, max(x.shape[2:]) / 8) if x.ndim == 4 else torch.where(x.isnan(), x, 0.0)


# what is asked ---------------------------------------------------------------------------------------------------------


class _ClassJudge:
    """The probe's class of the whole sample."""

    unit = "probability"

    def __init__(self, backbone: nn.Module, data: EvalData, amount: subsets.Amount):
        x, y = data.features(backbone, "train")
        head = fit_linear_probe(
            x,
            y,
            amount,
            data.seed,
            data.dataset.classes,
            data.device,
            name=data.dataset.name,
            groups=data.groups("train"),
        )
        self.backbone, self.layer = backbone, head.linear(data.device)
        self.what = f"the class that the linear probe (labels {amount}) gives the whole sample"
        self.notes = remarks([head.choice], C_GRID, "C of the probe", "evaluator.strengths")

    @torch.no_grad()
    def wanted(self, x: Tensor) -> Tensor:
        return self.layer(self.backbone(x).float()).argmax(dim=1)

    def score(self, z: Tensor, wanted: Tensor) -> Tensor:
        return self.layer(z.float()).gather(1, wanted[:, None])[:, 0]

    @torch.no_grad()
    def judge(self, x: Tensor, wanted: Tensor) -> Tensor:
        return self.layer(self.backbone(x).float()).softmax(dim=1).gather(1, wanted[:, None])[:, 0]


class _NeighbourJudge:
    """The likeness to the training sample that is nearest to the whole sample."""

    unit = "cosine"
    what = "the cosine to the features of the nearest training sample"
    notes: list[str] = []

    def __init__(self, backbone: nn.Module, data: EvalData):
        x, _ = data.features(backbone, "train")
        self.backbone, self.bank, self.device = backbone, F.normalize(x, dim=1), data.device

    @torch.no_grad()
    def wanted(self, x: Tensor) -> Tensor:
        z = F.normalize(self.backbone(x).float(), dim=1).cpu()
        _, nearest = nearest_neighbors(self.bank, z, 1, self.device)
        return self.bank[nearest[:, 0]].to(x.device)

    def score(self, z: Tensor, wanted: Tensor) -> Tensor:
        return F.cosine_similarity(z.float(), wanted, dim=1)

    @torch.no_grad()
    def judge(self, x: Tensor, wanted: Tensor) -> Tensor:
        return self.score(self.backbone(x), wanted)


_Judge = _ClassJudge | _NeighbourJudge


def _judge(backbone: nn.Module, data: EvalData, target: str, amount: subsets.Amount) -> _Judge:
    with evaluating(backbone):
        return _ClassJudge(backbone, data, amount) if target == "class" else _NeighbourJudge(backbone, data)


# who looks -------------------------------------------------------------------------------------------------------------


class _Attention:
    what = "attention of the last block"

    def __init__(self, backbone: ViT):
        self.backbone = backbone

    def __call__(self, x: Tensor, judge: _Judge) -> Tensor:
        """(B, heads, *grid)."""
        return attribution_maps.attention(self.backbone, x)

    @torch.no_grad()
    def tokens(self, x: Tensor) -> Tensor:
        """(B, places, d)."""
        return self.backbone.tokens(x)[:, 1:].float()


class _GradCam:
    what = "Grad-CAM of the last feature map"

    def __init__(self, backbone: nn.Module, layer: nn.Module):
        self.backbone, self.layer = backbone, layer

    def __call__(self, x: Tensor, judge: _Judge) -> Tensor:
        """(B, 1, *size)."""
        wanted = judge.wanted(x)
        return attribution_maps.grad_cam(self.backbone, self.layer, x, lambda z: judge.score(z, wanted))[:, None]

    def tokens(self, x: Tensor) -> Tensor:
        return attribution_maps.feature_map(self.backbone, self.layer, x).float().flatten(2).transpose(1, 2)


def _looker(backbone: nn.Module, data: EvalData) -> _Attention | _GradCam:
    if isinstance(backbone, ViT):
        return _Attention(backbone)
    with evaluating(backbone):
        return _GradCam(
            backbone, attribution_maps.last_map(backbone, torch.zeros(2, *data.dataset.shape, device=data.device))
        )


# what is kept ----------------------------------------------------------------------------------------------------------


@dataclass
class _Shown:
    id: int
    x: Tensor
    each: Tensor  # (heads, *grid)


@dataclass
class _Curves:
    """Sums of deletion and insertion curves (steps + 1)."""

    gone: Tensor = field(default_factory=lambda: torch.zeros(STEPS + 1, dtype=torch.float64))
    back: Tensor = field(default_factory=lambda: torch.zeros(STEPS + 1, dtype=torch.float64))
    n: int = 0

    def add(self, gone: Tensor, back: Tensor) -> None:
        self.gone += gone.double().sum(dim=0)
        self.back += back.double().sum(dim=0)
        self.n += len(gone)

    def mean(self, which: str) -> list[float]:
        return (getattr(self, which) / self.n).tolist()

    def area(self, which: str) -> float:
        return float(attribution_maps.area(getattr(self, which) / self.n))


def _pictures(
    data: EvalData, looker: _Attention | _GradCam, shown: list[_Shown], tokens: Tensor
) -> tuple[dict[str, Any], float]:
    """maps.png, and how much of the variance its colours hold."""
    colours, share = attribution_maps.components(tokens.flatten(0, 1))
    colours = colours.view(*tokens.shape[:2], 3)
    size = shown[0].x.shape[1:]
    grid = shown[0].each.shape[1:]
    restored = clean(data.dataset).restore([torch.stack([one.x for one in shown])])[0]
    title = "attention" if isinstance(looker, _Attention) else "Grad-CAM"
    what = f"{len(shown)} test samples, not chosen, and where they are looked at ({looker.what}); dark is more"
    if len(size) == 1:
        strips = [attribution_maps.enlarged(one.each.mean(dim=0)[None], (int(size[0]),))[0] for one in shown]
        return {"maps.png": Strips(list(restored), [_unit(s) for s in strips], what)}, share
    several = len(shown[0].each) if len(shown[0].each) > 1 else 0
    titles = ["source", title, *(f"head {i + 1}" for i in range(min(HEADS, several))), "patches"]
    rows = []
    for i, (one, picture) in enumerate(zip(shown, restored, strict=True)):
        large = attribution_maps.enlarged(one.each, (int(size[0]), int(size[1])))
        own = F.interpolate(colours[i].T.reshape(1, 3, *grid), size=tuple(size), mode="nearest")[0]
        heads = [heat(_unit(head)) for head in large[: min(HEADS, several)]]
        rows.append([picture, heat(_unit(large.mean(dim=0))), *heads, own])
    what += (
        f"; patches: three principal components of their features as red, green and blue ({share:.0%} of the variance)"
    )
    return {"maps.png": Columns(rows, titles, what)}, share


def _unit(x: Tensor) -> Tensor:
    """From its least to its largest value, 0..1; all 0 where nothing stands out."""
    low, high = x.min(), x.max()
    return (x - low) / (high - low) if high > low else torch.zeros_like(x)


def _panels(details: dict[str, Any], unit: str) -> Panels:
    names = {"backbone": "this map", "untrained": "map of an untrained backbone", "random": "random map"}
    x = torch.linspace(0, 1, STEPS + 1).tolist()
    panels = {
        f"{title}: {better} is better": {names[kind]: (x, curves[title]) for kind, curves in details.items()}
        for title, better in (("deletion", "lower"), ("insertion", "higher"))
    }
    said = ", ".join(f"{names[k]} {sum(c['deletion']) / len(x):.3f}" for k, c in details.items())
    return Panels(
        panels,
        "share of the places, most important first",
        unit,
        f"mean {unit} as places are deleted and inserted by their importance; deletion: {said}",
    )
