"""Explanations: which places of a sample its features rest on, as pictures, and whether these places matter.

Transformers: attention of the last block, by head and in the mean. Convolutional networks: Grad-CAM of the probe's class, or,
without labels, of the likeness to the nearest training sample. Both: principal components of the patches' features in colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sslcli.backbones.vit import ViT
from sslcli.errors import RequestError
from sslcli.evals.artefacts.attribution_sheets import AttributionExample, curve_panels, map_sheet
from sslcli.evals.base.embedding import evaluating
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result, has_baseline
from sslcli.evals.fit.explained_scores import ExplainedScore, make_score
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.inputs.corruptions import blur
from sslcli.evals.metrics import attribution_maps
from sslcli.rng import derive, order

SHOWN = 8
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
    judges = make_score(backbone, data, target, amount)
    lookers = {"": (_looker(backbone, data), judges)}
    if has_baseline(baselines, "untrained") and (random := data.untrained_backbone) is not None:
        lookers["untrained"] = (_looker(random, data), make_score(random, data, target, amount))

    found: dict[str, _Curves] = {}
    shown: list[AttributionExample] = []
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
                    shown += [AttributionExample(int(part[j]), x[j].cpu(), look[j].cpu()) for j in places]
                    if places:
                        tokens.append(looker.tokens(x[places]).cpu())
            importance["random"] = attribution_maps.random_map(importance[""], part, data.seed)
            base = _base(x)
            for kind, small in importance.items():
                large = attribution_maps.enlarged(small, tuple(x.shape[2:]))
                gone, back = attribution_maps.curves(lambda z, w=wanted: judges.judge(z, w), x, large, base, STEPS)  # type: ignore[misc]
                found.setdefault(kind, _Curves()).add(gone.cpu(), back.cpu())
    metrics: dict[str, float] = {}
    for kind, curve in found.items():
        prefix = f"{kind}." if kind else ""
        metrics |= {f"{prefix}deletion": curve.area("gone"), f"{prefix}insertion": curve.area("back")}
    looker = lookers[""][0]
    pictures, share = map_sheet(data, looker.title, looker.what, shown, torch.cat(tokens))
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
    pictures["curves.png"] = curve_panels(details, judges.unit)
    return Result(metrics, protocol, pictures, details)


def _batches(data: EvalData, ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for part, x in data.batches(data.eval_split, ids.sort().values):
        yield from zip(part.split(AT_ONCE), x.split(AT_ONCE), strict=True)


def _base(x: Tensor) -> Tensor:
    """What insertion begins with: a copy blurred by an eighth of the longer side; of a series the mean."""
    return blur(x, max(x.shape[2:]) / 8) if x.ndim == 4 else torch.where(x.isnan(), x, 0.0)


# what is asked ---------------------------------------------------------------------------------------------------------


# who looks -------------------------------------------------------------------------------------------------------------


class _Attention:
    title = "attention"
    what = "attention of the last block"

    def __init__(self, backbone: ViT):
        self.backbone = backbone

    def __call__(self, x: Tensor, judge: ExplainedScore) -> Tensor:
        """(B, heads, *grid)."""
        return attribution_maps.attention(self.backbone, x)

    @torch.no_grad()
    def tokens(self, x: Tensor) -> Tensor:
        """(B, places, d)."""
        return self.backbone.tokens(x)[:, 1:].float()


class _GradCam:
    title = "Grad-CAM"
    what = "Grad-CAM of the last feature map"

    def __init__(self, backbone: nn.Module, layer: nn.Module):
        self.backbone, self.layer = backbone, layer

    def __call__(self, x: Tensor, judge: ExplainedScore) -> Tensor:
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
