"""A linear probe with a temperature that calibrates it, fitted on labeled training samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Baselines
from sslcli.evals.classifier.class_weight import ClassWeight
from sslcli.evals.fit.linear_probe import CROSS_VALIDATE_UP_TO, FOLDS, LinearProbe, fit_linear_probe
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.metrics import calibration
from sslcli.views.modality import RawFeatures


@dataclass
class CalibratedProbe:
    """A module from inputs to features, the linear probe on them, and its temperature."""

    kind: str
    module: nn.Module
    head: LinearProbe
    scaling: calibration.Temperature
    test: tuple[Tensor, Tensor]
    labeled: int

    @property
    def temperature(self) -> float:
        return self.scaling.value

    def say(self, metrics: dict[str, float], name: str, value: float) -> None:
        metrics[f"{self.kind}.{name}" if self.kind else name] = value


class RawModule(nn.Module):
    """Raw features as a module of clean views: those of corrupted samples are never whole."""

    def __init__(self, features: RawFeatures):
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return self.features.transform(x)


def fit_probes(
    backbone: nn.Module,
    data: EvalData,
    amount: subsets.Amount,
    strength: float | None,
    baselines: Baselines,
    class_weight: ClassWeight = None,
) -> dict[str, CalibratedProbe]:
    modules = {"": backbone, "raw": RawModule(data.raw_features), **data.backbones.wanted(baselines)}
    probes = {}
    for kind, features in data.feature_sets(backbone, baselines).items():
        x, y = features("train")
        name, classes = data.dataset.name, data.dataset.classes
        groups = data.groups("train")
        head = fit_linear_probe(x, y, amount, data.seed, classes, data.device, strength, name, groups, class_weight)
        ids = subsets.draw(y, amount, data.seed, 0, classes)
        module = modules[kind]
        scaling = held_out_temperature(x, y, ids, head, data)
        probes[kind] = CalibratedProbe(kind, module, head, scaling, features("test"), len(ids))
    return probes


def held_out_temperature(
    x: Tensor, y: Tensor, ids: Tensor, head: LinearProbe, data: EvalData
) -> calibration.Temperature:
    """The temperature by held-out logits of the labeled training samples `ids`, from probes fitted to the other folds."""
    if len(ids) < FOLDS:
        return calibration.Temperature()
    groups = data.groups("train")
    fold = subsets.folds(y[ids], FOLDS, data.seed, 0, None if groups is None else groups[ids])
    logits, columns = [], []
    for f in range(FOLDS if len(ids) <= CROSS_VALIDATE_UP_TO else 1):
        fold_labels, held = torch.full_like(y, -1), ids[fold == f]
        fold_labels[ids[fold != f]] = y[ids[fold != f]]
        if not torch.equal(y[ids[fold != f]].unique(), head.classes):
            continue  # a class is in this fold alone
        fold_probe = fit_linear_probe(
            x,
            fold_labels,
            subsets.Amount("all"),
            data.seed,
            (),
            data.device,
            head.fit.strength,
            data.dataset.name,
            class_weight=head.class_weight,
        )
        logits.append(fold_probe.logits(x[held]))
        columns.append(class_columns(head.classes, y[held]))
    if not logits:
        return calibration.Temperature()
    return calibration.choose_temperature(torch.cat(logits), torch.cat(columns), data.seed)


def class_columns(classes: Tensor, y: Tensor) -> Tensor:
    """Columns (n,) of a probe's logits for the classes `y` (n,); -1 for classes that were not in training."""
    place = torch.searchsorted(classes, y).clamp(max=len(classes) - 1)
    return torch.where(classes[place] == y, place, -1)
