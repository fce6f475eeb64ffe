"""Make the classifier of the first draw of labels from what an evaluator fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sslcli import console
from sslcli.classifier.model import Classifier
from sslcli.classifier.reference import Reference, reference_rows
from sslcli.console import plural
from sslcli.evals.base.embedding import embed
from sslcli.evals.base.features import EvalData
from sslcli.evals.classifier.class_weight import ClassWeight
from sslcli.evals.classifier.confidence import Confidence, FittedClassifier
from sslcli.evals.finetuning.predictions import FirstDraw
from sslcli.evals.finetuning.training import Trained
from sslcli.evals.fit.calibrated_probe import held_out_temperature
from sslcli.evals.fit.linear_probe import LinearProbe, Standardizer
from sslcli.evals.metrics.calibration import Temperature
from sslcli.evals.regression.errors import NAMES, errors
from sslcli.evals.regression.ridge import RidgeFit
from sslcli.evals.regression.values import ValueOutputs
from sslcli.runs import Record

FLAT = 100.0  # a temperature at which probabilities are equal for practical purposes


def probe_classifier(
    probe: LinearProbe,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    test: tuple[Tensor, Tensor],
    data: EvalData,
    calibrate: bool = True,
) -> FittedClassifier:
    """A linear probe that was fitted to the rows `ids` of training features `x` (n, d) with labels `y` (n,).

    `test`: its logits (t, K) of test samples, and which are right (t,)."""
    temperature = held_out_temperature(x, y, ids, probe, data) if calibrate else None
    confidence = Confidence.of(*test, temperature.value) if temperature is not None else None
    scores = {"top1": _share(test[1]), **(confidence.metrics() if confidence is not None else {})}
    scaling = _calibration(temperature, "logits of probes fitted to the other folds")
    how = {
        "C": probe.choice.value,
        **_weighted(probe.class_weight),
        "temperature": scaling,
    }

    def make() -> Classifier:
        weight, bias = _folded(probe.standardize, probe.fit.weight, probe.fit.bias)
        reference = Reference.of(x[reference_rows(len(x), data.seed)])
        names = _names(probe.classes, data.dataset.classes)
        protocol = _protocol(len(ids), len(test[1]), scores, how)
        return Classifier("probe", weight, bias, names, reference, value, protocol=protocol)

    value = 1.0 if temperature is None else temperature.value
    return FittedClassifier(make, confidence, scaling if calibrate else "")


def finetuned_classifier(first: FirstDraw, data: EvalData, calibrate: bool = True) -> FittedClassifier:
    """A fine-tuned backbone with its head."""
    trained, test = first.trained, first.test
    confidence = Confidence.of(*test, trained.temperature.value) if calibrate else None
    scores = {"top1": _share(test[1]), **(confidence.metrics() if confidence is not None else {})}
    how = {"lr": trained.rate.value, **_weighted(None if trained.weights is None else "balanced")}
    scaling = _calibration(trained.temperature if calibrate else None, "logits of a training on the other four fifths")
    how["temperature"] = scaling
    protocol = _protocol(first.labeled, len(test[1]), scores, how)
    return FittedClassifier(lambda: _finetuned(trained, data, protocol), confidence, scaling if calibrate else "")


def finetuned_value(trained: Trained, data: EvalData, outputs: ValueOutputs) -> FittedClassifier:
    """A fine-tuned backbone with its head for a value, and what it predicts for the test samples."""
    protocol = _protocol(outputs.labeled, len(outputs.y), _value_scores(outputs), {"lr": trained.rate.value})
    return FittedClassifier(lambda: _finetuned(trained, data, protocol))


def _finetuned(trained: Trained, data: EvalData, protocol: Record) -> Classifier:
    rows = data.batches("train", reference_rows(len(data.source("train")), data.seed), windows=True)
    features = [z.cpu() for _, z in embed(trained.backbone, rows, data.autocast, data.channels_last)]
    return Classifier(
        "finetune",
        trained.head.weight.detach().cpu(),
        trained.head.bias.detach().cpu(),
        _names(trained.classes, data.dataset.classes),
        Reference.of(torch.cat(features)),
        trained.temperature.value,
        trained.backbone,
        protocol,
    )


def value_layer(
    standardize: Standardizer, fit: RidgeFit, alpha: float, x: Tensor, data: EvalData, outputs: ValueOutputs
) -> FittedClassifier:
    """Ridge regression on standardized training features `x` (n, d), and what it predicts for the test samples."""

    def make() -> Classifier:
        weight, bias = _folded(standardize, fit.weight[:, None], torch.tensor([fit.bias], dtype=torch.float64))
        reference = Reference.of(x[reference_rows(len(x), data.seed)])
        protocol = _protocol(outputs.labeled, len(outputs.y), _value_scores(outputs), {"alpha": alpha})
        return Classifier("probe", weight, bias, (), reference, protocol=protocol)

    return FittedClassifier(make)


def _value_scores(outputs: ValueOutputs) -> dict[str, float]:
    """Errors of the first draw of labels."""
    found = zip(NAMES, errors(outputs.y, outputs.predicted[:1])[:, 0].tolist(), strict=True)
    return {name: value for name, value in found if math.isfinite(value)}


def _folded(standardize: Standardizer, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (K, d) and bias (K,), float64, of features as they come, of a layer (d, K) on standardized features."""
    folded = standardize.scale.double()[:, None] * weight.double()
    return folded.T.contiguous(), bias.double() - standardize.mean.double() @ folded


def _names(classes: Tensor, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(names[c] if c < len(names) else str(c) for c in classes.tolist())


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def _weighted(class_weight: ClassWeight) -> Record:
    return {} if class_weight is None else {"class_weight": class_weight}


def _calibration(temperature: Temperature | None, how: str) -> str:
    """What the temperature is and why, with a warning where it makes all probabilities equal. None: it was not asked for."""
    if temperature is None:
        return "1: not calibrated"
    if temperature.value > FLAT:
        samples = plural(temperature.held, "labeled training sample")
        console.warn(
            f"held-out predictions of {samples} are no better than chance: the probabilities of all classes are equal",
            "use more labels, or evaluator.calibrate=false",
        )
    return temperature.describe(how)


def _protocol(labeled: int, tested: int, scores: Mapping[str, float], how: Record) -> Record:
    return {"draw": 0, "splits": {"labelled": labeled, "test": tested}, "test": dict(scores), **how}
