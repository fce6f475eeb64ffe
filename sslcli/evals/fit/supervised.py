"""Training with labels: a backbone and a linear head on some labelled samples, from any start.

What `finetune` and the supervised baseline of `labels` have in common, so that both are the same training from two
starts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.data.dataset import Source
from sslcli.data.loading.loader import Loader
from sslcli.data.subset import Subset
from sslcli.errors import RequestError, TrainingError
from sslcli.evals.base.embedding import embed, evaluating
from sslcli.evals.base.features import EvalData
from sslcli.evals.fit.grid_search import Choice, Grid, Score, search
from sslcli.evals.fit.layer_decay import groups
from sslcli.evals.fit.mixup import mixed
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.optim import cosine
from sslcli.rng import derive
from sslcli.runtime import compilation
from sslcli.views import Views

ROWS = 32  # at least, in a batch: fewer labelled samples are each seen in several views at once, for batch norm's sake
WARMUP = 0.1  # of the steps
POINTS = 100  # of a training curve, at most
HELD_OUT = 5  # one fold of so many chooses the rate

Tell = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True)
class Recipe:
    """How to train; the settings of `finetune` by the same names. RequestError for what cannot be."""

    epochs: int = 50
    min_steps: int = 300
    max_steps: int | None = None
    batch_size: int = 64
    lr: float | list[float] = 1e-3
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    augment: str = "weak+global"

    def __post_init__(self) -> None:
        def need(name: str, right: bool, wanted: str, example: object) -> None:
            if not right:
                text = f"evaluator.{name}={getattr(self, name)}: {wanted} is needed"
                raise RequestError(text, f"evaluator.{name}={example}")

        for name, least in (("epochs", 0), ("min_steps", 1), ("batch_size", 2)):
            need(name, getattr(self, name) >= least, f"a whole number of at least {least}", getattr(Recipe, name))
        if self.max_steps is not None:
            wanted = f"null, or a whole number of at least evaluator.min_steps ({self.min_steps})"
            need("max_steps", self.max_steps >= self.min_steps, wanted, "null")
        rates = self.rates
        need("lr", bool(rates) and all(0 < r < math.inf for r in rates), "a number above 0, or a list of them", 0.001)
        for name in ("weight_decay", "mixup", "cutmix"):
            need(name, 0 <= getattr(self, name) < math.inf, "0 or more", getattr(Recipe, name))
        need("layer_decay", 0 < self.layer_decay <= 1, "a factor above 0 and at most 1", 0.75)
        need("label_smoothing", 0 <= self.label_smoothing < 1, "0 or more and below 1", 0.1)

    @property
    def kinds(self) -> list[str]:
        """Of views: each sample of a batch is seen in all of them."""
        return [kind.strip() for kind in self.augment.split("+")]

    @property
    def rates(self) -> list[float]:
        return list(self.lr) if isinstance(self.lr, (list, tuple)) else [self.lr]


@dataclass(frozen=True)
class Length:
    """Of a training on n labelled samples."""

    batch: int  # samples of a step: near what was asked for, so that an epoch leaves hardly any out
    views: int  # of each kind of each sample in it
    steps: int

    @classmethod
    def of(cls, recipe: Recipe, n: int) -> Length:
        kinds = len(recipe.kinds)
        batch = n // max(1, round(n * kinds / recipe.batch_size))
        steps = max(recipe.epochs * (n // batch) // kinds, recipe.min_steps)
        return cls(
            batch, -(-ROWS // (batch * kinds)), steps if recipe.max_steps is None else min(steps, recipe.max_steps)
        )


@dataclass
class Trained:
    """A model of some of the classes: `classes` (k,) names those of the head's outputs."""

    backbone: nn.Module
    head: nn.Linear
    classes: Tensor
    rate: Choice
    length: Length
    curve: dict[str, list[float]]  # step, loss, accuracy: means since the point before, on augmented training samples

    def ranked(self, data: EvalData, source: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids (n,), the most likely classes (n, up to 5), the best first, and its probability (n,), of batches of inputs."""
        ids, logits = _logits(self.backbone, self.head, data, source)
        return ids, *ranked(logits, self.classes)


def train(
    backbone: nn.Module,
    data: EvalData,
    ids: Tensor,
    recipe: Recipe,
    seed: int,
    *,
    head: Callable[[Tensor, Tensor], nn.Linear] | None = None,
    tell: Tell = lambda done, total: None,
) -> Trained:
    """A copy of `backbone` and a head, trained on the labelled training samples `ids` (m,); the backbone itself stays as it is.

    AdamW, a cosine after a warm-up of a tenth of the steps, views of the kind `recipe.augment`. `head` makes the first
    head of sample ids and their classes in 0..k-1; without it its weights are torch's usual random ones. With several
    rates in the recipe, each is tried on four fifths of `ids`, and the one that does best on the rest is taken for all
    of them (with fewer than two samples a class the first is). The test split is not asked for. TrainingError when the
    loss is not finite.
    """
    classes, y = data.labels("train")[ids].unique(return_inverse=True)
    kind = _Kind(backbone, data, recipe, seed, head, len(classes))
    total = Length.of(recipe, len(ids)).steps
    grid = Grid.of(recipe.rates)
    whole = total * (len(grid.values) + 1 if choosable(grid, y) else 1)
    done = -total

    def fit(part: Tensor, rate: float) -> Trained:
        nonlocal done
        done += total
        return kind.fit(ids[part], y[part], classes, rate, lambda step, _: tell(done + step, whole))

    def score(trained: Trained, part: Tensor) -> tuple[Tensor, Tensor]:
        found, logits = _logits(trained.backbone, trained.head, data, data.batches("train", ids[part]))
        return logits, y[part][torch.searchsorted(ids[part], found)]

    groups = data.source("train").groups
    rate = best_rate(grid, recipe.rates[0], y, seed, fit, score, None if groups is None else groups[ids])
    return replace(fit(torch.arange(len(ids)), rate.value), rate=rate)


def ranked(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely classes (n, up to 5), the best first, and the best one's probability (n,), of logits (n, K)."""
    return classes[logits.topk(min(5, len(classes)), dim=1).indices], logits.float().softmax(dim=1).amax(dim=1)


def choosable(grid: Grid, y: Tensor) -> bool:
    """Whether there is something to choose, and a label of each class to spare for it."""
    return len(grid.values) > 1 and int(y.bincount().min()) >= 2


def best_rate(
    grid: Grid,
    default: float,
    y: Tensor,
    seed: int,
    fit: Callable[[Tensor, float], Any],
    score: Callable[[Any, Tensor], tuple[Tensor, Tensor]],
    groups: Tensor | None = None,
) -> Choice:
    """The rate that does best on one of five stratified folds of the labelled training samples `y` (m,), fitted to the others;
    `default` where nothing can be held out. `groups` (m,) are never divided. `fit(places, rate)` gives a model,
    `score(model, places)` its logits and the
    truth.

    Best is the highest accuracy; of equal ones the lowest loss.
    """
    if not choosable(grid, y):
        return Choice(default, "given" if len(grid.values) == 1 else "default, for want of labels to choose by")
    if groups is not None and len(groups.unique()) < 2:
        groups = None
    fold = subsets.folds(y, HELD_OUT, seed, 0, groups)
    inside, outside = torch.nonzero(fold != 0).flatten(), torch.nonzero(fold == 0).flatten()

    def judged(rate: float) -> Score:
        logits, truth = score(fit(inside, rate), outside)
        return int((logits.argmax(dim=1) == truth).sum()), -float(F.cross_entropy(logits, truth))

    how = f"on a fold of {HELD_OUT} of the labelled training samples"
    return search(grid, judged, how, enough=lambda scores: False)


def rates_of(choices: list[Choice], grid: Grid) -> dict[str, Any]:
    """The part of a protocol about learning rates, of several draws."""
    tried = {value for choice in choices for value in choice.tried}
    return {
        "used": [choice.value for choice in choices],
        "edge": [choice.edge or "no" for choice in choices],
        "chosen_by": choices[-1].how,
        "grid": list(grid.start),
        "continued_to": sorted(tried - set(grid.start)),
    }


@dataclass
class _Kind:
    """Everything of a training but the samples and the rate."""

    backbone: nn.Module
    data: EvalData
    recipe: Recipe
    seed: int
    head: Callable[[Tensor, Tensor], nn.Linear] | None
    outputs: int

    def fit(self, ids: Tensor, y: Tensor, classes: Tensor, lr: float, tell: Tell) -> Trained:
        recipe, data = self.recipe, self.data
        length = Length.of(recipe, len(ids))
        with own_randomness(derive(self.seed, "training"), data.device):
            backbone = copy.deepcopy(self.backbone).train()
            head = self.head(ids, y) if self.head is not None else nn.Linear(_width(backbone), self.outputs)
            head = head.to(data.device)
            optimizer = adamw(groups(backbone, head, recipe.weight_decay, recipe.layer_decay), lr, data.device)
            source = Subset(data.source("train"), ids, y)
            source.max_bad_fraction = 1.0  # the limit is of the whole split, and was looked at there
            curve = _Curve(length.steps)
            stream = _stream(source, data, recipe, length, self.seed)
            try:
                for step in range(length.steps):
                    factor = lr * cosine(step / length.steps, WARMUP)
                    for group in optimizer.param_groups:
                        group["lr"] = factor * group["factor"]
                    x, own = next(stream)
                    x, targets = mixed(
                        x, own, self.outputs, recipe.mixup, recipe.cutmix, derive(self.seed, "mixing", step)
                    )
                    with data.autocast():
                        z = backbone(x)
                    logits = head(z.float())
                    loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    if curve.add(step + 1, loss, logits.argmax(dim=1) == targets.argmax(dim=1)):
                        tell(step + 1, length.steps)
            finally:
                stream.close()
        return Trained(backbone.eval(), head, classes, Choice(lr), length, curve.points)


def _stream(source: Source, data: EvalData, recipe: Recipe, length: Length, seed: int):
    """Endless (inputs (B * views, ...), labels (B * views,)) on the device."""
    plan = dict.fromkeys(recipe.kinds, length.views)
    views = Views(plan, data.recipes or {}, data.dataset)
    workers = data.workers if source.resident is None else 0
    loader = Loader(
        source,
        views,
        batch_size=length.batch,
        seed=derive(seed, "order"),
        device=data.device,
        workers=workers,
        labels=True,
    )
    batches = loader.stream()
    try:
        for batch in batches:
            x = torch.cat(batch.views) if len(batch.views) > 1 else batch.views[0]
            if data.channels_last and x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            assert batch.labels is not None
            yield x, batch.labels.repeat(len(batch.views))
    finally:
        batches.close()


class _Curve:
    """Loss and accuracy in at most POINTS means; nothing leaves the device between two points."""

    def __init__(self, steps: int):
        self.steps, self.every = steps, -(-steps // POINTS)
        self.points: dict[str, list[float]] = {"step": [], "loss": [], "accuracy": []}
        self.kept: list[Tensor] = []

    def add(self, step: int, loss: Tensor, right: Tensor) -> bool:
        """Whether this step is a point. TrainingError when the loss since the last one was not finite."""
        self.kept.append(torch.stack([loss.detach(), right.to(loss.dtype).mean()]))
        if step % self.every and step < self.steps:
            return False
        mean = torch.stack(self.kept).mean(dim=0).tolist()
        self.kept = []
        if not math.isfinite(mean[0]):
            raise TrainingError(
                f"the loss is not finite after {step:,} of {self.steps:,} steps",
                "evaluator.lr=0.0003, or device.precision=fp32",
            )
        for name, value in zip(self.points, (step, *mean), strict=True):
            self.points[name].append(round(value, 5))
        return True


def _logits(
    backbone: nn.Module, head: nn.Linear, data: EvalData, batches: Iterator[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    ids, rows = [], []
    with evaluating(head), torch.no_grad():
        for part, z in embed(backbone, batches, data.autocast, data.channels_last):
            ids.append(part)
            rows.append(head(z).cpu())
    return torch.cat(ids), torch.cat(rows)


def _width(backbone: nn.Module) -> int:
    width = backbone.dim
    assert isinstance(width, int), width
    return width


def adamw(params: list[dict[str, object]], lr: float, device: torch.device) -> torch.optim.Optimizer:
    compilation.keep_dynamo_out()
    fused = device.type in ("cpu", "cuda")
    return compilation.without_dynamo(torch.optim.AdamW(params, lr=lr, fused=fused))


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and first weights as a function of `seed`; torch's generators are afterwards as they were."""
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
