"""Stratified cross-validation of an evaluator, for data with few labels: each labeled sample is tested once, by a model
fitted to the labels of the other folds.

Features are computed once and divided; nothing else is shared between folds. Accuracies are those of all labeled samples
together. With several seeds the division is drawn anew for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.classifier.model import Classifier
from sslcli.config import Config
from sslcli.data.subset import Concat, Subset
from sslcli.evals.artefacts.confusion import Confusion
from sslcli.evals.artefacts.predictions import FILE, Predictions
from sslcli.evals.base.features import EvalData, Split
from sslcli.evals.base.result import Result
from sslcli.evals.classifier.confidence import Confidence, FittedClassifier
from sslcli.evals.inputs.label_subsets import folds, predictable, several
from sslcli.evals.metrics.interval import accuracy_intervals
from sslcli.runs import Record
from sslcli.views.modality import modality

FOLDS = 5
EVALUATORS = ("sslcli.evals.probe.probe", "sslcli.evals.knn.knn")  # those that are quick enough to be done five times


class Fold(EvalData):
    """The data of `whole` with other splits: `ids` are those samples of its training and test split in a row."""

    def __init__(self, whole: EvalData, pooled: Pooled, ids: dict[Split, Tensor]):
        train, test = (Subset(pooled.source, ids[split], pooled.labels[ids[split]]) for split in ("train", "test"))
        dataset = replace(whole.dataset, train=train, test=test, unlabelled=None)
        super().__init__(
            dataset,
            whole.device,
            whole.workers,
            seed=whole.seed,
            untrained=whole.untrained,
            autocast=whole.autocast,
            training_autocast=whole.training_autocast,
            channels_last=whole.channels_last,
            batch_size=whole.batch_size,
            recipes=whole.recipes,
            pretraining=whole.pretraining,
            trained_on=whole.trained_on,
        )
        self.notes, self.whole, self.pooled, self.wanted = whole.notes, whole, pooled, ids
        self.backbones = whole.backbones

    def features(self, backbone: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
        return self._rows(split, self.pooled.features(backbone))

    def raw(self, split: Split) -> tuple[Tensor, Tensor]:
        features = modality(self.dataset.modality).raw_features(self.dataset)
        if features.fitted:
            return super().raw(split)  # fitted to this fold's training samples
        return self._rows(split, self.pooled.features(None))

    def _rows(self, split: Split, features: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, row = features
        rows = row[self.wanted[split]]
        self._ids[split] = torch.nonzero(rows >= 0).flatten()  # without those that cannot be read
        return x[rows[rows >= 0]], self.labels(split)[self._ids[split]]


class Pooled:
    """All samples of both splits, with features that are computed once."""

    def __init__(self, data: EvalData):
        test = data.source("test")
        self.data, self.source = data, Concat(data.dataset.train, test)
        assert self.source.labels is not None
        self.labels = self.source.labels
        known = torch.nonzero(self.labels >= 0).flatten()
        y = self.labels[known]
        groups = self.source.groups
        self.groups = groups if groups is not None and several(groups[known]) is not None else None
        self.tested = known[predictable(y, None if self.groups is None else self.groups[known])]
        self.untested = len(known) - len(self.tested)
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def features(self, backbone: nn.Module | None) -> tuple[Tensor, Tensor]:
        """Features (n, d), of raw inputs where there is no backbone, and the row of each sample, -1 where it has none."""
        if id(backbone) not in self._known:
            data = self.data
            features = [data.raw(s) if backbone is None else data.features(backbone, s) for s in ("train", "test")]
            places = torch.cat([data.ids("train"), data.ids("test") + len(data.dataset.train)])
            row = torch.full((len(self.source),), -1)
            row[places] = torch.arange(len(places))
            self._known[id(backbone)] = torch.cat([x for x, _ in features]), row
        return self._known[id(backbone)]

    def divided(self, index: int) -> Iterator[Fold]:
        """The folds of one division: at most FOLDS, as many as the median class with two samples or more has. A smaller class is in
        as many as it has samples."""
        known = self.tested
        y = self.labels[known]
        size = int(y.unique(return_counts=True)[1].median())
        groups = None if self.groups is None else self.groups[known]
        count = max(2, min(FOLDS, size))
        fold = folds(y, count, self.data.seed, index, groups)
        everything = torch.arange(len(self.source))
        for f in fold.unique().tolist():
            held = known[fold == f]
            labeled = torch.ones(len(everything), dtype=torch.bool)
            labeled[held] = False
            if self.groups is not None:  # unlabeled samples of the same groups would be in the standardization
                labeled &= ~torch.isin(self.groups, self.groups[held])
            yield Fold(self.data, self, {"train": everything[labeled], "test": held})


def applies(node: Config, data: EvalData) -> bool:
    """Whether an evaluator is cross-validated on these data: where the labels are those of a file, and few."""
    return node.get("_target_") in EVALUATORS and bool(data.dataset.details.get("labels", {}).get("few"))


def cross_validated(evaluate: Callable[..., Result], backbone: nn.Module, data: EvalData, seeds: int) -> Result:
    """What `evaluate(backbone, data, seeds=1)` finds of each fold, as one result; a division into folds for each seed."""
    pooled = Pooled(data)
    draws = []
    for index in range(seeds):
        parts = list(pooled.divided(index))
        draws.append([(fold, evaluate(backbone, fold, seeds=1)) for fold in parts])
    metrics: dict[str, float] = {}
    kept = _classifier(evaluate, backbone, pooled, draws[0])
    for name in draws[0][0][1].metrics:
        if name in (kept.metrics() if kept is not None else {}):
            continue  # of all samples together, below
        values = torch.tensor([_mean(name, fold_results) for fold_results in draws], dtype=torch.float64)
        metrics |= {name: float(values.mean())} | ({f"{name}_std": float(values.std())} if seeds > 1 else {})
    metrics |= kept.metrics() if kept is not None else {}
    predicted = [_predictions(fold_results) for fold_results in draws]
    same = all(torch.equal(p.ids, predicted[0].ids) for p in predicted)
    assert same, "every division tests every labelled sample"
    confidence = [p.probability for p in predicted if p.probability is not None]
    predictions = Predictions(
        predicted[0].ids,
        predicted[0].y_true,
        torch.cat([p.predicted for p in predicted]),
        torch.cat(confidence) if confidence else None,
    )
    first, count = draws[0][0][1], len(draws[0])
    artefacts: dict[str, Any] = predictions.files(pooled.source, data.dataset.classes)
    if "confusion.png" in first.artefacts:
        artefacts["confusion.png"] = _confusion(predictions, data)
    return Result(
        metrics,
        _protocol(
            [result for fold_results in draws for _, result in fold_results],
            pooled,
            len(predictions.ids),
            seeds,
            count,
        ),
        artefacts,
        first.details,
        accuracy_intervals(metrics, len(predictions.ids), seeds),
        fitted=kept,
    )


def _classifier(
    evaluate: Callable[..., Result], backbone: nn.Module, pooled: Pooled, fold_results: list[tuple[Fold, Result]]
) -> FittedClassifier | None:
    """The classifier of all labels, with the metrics and the confidence of the folds: those of samples it was not fitted to."""
    parts = [(fold, result, result.fitted) for fold, result in fold_results if result.fitted is not None]
    if not parts:
        return None
    whole = Fold(pooled.data, pooled, {"train": torch.arange(len(pooled.source)), "test": pooled.tested})
    fitted = evaluate(backbone, whole, seeds=1, baselines=False).fitted
    assert fitted is not None
    confidence = [fit.confidence for _, _, fit in parts if fit.confidence is not None]
    joined = Confidence.join(confidence) if confidence else None
    names = [n for n in parts[0][1].metrics if "." not in n and not n.startswith("ece")]
    scores = {name: _mean(name, fold_results) for name in names} | (joined.metrics() if joined is not None else {})

    def make() -> Classifier:
        classifier = fitted.make()
        note = f"cross-validation over {len(parts)} folds"
        return replace(classifier, protocol={**classifier.protocol, "test": scores, "tested_by": note})

    return FittedClassifier(make, joined, fitted.temperature)


def _mean(name: str, fold_results: list[tuple[Fold, Result]]) -> float:
    """Over folds, weighted by their test samples: of an accuracy the share of all."""
    sizes = [len(fold.ids("test")) for fold, _ in fold_results]
    return sum(n * r.metrics[name] for n, (_, r) in zip(sizes, fold_results, strict=True)) / sum(sizes)


def _predictions(fold_results: list[tuple[Fold, Result]]) -> Predictions:
    """Of all folds in the order of the samples; ids are those of the training split and, after it, of the test split."""
    parts = [(fold, r.artefacts[FILE]) for fold, r in fold_results]
    predicted = [p for _, p in parts if isinstance(p, Predictions)]
    ids = torch.cat([fold.wanted["test"][p.ids] for fold, p in parts if isinstance(p, Predictions)])
    order = ids.argsort()
    confidence = [p.probability for p in predicted if p.probability is not None]
    return Predictions(
        ids[order],
        torch.cat([p.y_true for p in predicted])[order],
        torch.cat([p.predicted for p in predicted], dim=1)[:, order],
        torch.cat(confidence, dim=1)[:, order] if confidence else None,
    )


def _confusion(predictions: Predictions, data: EvalData) -> Confusion:
    classes = max(len(data.dataset.classes), int(predictions.y_true.max()) + 1)
    pairs = (predictions.y_true * classes + predictions.predicted).flatten()
    counts = torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    return Confusion(counts, data.dataset.classes)


def _protocol(results: list[Result], pooled: Pooled, tested: int, seeds: int, count: int) -> Record:
    first = results[0].protocol
    notes = [note for r in results for note in r.protocol.get("notes", [])]
    several = "two or more" if pooled.groups is None else "samples in two or more groups"
    of_class = f"of a class with {several} " if pooled.untested else ""
    protocol = {
        **first,
        "seeds": seeds,
        "std": "standard deviation over divisions into folds (n - 1)",
        "splits": {"train": len(pooled.source), "labelled": tested + pooled.untested, "test": tested},
        "cross_validation": {
            "folds": count,
            "divisions": seeds,
            "tested": f"each labelled sample {of_class}once a division, by what was fitted to the labels of the other folds",
        },
        "notes": list(dict.fromkeys(notes)),
    }
    if "strength" in first:  # of the probe: C of each fold
        chosen = {k: [v for r in results for v in r.protocol["strength"][k]] for k in ("C", "edge")}
        protocol["strength"] = {**first["strength"], **chosen}
    return protocol
