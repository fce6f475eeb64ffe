"""Supervised training of a backbone and a linear head on labeled samples, for classes or for a value.

What `finetune` and the supervised baseline of `labels` have in common, so that both are the same training from two
starts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from sslcli.data.dataset import Source
from sslcli.data.loading.loader import Loader
from sslcli.data.subset import Subset
from sslcli.errors import TrainingError
from sslcli.evals.base.embedding import embed, evaluating
from sslcli.evals.base.features import EvalData
from sslcli.evals.classifier.class_weight import class_weights
from sslcli.evals.finetuning.layer_decay import groups
from sslcli.evals.finetuning.learning_rate import best_rate, class_score, held_out, value_score
from sslcli.evals.finetuning.objectives import Classes, Objective, Values
from sslcli.evals.finetuning.recipe import Length, Recipe
from sslcli.evals.fit.grid_search import Choice, Grid
from sslcli.evals.metrics.calibration import Temperature, choose_temperature
from sslcli.optim import cosine
from sslcli.rng import derive
from sslcli.runtime import compilation
from sslcli.runtime.device import autocast_dtype
from sslcli.views import Views

WARMUP = 0.1  # of the steps
POINTS = 100  # of a training curve, at most
LEAST_VALUES = 10  # labeled samples of which a fifth is held out

OnStep = Callable[[int, int], None]  # steps done, steps in all


@dataclass
class Trained:
    """A model of some of the classes: `classes` (k,) names those of the head's outputs. Of a value: `classes` is empty, and
    the only output is the value, in its unit."""

    backbone: nn.Module
    head: nn.Linear
    classes: Tensor
    rate: Choice
    length: Length
    curve: dict[
        str, list[float]
    ]  # step, loss, accuracy or r2: means since the point before, on augmented training samples
    weights: Tensor | None = None  # (k,) of the classes
    temperature: Temperature = field(default_factory=Temperature)

    def logits(self, data: EvalData, source: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Ids (n,) and logits (n, k) of batches of inputs."""
        return _logits(self.backbone, self.head, data, source)


def train(
    backbone: nn.Module,
    data: EvalData,
    ids: Tensor,
    recipe: Recipe,
    seed: int,
    *,
    head: Callable[[Tensor, Tensor], nn.Linear] | None = None,
    on_step: OnStep = lambda finished, total: None,
    calibrate: bool = False,
) -> Trained:
    """A copy of `backbone` and a head, trained on the labeled training samples `ids` (m,); `backbone` is not changed.

    AdamW, a cosine after a warm-up of a tenth of the steps, views of the kind `recipe.augment`. `head` makes the first
    head of sample ids and their classes in 0..k-1; without it its weights are torch's usual random ones. With several
    rates in the recipe, each is tried on four fifths of `ids`, and the one that does best on the rest is taken for all
    of them (with fewer than two samples per class on average the first is). `calibrate` fits a temperature to the logits
    of the rest, of a model that was trained on these four fifths with the same rate: with a single rate that is one
    training more. The test split is not used. TrainingError when the loss is not finite.
    """
    classes, y = data.labels("train")[ids].unique(return_inverse=True)
    training = _Training(backbone, data, recipe, seed, head)
    weights = class_weights(y, len(classes), recipe.class_weight)
    objective = Classes(y, len(classes), weights)
    total = Length.of(recipe, len(ids)).steps
    grid = Grid.of(recipe.rates)
    groups = data.source("train").groups
    groups = None if groups is None else groups[ids]
    parts = held_out(y, seed, groups)
    tried = 0 if parts is None else len(grid.values) if len(grid.values) > 1 else int(calibrate)
    all_steps = total * (tried + 1)
    finished = -total
    held: dict[float, tuple[Tensor, Tensor]] = {}  # by rate: logits and classes of the fifth that was held out

    def fit(part: Tensor, rate: float) -> Trained:
        nonlocal finished
        finished += total
        part_of = training.fit(
            ids[part], objective.part(part), rate, lambda step, _: on_step(finished + step, all_steps)
        )
        return replace(part_of, classes=classes)

    def score(trained: Trained, part: Tensor) -> tuple[Tensor, Tensor]:
        read_ids, logits = trained.logits(data, data.batches("train", ids[part], windows=True))
        held[trained.rate.value] = logits, y[part][torch.searchsorted(ids[part], read_ids)]
        return held[trained.rate.value]

    rate = best_rate(grid, recipe.rates[0], y, seed, fit, score, groups, partial(class_score, weights=weights))
    if calibrate and not held and parts is not None:
        inside, outside = parts
        score(fit(inside, rate.value), outside)
    temperature = Temperature()
    if calibrate and rate.value in held:
        logits, truth = held[rate.value]
        temperature = choose_temperature(logits, truth, seed)
    return replace(fit(torch.arange(len(ids)), rate.value), rate=rate, weights=weights, temperature=temperature)


def train_values(
    backbone: nn.Module,
    data: EvalData,
    ids: Tensor,
    y: Tensor,
    recipe: Recipe,
    seed: int,
    *,
    head: Callable[[Tensor, Tensor], nn.Linear] | None = None,
    on_step: OnStep = lambda finished, total: None,
) -> Trained:
    """The same training for the values `y` (m,) of the training samples `ids` (m,), by squared error of standardized values.

    `head` makes the first head of sample ids and their standardized values. With several rates, the one with the smallest squared
    error on a fifth of `ids` is taken (with fewer than ten samples the first is)."""
    training = _Training(backbone, data, recipe, seed, head)
    total = Length.of(recipe, len(ids)).steps
    grid = Grid.of(recipe.rates)
    one_class = torch.zeros(len(ids), dtype=torch.int64)  # the folds are not stratified
    several = len(ids) >= LEAST_VALUES and len(grid.values) > 1
    all_steps = total * (1 + several * len(grid.values))
    finished = -total

    def fit(part: Tensor, rate: float) -> Trained:
        nonlocal finished
        finished += total
        return training.fit(ids[part], Values(y[part]), rate, lambda step, _: on_step(finished + step, all_steps))

    def score(trained: Trained, part: Tensor) -> tuple[Tensor, Tensor]:
        read_ids, outputs = trained.logits(data, data.batches("train", ids[part], windows=True))
        return outputs[:, 0], y[part][torch.searchsorted(ids[part], read_ids)]

    groups = data.source("train").groups
    groups = None if groups is None else groups[ids]
    rate = Choice(recipe.rates[0], "given" if len(grid.values) == 1 else "default: too few labels to choose from")
    if several:
        rate = best_rate(grid, recipe.rates[0], one_class, seed, fit, score, groups, value_score)
    return replace(fit(torch.arange(len(ids)), rate.value), rate=rate)


def top_classes(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The most likely classes (n, up to 5), the best first, and the best one's probability (n,), of logits (n, K)."""
    return classes[logits.topk(min(5, len(classes)), dim=1).indices], logits.float().softmax(dim=1).amax(dim=1)


@dataclass
class _Training:
    """Everything of a training but the samples and the rate."""

    backbone: nn.Module
    data: EvalData
    recipe: Recipe
    seed: int
    head: Callable[[Tensor, Tensor], nn.Linear] | None

    def fit(self, ids: Tensor, objective: Objective, lr: float, on_step: OnStep) -> Trained:
        recipe, data = self.recipe, self.data
        bf16 = autocast_dtype(data.training_autocast, data.device.type) == torch.bfloat16
        length = replace(Length.of(recipe, len(ids)), precision="bf16" if bf16 else "fp32")
        with seeded(derive(self.seed, "training"), data.device):
            backbone = copy.deepcopy(self.backbone).train()
            make = self.head or (lambda ids, y: nn.Linear(_width(backbone), objective.outputs))
            head = make(ids, objective.y).to(data.device)
            optimizer = adamw(groups(backbone, head, recipe.weight_decay, recipe.layer_decay), lr, data.device)
            source = Subset(data.source("train"), ids, torch.arange(len(ids)))  # labels are places in y
            y = objective.y.to(data.device)
            source.max_bad_fraction = 1.0  # the limit is of the whole split, and was looked at there
            curve = _Curve(length.steps, objective.measure)
            stream = _stream(source, data, recipe, length, self.seed)
            try:
                for step in range(length.steps):
                    factor = lr * cosine(step / length.steps, WARMUP)
                    for group in optimizer.param_groups:
                        group["lr"] = factor * group["factor"]
                    mixing = derive(self.seed, "mixing", step)
                    parts = [objective.targets(x, y[places], recipe, mixing) for x, places in next(stream)]
                    with data.training_autocast():
                        z = torch.cat([backbone(x) for x, _ in parts])
                    targets = torch.cat([of_part for _, of_part in parts])
                    outputs = head(z.float())
                    loss = objective.loss(outputs, targets, recipe)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    if curve.add(step + 1, loss, objective.score(outputs, targets)):
                        on_step(step + 1, length.steps)
            finally:
                stream.close()
        objective.finish(head)
        return Trained(backbone.eval(), head, torch.empty(0, dtype=torch.int64), Choice(lr), length, curve.points)


def _stream(source: Source, data: EvalData, recipe: Recipe, length: Length, seed: int):
    """Lists of (inputs (B * views, ...), places of their samples (B * views,)) on the device, one for each size of views."""
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
            assert batch.labels is not None
            parts = []
            for size in dict.fromkeys(view.shape for view in batch.views):
                alike = [view for view in batch.views if view.shape == size]
                x = torch.cat(alike) if len(alike) > 1 else alike[0]
                x = x.contiguous(memory_format=torch.channels_last) if data.channels_last else x
                parts.append((x, batch.labels.repeat(len(alike))))
            yield parts
    finally:
        batches.close()


class _Curve:
    """Loss and another measure in at most POINTS means; nothing leaves the device between two points."""

    def __init__(self, steps: int, measure: str):
        self.steps, self.every = steps, -(-steps // POINTS)
        self.points: dict[str, list[float]] = {"step": [], "loss": [], measure: []}
        self.pending: list[Tensor] = []

    def add(self, step: int, loss: Tensor, scores: Tensor) -> bool:
        """Whether this step is a point. `scores`: the measure of each sample. TrainingError when the loss since the last point was
        not finite."""
        self.pending.append(torch.stack([loss.detach(), scores.to(loss.dtype).mean()]))
        if step % self.every and step < self.steps:
            return False
        mean = torch.stack(self.pending).mean(dim=0).tolist()
        self.pending = []
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
    compilation.skip_dynamo_import()
    fused = device.type in ("cpu", "cuda")
    return compilation.unwrap_step(torch.optim.AdamW(params, lr=lr, fused=fused))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout and first weights as a function of `seed`; torch's generators are afterwards as they were."""
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
