"""The scalar that an attribution map explains: a class probability or a similarity."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.errors import RequestError
from sslcli.evals.artefacts.sample_sheets import class_name
from sslcli.evals.base.features import EvalData
from sslcli.evals.classifier.class_weight import ClassWeight, check_class_weight
from sslcli.evals.fit.grid_search import choice_notes
from sslcli.evals.fit.linear_probe import C_GRID, fit_linear_probe
from sslcli.evals.fit.neighbors import nearest_neighbors
from sslcli.evals.inputs import label_subsets as subsets


def choose_target(target: str, data: EvalData, class_weight: ClassWeight) -> str:
    """What is explained, class, value or neighbour, of a `target` that may be auto. RequestError where the data do not have it, and
    for weights of classes where no probe of classes is fitted."""
    if target not in ("auto", "class", "value", "neighbour"):
        raise RequestError(
            f"evaluator.target={target}: expected auto, class, value or neighbour", "evaluator.target=auto"
        )
    predicts_value = data.dataset.task == "value"
    if target in ("class", "value") and predicts_value != (target == "value"):
        raise RequestError(
            f"evaluator.target={target}: {data.dataset.name} has {'a value' if predicts_value else 'classes'} to predict",
            "evaluator.target=auto",
        )
    check_class_weight(class_weight, data.dataset)
    if target == "auto":
        y = data.labels("train")
        target = "value" if predicts_value else "class" if len(y[y >= 0].unique()) > 1 else "neighbour"
    if class_weight is not None and target == "neighbour":
        raise RequestError(
            f"evaluator.class_weight={class_weight} has no effect: the similarity to the nearest training sample is explained, "
            "and no probe is fitted",
            "evaluator.class_weight=null; evaluator.target=class needs labels of two classes",
        )
    return target


class ClassProbability:
    """Probability of the class that a linear probe predicts for the whole sample."""

    unit = "probability"

    def __init__(self, backbone: nn.Module, data: EvalData, amount: subsets.Amount, class_weight: ClassWeight = None):
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
            class_weight=class_weight,
        )
        self.backbone, self.layer = backbone, head.linear(data.device)
        self.classes, self.known = data.dataset.classes, head.classes
        self.what = f"the class that the linear probe (labels {amount}) gives the whole sample"
        self.notes = choice_notes([head.choice], C_GRID, "C of the probe", "evaluator.strengths")

    @torch.no_grad()
    def target(self, x: Tensor) -> Tensor:
        return self.layer(self.backbone(x).float()).argmax(dim=1)

    def titles(self, target: Tensor) -> list[str]:
        """The name of the class of each sample."""
        return [class_name(self.classes, int(self.known[i])) for i in target.tolist()]

    def score(self, z: Tensor, target: Tensor) -> Tensor:
        return self.layer(z.float()).gather(1, target[:, None])[:, 0]

    @torch.no_grad()
    def evaluate(self, x: Tensor, target: Tensor) -> Tensor:
        return self.layer(self.backbone(x).float()).softmax(dim=1).gather(1, target[:, None])[:, 0]


class NeighborSimilarity:
    """Cosine similarity to the training sample that is nearest to the whole sample."""

    unit = "cosine"
    what = "the cosine to the features of the nearest training sample"
    notes: list[str] = []

    def __init__(self, backbone: nn.Module, data: EvalData):
        x, _ = data.features(backbone, "train")
        self.backbone, self.bank, self.device = backbone, F.normalize(x, dim=1), data.device

    @torch.no_grad()
    def target(self, x: Tensor) -> Tensor:
        z = F.normalize(self.backbone(x).float(), dim=1).cpu()
        _, nearest = nearest_neighbors(self.bank, z, 1, self.device)
        return self.bank[nearest[:, 0]].to(x.device)

    def titles(self, target: Tensor) -> list[str]:
        return ["similarity"] * len(target)

    def score(self, z: Tensor, target: Tensor) -> Tensor:
        return F.cosine_similarity(z.float(), target, dim=1)

    @torch.no_grad()
    def evaluate(self, x: Tensor, target: Tensor) -> Tensor:
        return self.score(self.backbone(x), target)
