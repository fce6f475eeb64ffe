"""Train on several draws of labeled samples and predict the test split."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sslcli.console import say
from sslcli.data import notify
from sslcli.errors import RequestError
from sslcli.evals.artefacts.predictions import Predictions
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import mean_and_std
from sslcli.evals.classifier.class_weight import ClassWeight, class_weights
from sslcli.evals.classifier.imbalance import is_imbalanced, mean_recall
from sslcli.evals.finetuning.learning_rate import rate_protocol
from sslcli.evals.finetuning.recipe import Length, Recipe, describe_length, steps_of_epochs
from sslcli.evals.finetuning.training import WARMUP, Trained, top_classes, train
from sslcli.evals.fit.grid_search import Choice, Grid
from sslcli.evals.fit.linear_probe import C_GRID, TOLERANCE, Standardizer, choose_c
from sslcli.evals.fit.logistic import Logistic
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.rng import derive
from sslcli.runs import Record
from sslcli.runtime.progress import track


def check_augment(data: EvalData, recipe: Recipe) -> None:
    """Raises RequestError unless the run's augmentation has views of these kinds."""
    known = {*(data.recipes or {}), "clean"} - {"summary"}
    for kind in recipe.kinds:
        if kind in known:
            continue
        raise RequestError(
            f"evaluator.augment={kind}: unknown kind of view (available: {', '.join(sorted(known))})",
            "evaluator.augment=clean trains on the samples as they are",
        )


@dataclass(frozen=True)
class FirstDraw:
    """The model of the first draw of labels, how many there are, and of test samples its logits (t, k) and which are right (t,)."""

    trained: Trained
    labeled: int
    test: tuple[Tensor, Tensor]


@dataclass
class TestPredictions:
    """Predictions of the test split by models trained on several draws of labels, from one start."""

    ids: Tensor  # (n,) of the test samples
    y_true: Tensor  # (n,)
    total: int  # classes
    predicted: list[Tensor] = field(default_factory=list)  # per draw: (n, up to 5) classes, the most probable first
    confidence: list[Tensor] = field(default_factory=list)  # per draw: (n,) probability of the predicted class
    rates: list[Choice] = field(default_factory=list)  # per draw
    labeled: int = 0
    last: Trained | None = None
    first: FirstDraw | None = None
    curves: list[dict[str, list[float]]] = field(default_factory=list)

    def top(self, k: int) -> list[float]:
        """Top-k accuracy of each draw."""
        return [
            float((predicted[:, :k] == self.y_true[:, None]).any(dim=1).double().mean()) for predicted in self.predicted
        ]

    def metrics(self, kind: str = "") -> dict[str, float]:
        prefix = f"{kind}." if kind else ""
        metrics = mean_and_std(f"{prefix}top1", self.top(1))
        if is_imbalanced(self.y_true):
            metrics |= mean_and_std(f"{prefix}balanced_top1", mean_recall(self.predictions().predicted, self.y_true))
        return metrics | (mean_and_std(f"{prefix}top5", self.top(5)) if self.total > 5 else {})

    def confusion(self, data: EvalData) -> Tensor:
        """(K, K) counts over all draws."""
        counts = [
            torch.bincount(self.y_true * self.total + predicted[:, 0], minlength=self.total**2)
            for predicted in self.predicted
        ]
        return torch.stack(counts).sum(dim=0).view(self.total, self.total)

    def predictions(self) -> Predictions:
        first = torch.stack([predicted[:, 0] for predicted in self.predicted])
        return Predictions(self.ids, self.y_true, first, torch.stack(self.confidence))

    def curve(self) -> dict[str, list[float]]:
        return mean_curve(self.curves)

    def protocol(self, recipe: Recipe) -> Record:
        assert self.last is not None
        return {
            "classes": self.total,
            "splits": {"labelled": self.labeled, "test": len(self.ids)},
            **training_protocol(recipe, self.rates, self.last.length),
            "mixup": recipe.mixup,
            "cutmix": recipe.cutmix,
            "label_smoothing": recipe.label_smoothing,
            "class_weight": recipe.class_weight,
        }


def training_protocol(recipe: Recipe, rates: list[Choice], length: Length) -> Record:
    """The part of a protocol about the training, for classes and for a value."""
    return {
        "lr": rate_protocol(rates, Grid.of(recipe.rates)),
        "optimizer": f"AdamW, weight decay {recipe.weight_decay:g}, cosine after a warm-up of {WARMUP:.0%} of the steps",
        "steps": length.steps,
        "epochs": recipe.passes,
        "min_steps": recipe.least_steps,
        "precision": length.precision,
        "batch": {"samples": length.batch, "views_of_each": length.views},
        "layer_decay": recipe.layer_decay,
        "augment": recipe.augment,
        "measured": "after the last step",
    }


def mean_curve(curves: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The mean of the training curves of several draws."""
    mean = {k: torch.tensor([c[k] for c in curves], dtype=torch.float64).mean(dim=0).tolist() for k in curves[0]}
    return {k: [round(v, 5) for v in values] for k, values in mean.items()}


def say_length(recipe: Recipe, labeled: int, what: str) -> None:
    """Logs how long a training is, and why."""
    length = Length.of(recipe, labeled)
    by_epochs = steps_of_epochs(recipe, labeled, length.batch)
    say(f"{what}: {describe_length(recipe.passes, labeled, by_epochs, length.steps)}")


WORDS = {"run": "fine-tuning", "scratch": "training from scratch", "given": "fine-tuning of the given weights"}


def starting_backbone(backbone: nn.Module, data: EvalData, start: str, index: int) -> nn.Module:
    """The backbone that is trained with the draw `index` of labels."""
    if start == "scratch" and data.untrained is not None:
        return data.untrained(index + 1).to(data.device)
    given = data.backbones.get("given") if start == "given" else None
    return backbone if given is None else given


def measure(
    backbone: nn.Module,
    data: EvalData,
    amount: subsets.Amount,
    draws: range,
    recipe: Recipe,
    start: str,
    head: str = "probe",
    keep: bool = False,
    calibrate: bool = False,
) -> TestPredictions:
    """Trains and tests once for each of `draws` of labels. `start`: "run" is `backbone`, "scratch" one with random weights, "given"
    one with the weights that the pretraining started from. `keep`: also return the model of the first draw, with a temperature if
    `calibrate`."""
    y = data.labels("train")
    name, classes = data.dataset.name, data.dataset.classes
    subsets.check(y, "train", name)
    y_true = data.labels("test")
    labeled = subsets.check(y_true, "test", name, classes=1)
    total = max(len(classes), int(y.max()) + 1, int(y_true.max()) + 1)
    scores = TestPredictions(labeled, y_true[labeled], total)
    for index in track(draws, f"{WORDS[start]}, {amount}, draw of labels"):
        ids = subsets.draw(y, amount, data.seed, index, classes)
        subsets.check(y[ids], "train", name)
        if index == 0:
            say_length(recipe, len(ids), f"{WORDS[start]}, labels={amount}")
        subject = starting_backbone(backbone, data, start, index)
        fitted_head = (
            logistic_head(subject, data, recipe.class_weight) if start != "scratch" and head == "probe" else None
        )
        trained = train(
            subject,
            data,
            ids,
            recipe,
            derive(data.seed, "finetune", index),
            head=fitted_head,
            on_step=functools.partial(notify.show_progress, "step"),
            calibrate=keep and calibrate and index == 0,
        )
        seen, logits = trained.logits(data, data.batches("test", labeled, windows=True))
        predicted, confidence = top_classes(logits, trained.classes)
        if keep and index == 0:
            scores.first = FirstDraw(trained, len(ids), (logits, predicted[:, 0] == y_true[seen]))
        if not scores.predicted and len(seen) < len(labeled):  # unreadable ones are left out of every draw
            scores.ids, scores.y_true = seen, y_true[seen]
        scores.predicted.append(predicted)
        scores.confidence.append(confidence)
        scores.rates.append(trained.rate)
        scores.curves.append(trained.curve)
        scores.labeled, scores.last = len(ids), trained
    return scores


def logistic_head(
    backbone: nn.Module, data: EvalData, class_weight: ClassWeight = None
) -> Callable[[Tensor, Tensor], nn.Linear]:
    """Makes a head that is the logistic regression of the backbone's features, with the C that the probe would choose."""

    def make(ids: Tensor, y: Tensor) -> nn.Linear:
        x, _ = data.features(backbone, "train")
        rows = torch.full((len(data.source("train")),), -1)
        rows[data.ids("train")] = torch.arange(len(x))
        row = rows[ids]
        classes = int(y.max()) + 1
        row, y = row[row >= 0], y[row >= 0]  # without those that cannot be read
        standardize = Standardizer(x)
        z = standardize(x, row).to(data.device)
        groups = data.groups("train")
        grid = Grid.of(C_GRID.start)  # not beyond: a head of next to no weight is no start
        weights = class_weights(y, classes, class_weight)
        strength = choose_c(z, y, classes, grid, data.seed, 0, None if groups is None else groups[row], weights).value
        fit = Logistic(z, y, classes, weights=weights).fit(strength, TOLERANCE)
        head = nn.Linear(x.shape[1], classes)
        weight = fit.weight * standardize.scale[:, None]  # (d, K), of features as they come
        with torch.no_grad():
            head.weight.copy_(weight.T)
            head.bias.copy_(fit.bias - standardize.mean @ weight)
        return head

    return make
