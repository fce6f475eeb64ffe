"""Supervised training of a backbone and a linear head on labeled samples.

What `finetune` and the supervised baseline of `labels` have in common, so that both are the same training from two
starts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.data.dataset import Source
from sslcli.data.loading.loader import Loader
from sslcli.data.subset import Subset
from sslcli.errors import TrainingError
from sslcli.evals.base.embedding import embed, evaluating
from sslcli.evals.base.features import EvalData
from sslcli.evals.finetuning.layer_decay import groups
from sslcli.evals.finetuning.learning_rate import best_rate, choosable, divisible, held_out
from sslcli.evals.finetuning.mixup import mix_batch
from sslcli.evals.finetuning.recipe import Length, Recipe
from sslcli.evals.fit.grid_search import Choice, Grid
from sslcli.evals.metrics.calibration import fit_temperature
from sslcli.optim import cosine
from sslcli.rng import derive
from sslcli.runtime import compilation
from sslcli.views import Views

WARMUP = 0.1  # of the steps
POINTS = 100  # of a training curve, at most

OnStep = Callable[[int, int], None]  # steps done, steps in all


@dataclass
class Trained:
    """A model of some of the classes: `classes` (k,) names those of the head's outputs."""

    backbone: nn.Module
    head: nn.Linear
    classes: Tensor
    rate: Choice
    length: Length
    curve: dict[str, list[float]]  # step, loss, accuracy: means since the point before, on augmented training samples
    temperature: tuple[float, int] = (1.0, 0)  # and how many held-out samples it was fitted to

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
    of them (with fewer than two samples a class the first is). `calibrate` fits a temperature to the logits of the rest,
    of a model that was trained on these four fifths with the same rate: with a single rate that is one training more. The
    test split is not used. TrainingError when the loss is not finite.
    """
    classes, y = data.labels("train")[ids].unique(return_inverse=True)
    training = _Training(backbone, data, recipe, seed, head, len(classes))
    total = Length.of(recipe, len(ids)).steps
    grid = Grid.of(recipe.rates)
    tried = len(grid.values) if choosable(grid, y) else int(calibrate and divisible(y))
    all_steps = total * (tried + 1)
    finished = -total
    held: dict[float, tuple[Tensor, Tensor]] = {}  # by rate: logits and classes of the fifth that was held out

    def fit(part: Tensor, rate: float) -> Trained:
        nonlocal finished
        finished += total
        return training.fit(ids[part], y[part], classes, rate, lambda step, _: on_step(finished + step, all_steps))

    def score(trained: Trained, part: Tensor) -> tuple[Tensor, Tensor]:
        read_ids, logits = trained.logits(data, data.batches("train", ids[part]))
        held[trained.rate.value] = logits, y[part][torch.searchsorted(ids[part], read_ids)]
        return held[trained.rate.value]

    groups = data.source("train").groups
    groups = None if groups is None else groups[ids]
    rate = best_rate(grid, recipe.rates[0], y, seed, fit, score, groups)
    if calibrate and not held and divisible(y):
        inside, outside = held_out(y, seed, groups)
        score(fit(inside, rate.value), outside)
    temperature = (1.0, 0)
    if calibrate and rate.value in held:
        logits, truth = held[rate.value]
        temperature = fit_temperature(logits, truth), len(truth)
    return replace(fit(torch.arange(len(ids)), rate.value), rate=rate, temperature=temperature)


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
    outputs: int

    def fit(self, ids: Tensor, y: Tensor, classes: Tensor, lr: float, on_step: OnStep) -> Trained:
        recipe, data = self.recipe, self.data
        length = Length.of(recipe, len(ids))
        with seeded(derive(self.seed, "training"), data.device):
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
                    x, labels = next(stream)
                    x, targets = mix_batch(
                        x, labels, self.outputs, recipe.mixup, recipe.cutmix, derive(self.seed, "mixing", step)
                    )
                    with data.autocast():
                        z = backbone(x)
                    logits = head(z.float())
                    loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    if curve.add(step + 1, loss, logits.argmax(dim=1) == targets.argmax(dim=1)):
                        on_step(step + 1, length.steps)
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
            if data.channels_last:
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
        self.pending: list[Tensor] = []

    def add(self, step: int, loss: Tensor, right: Tensor) -> bool:
        """Whether this step is a point. TrainingError when the loss since the last one was not finite."""
        self.pending.append(torch.stack([loss.detach(), right.to(loss.dtype).mean()]))
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
