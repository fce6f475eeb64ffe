"""Attribution maps of a backbone, and how faithful they are by deletion and insertion.

Transformers: attention of the last block, by head and averaged. Convolutional networks: Grad-CAM of the probe's class or, without
labels, of the similarity to the nearest training sample. Other backbones: occlusion of each position, of groups that the modality
defines, such as words, or of at most 256 blocks of neighboring positions. All: principal components of the patch features as
colors; of samples that are read, such as documents, the words on the colors of their weights and the words that count most.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sslcli.backbones.base import TokenBackbone
from sslcli.data.dataset import Dataset
from sslcli.errors import RequestError
from sslcli.evals.artefacts.attribution_sheets import AttributionExample, curve_panels, map_sheet, ranking_bars
from sslcli.evals.base.embedding import evaluating
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines, Result
from sslcli.evals.classifier.class_weight import ClassWeight
from sslcli.evals.fit.explained_scores import ClassProbability, NeighborSimilarity, choose_target
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.metrics import attribution_maps
from sslcli.evals.metrics.part_weights import PartWeights
from sslcli.evals.metrics.position_importance import PositionImportance
from sslcli.evals.regression.explained_value import PredictedValue
from sslcli.rng import derive, order
from sslcli.runs import Record
from sslcli.views import previews
from sslcli.views.modality import modality

ExplainedScore = ClassProbability | NeighborSimilarity | PredictedValue

SHOWN = 8
STEPS = 20  # of deletion and insertion
AT_ONCE = 32
MAX_OCCLUDED = 256  # positions that are hidden one by one


def explain(
    backbone: nn.Module,
    data: EvalData,
    *,
    labels: str | int = "all",
    target: str = "auto",
    attribution: str = "auto",
    samples: int = 200,
    baselines: Baselines = True,
    class_weight: ClassWeight = None,
) -> Result:
    """Returns `deletion` (lower is better) and `insertion` (higher is better): the area under the curve of the mean score as the
    most important positions are deleted, or inserted, first. The same for `random.` maps of the same grid and for the maps of
    an `untrained.` backbone and of the `given.` weights, all scored with the evaluated backbone.

    The score is the probability of the probe's class; of data with a value to predict, how far the prediction is from the mean; or
    (`target=neighbour`, and without labels) the cosine similarity to the features of the nearest training sample.
    `attribution=occlusion` measures what hiding each position changes, for every backbone, where `auto` takes attention or
    Grad-CAM; of more than 256 positions, blocks are hidden, whose positions share one importance.
    `class_weight`: of the probe whose class is explained, see `probe`.
    An attribution map shows which inputs an output depends on, not whether that is justified. Where positions have names, such as
    the columns of a table, they are ranked by their mean absolute importance over the samples.
    """
    data = data.without_windows()
    amount = subsets.parse(labels, data.dataset, any_task=True)
    if attribution not in ("auto", "occlusion"):
        raise RequestError(
            f"evaluator.attribution={attribution}: expected auto or occlusion", "evaluator.attribution=auto"
        )
    if samples < 1:
        raise RequestError(f"evaluator.samples={samples}: expected at least 1", "evaluator.samples=200")
    source = data.source(data.eval_split)
    target = choose_target(target, data, class_weight)
    ids = order(derive(data.seed, "explain"), 0, len(source))[:samples]
    drawn = set(ids[:SHOWN].tolist())
    explained = make_score(backbone, data, target, amount, class_weight)
    map_makers = {"": (make_maps(backbone, data, attribution), explained)}
    for name, other in data.backbones.wanted(baselines).items():
        map_makers[name] = (make_maps(other, data, attribution), make_score(other, data, target, amount, class_weight))

    kind_of_data, values = modality(data.dataset.modality), data.dataset.values
    names = kind_of_data.position_names(data.dataset)
    rankings: dict[str, PositionImportance] = {}
    curves: dict[str, _Curves] = {}
    shown: list[AttributionExample] = []
    tokens: list[Tensor] = []
    words = PartWeights()
    with evaluating(backbone):
        for part, x in _batches(data, ids):
            targets = explained.target(x)
            importance: dict[str, Tensor] = {}
            for kind, (maps, explained_score) in map_makers.items():
                with evaluating(maps.backbone):
                    maps_of_batch = maps(x, explained_score)
                importance[kind] = maps_of_batch.mean(dim=1)
                if names is not None and importance[kind][0].numel() == len(names):
                    rankings.setdefault(kind, PositionImportance(names)).add(importance[kind])
                if kind == "":
                    places = [j for j, i in enumerate(part.tolist()) if i in drawn]
                    shown += [AttributionExample(int(part[j]), x[j].cpu(), maps_of_batch[j].cpu()) for j in places]
                    if places:
                        tokens.append(maps.tokens(x[places]).cpu())
            words.add(previews(data.dataset, x), importance[""], explained.titles(targets))
            importance["random"] = attribution_maps.random_map(importance[""], part, data.seed)
            blank = kind_of_data.delete(x, torch.ones_like(x, dtype=torch.bool), values)
            base, removable = kind_of_data.insertion_base(x, values), kind_of_data.removable(x, values)
            for kind, small in importance.items():
                large = kind_of_data.upsample(small, data.dataset.shape)
                score = functools.partial(explained.evaluate, target=targets)
                deletion, insertion = attribution_maps.deletion_insertion_curves(
                    score, x, large, blank, base, STEPS, removable
                )
                curves.setdefault(kind, _Curves()).add(deletion.cpu(), insertion.cpu())
    metrics: dict[str, float] = {}
    for kind, curve in curves.items():
        prefix = f"{kind}." if kind else ""
        metrics |= {f"{prefix}deletion": curve.area("deletion"), f"{prefix}insertion": curve.area("insertion")}
    maps = map_makers[""][0]
    sheets, share = map_sheet(data, maps.title, maps.what, shown, torch.cat(tokens))
    protocol = {
        "map": maps.what,
        "target": explained.what,
        "class_weight": class_weight,
        "samples": curves[""].n,
        "split": data.eval_split,
        "grid": list(shown[0].each.shape[1:]),
        "steps": STEPS,
        "deleted": kind_of_data.deleted,
        "inserted": kind_of_data.inserted,
        "pca_variance": share,
        "baselines": {"random": {"note": "random numbers on the same grid"}},
        "notes": data.protocol_notes(baselines, explained.notes),
    }
    details: Record = {
        kind or "backbone": {"deletion": c.mean("deletion"), "insertion": c.mean("insertion")}
        for kind, c in curves.items()
    }
    sheets["curves.png"] = curve_panels(details, explained.unit)
    if rankings:
        ranked = {kind or "backbone": positions.ranking() for kind, positions in rankings.items()}
        sheets["positions.png"] = ranking_bars(ranked, maps.what, f"{curves[''].n:,} {data.eval_split} samples")
        details["positions"] = ranked
    if (table := words.table(maps.what)) is not None:
        sheets["words.csv"] = table
    return Result(metrics, protocol, sheets, details)


def _batches(data: EvalData, ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for part, x in data.batches(data.eval_split, ids.sort().values):
        yield from zip(part.split(AT_ONCE), x.split(AT_ONCE), strict=True)


class _Attention:
    """Attention maps of a token backbone."""

    title = "attention"
    what = "attention of the last block"

    def __init__(self, backbone: TokenBackbone):
        self.backbone = backbone

    def __call__(self, x: Tensor, explained_score: ExplainedScore) -> Tensor:
        """Maps (B, heads, *grid) of inputs (B, *shape)."""
        return attribution_maps.attention(self.backbone, x)

    @torch.no_grad()
    def tokens(self, x: Tensor) -> Tensor:
        """Features (B, N, d) of the patches, for principal components."""
        return self.backbone.tokens(x)[:, self.backbone.prefix :].float()


class _GradCam:
    """Grad-CAM maps of a convolutional network."""

    title = "Grad-CAM"
    what = "Grad-CAM of the last feature map"

    def __init__(self, backbone: nn.Module, layer: nn.Module):
        self.backbone, self.layer = backbone, layer

    def __call__(self, x: Tensor, explained_score: ExplainedScore) -> Tensor:
        """Maps (B, 1, *size) of inputs (B, *shape)."""
        target = explained_score.target(x)
        return attribution_maps.grad_cam(self.backbone, self.layer, x, lambda z: explained_score.score(z, target))[
            :, None
        ]

    def tokens(self, x: Tensor) -> Tensor:
        return attribution_maps.feature_map(self.backbone, self.layer, x).float().flatten(2).transpose(1, 2)


class _Occlusion:
    """The effect of hiding each position, for backbones without tokens or feature maps. Zeiler & Fergus, ECCV 2014, Sec. 4.2."""

    title = "occlusion"

    def __init__(self, backbone: nn.Module, dataset: Dataset):
        self.backbone, self.values, self.kind = backbone, dataset.values, modality(dataset.modality)
        grid = self.values.grid(tuple(dataset.shape))
        self.blocks, side = attribution_maps.blocks(grid, MAX_OCCLUDED)  # where the modality defines no groups
        block = f"a block of {' x '.join(str(min(side, n)) for n in grid)} positions"
        blank = self.kind.dummy(dataset.shape, dataset.values, 2)
        has_spans = self.kind.spans(blank, self.values, MAX_OCCLUDED) is not None
        self.what = f"loss of score when {'a position' if side == 1 or has_spans else block} is hidden"

    @torch.no_grad()
    def effects(self, x: Tensor) -> Iterator[Tensor]:
        """The features (B, d) without each group of positions."""
        groups = self.groups(x)
        for group in range(max(1, int(groups.max()) + 1)):  # samples of padding alone have no group
            where = (groups == group).view(len(groups), *self.values.mask_shape(tuple(x.shape[1:])))
            yield self.backbone(self.kind.delete(x, where, self.values)).float()

    def groups(self, x: Tensor) -> Tensor:
        """The groups of positions (B or 1, N) int64 that are hidden together, -1 for those that are not."""
        spans = self.kind.spans(x, self.values, MAX_OCCLUDED)
        if spans is not None:
            return spans.flatten(1)
        return self.blocks.to(x.device)[None]

    def of_positions(self, effects: Tensor, x: Tensor) -> Tensor:
        """What belongs to groups (B, groups, d) for each position (B, N, d), 0 where nothing is hidden."""
        groups = self.groups(x).expand(len(x), -1)
        rows = torch.arange(len(x), device=x.device)[:, None]
        return effects[rows, groups.clamp(min=0)].masked_fill((groups < 0)[:, :, None], 0.0)

    def __call__(self, x: Tensor, explained_score: ExplainedScore) -> Tensor:
        """Maps (B, 1, *grid) of inputs (B, *shape)."""
        target = explained_score.target(x)
        with torch.no_grad():
            whole = explained_score.score(self.backbone(x).float(), target)
            lost = [whole - explained_score.score(z, target) for z in self.effects(x)]
        grid = self.values.grid(tuple(x.shape[1:]))
        return self.of_positions(torch.stack(lost, dim=1)[:, :, None], x).view(len(x), 1, *grid)

    @torch.no_grad()
    def tokens(self, x: Tensor) -> Tensor:
        """What each position (B, N, d) changes in the features."""
        whole = self.backbone(x).float()
        return self.of_positions(torch.stack([whole - z for z in self.effects(x)], dim=1), x)


def make_score(
    backbone: nn.Module, data: EvalData, target: str, amount: subsets.Amount, class_weight: ClassWeight = None
) -> ExplainedScore:
    """The score of `target`: class, value or neighbour."""
    with evaluating(backbone):
        if target == "neighbour":
            return NeighborSimilarity(backbone, data)
        if target == "class":
            return ClassProbability(backbone, data, amount, class_weight)
        return PredictedValue(backbone, data, amount)


def make_maps(backbone: nn.Module, data: EvalData, attribution: str = "auto") -> _Attention | _GradCam | _Occlusion:
    if attribution == "occlusion":
        return _Occlusion(backbone, data.dataset)
    if isinstance(backbone, TokenBackbone) and type(backbone).attention is not TokenBackbone.attention:
        return _Attention(backbone)
    dataset = data.dataset
    blank = modality(dataset.modality).dummy(dataset.shape, dataset.values, 2).to(data.device)
    try:
        with evaluating(backbone):
            return _GradCam(backbone, attribution_maps.last_feature_layer(backbone, blank))
    except RequestError:  # it has no feature map
        return _Occlusion(backbone, dataset)


@dataclass
class _Curves:
    """Sums of deletion and insertion curves (steps + 1)."""

    deletion: Tensor = field(default_factory=lambda: torch.zeros(STEPS + 1, dtype=torch.float64))
    insertion: Tensor = field(default_factory=lambda: torch.zeros(STEPS + 1, dtype=torch.float64))
    n: int = 0

    def add(self, deletion: Tensor, insertion: Tensor) -> None:
        self.deletion += deletion.double().sum(dim=0)
        self.insertion += insertion.double().sum(dim=0)
        self.n += len(deletion)

    def mean(self, which: str) -> list[float]:
        return (getattr(self, which) / self.n).tolist()

    def area(self, which: str) -> float:
        return float(attribution_maps.area(getattr(self, which) / self.n))
