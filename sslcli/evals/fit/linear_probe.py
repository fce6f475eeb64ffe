"""The linear probe: logistic regression on standardized features, with scikit-learn's C chosen on training samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.evals.classifier.class_weight import ClassWeight, class_weights
from sslcli.evals.fit.grid_search import Choice, Grid, Score, search
from sslcli.evals.fit.logistic import Fit, Logistic
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.rng import derive
from sslcli.runs import Record

# scikit-learn's C: first 1e-4 to 10, continued while an edge is best. Below 1e-8 only the majority class is predicted; above
# 1e6 the solver reaches its tolerance before the penalty matters.
C_GRID = Grid(tuple(float(f"1e{e}") for e in range(-8, 7)), first=4, last=9)
DEFAULT_C = 1e-1  # with too few labels to choose C; accuracy on digits with 1/class is flat from 0.03 to 10
FOLDS = 5
CROSS_VALIDATE_UP_TO = 2_000  # labeled samples; above, a single fold is held out
CHOOSE_ON_AT_MOST = 20_000  # samples: a stratified subset suffices, since the best C hardly depends on n
TOLERANCE = 3e-6  # gradient norm of the final fit: its loss is within 1e-6 of the optimum, relative
CHOICE_TOLERANCE = 1e-4  # gradient norm while C is chosen


def c_protocol(choices: list[Choice], grid: Grid) -> Record:
    """The entry of a protocol on C: the value of each draw, and whether it is an edge of the grid."""
    tried = sorted({value for choice in choices for value in choice.tried})
    return {
        "C": [choice.value for choice in choices],
        "edge": [choice.edge or "no" for choice in choices],
        "chosen_by": choices[-1].how,
        "grid": list(grid.start),
        "continued_to": sorted(set(tried) - set(grid.start)),
        "bounds": [grid.values[0], grid.values[-1]],
    }


class Standardizer:
    """Standardizes features with the mean and standard deviation of those it is made from (n, d). Constant features become 0."""

    def __init__(self, x: Tensor):
        self.mean = x.mean(dim=0)
        squares = sum((part - self.mean).square_().sum(dim=0) for part in x.split(1024))
        std = (squares / len(x)).sqrt()  # eight times as fast as `x.std(dim=0)`
        varies = std > 1e-6 * std.max()
        self.scale = torch.where(varies, 1 / torch.where(varies, std, 1.0), 0.0)

    def __call__(self, x: Tensor, ids: Tensor) -> Tensor:
        """Standardized rows `ids` (m,) of `x` (n, d), with a single copy in memory."""
        return x[ids].sub_(self.mean).mul_(self.scale)


def choose_c(
    x: Tensor,
    y: Tensor,
    classes: int,
    grid: Grid,
    seed: int,
    index: int,
    groups: Tensor | None = None,
    weights: Tensor | None = None,
) -> Choice:
    """Chooses C by cross-validation on labeled training samples: highest accuracy, ties broken by the lowest log loss.

    `x` (n, d), `y` (n,) in 0..classes-1. `groups` (n,) are never split over folds. With `weights` (K,) of the classes, the models,
    accuracies and losses are weighted: balanced weights choose the highest balanced accuracy.
    """
    if len(grid.values) == 1:
        return Choice(grid.values[0])
    smallest = int(y.bincount(minlength=classes).min())
    if len(y) < 2 * classes:
        return Choice(DEFAULT_C, "default: too few labels to choose from")
    if len(y) > CHOOSE_ON_AT_MOST:
        subset = subsets.draw(y.cpu(), subsets.Amount("count", CHOOSE_ON_AT_MOST), derive(seed, "choose"), index)
        x, y = x[subset.to(x.device)], y[subset]
        groups = None if groups is None else groups[subset]
    count = min(FOLDS, max(2, smallest))
    if (groups := subsets.several(groups)) is not None:
        count = min(count, len(groups.unique()))
    fold = subsets.folds(y, count, seed, index, groups)
    rounds = range(count) if len(y) <= CROSS_VALIDATE_UP_TO else range(1)
    models = [
        Logistic(x[fold != f], y[fold != f], classes, weights=weights) for f in rounds
    ]  # each fit starts from the previous solution
    held = [(x[fold == f].cpu(), y[fold == f]) for f in rounds]
    n_held = sum(len(y_out) for _, y_out in held)
    what = "accuracy" if weights is None else "weighted accuracy"
    of_classes = None if weights is None else weights.float().cpu()
    how = (
        f"{what} over {count} stratified folds of {len(y)} labelled training samples"
        if len(rounds) > 1
        else f"{what} on a stratified slice of {n_held} of {len(y)} labelled training samples"
    )

    def score(strength: float) -> Score:
        right = loss = 0.0
        for model, (x_out, y_out) in zip(models, held, strict=True):
            logits = model.fit(strength, CHOICE_TOLERANCE).logits(x_out)
            hits = logits.argmax(dim=1) == y_out
            right += int(hits.sum()) if weights is None else float(weights[y_out[hits]].sum())
            loss += float(F.cross_entropy(logits, y_out, of_classes, reduction="sum"))
        return right, -loss

    def enough(scores: list[Score]) -> bool:
        """Large C is slow to fit: stop after two values in a row that are worse in accuracy and in log loss."""
        best = max(scores)
        return len(scores) > 2 and all(s[0] < best[0] and s[1] < best[1] for s in scores[-2:])

    return search(grid, score, how, enough)


@dataclass(frozen=True)
class LinearProbe:
    """Logistic regression on standardized features; column j of its logits is class `classes[j]`."""

    standardize: Standardizer
    fit: Fit
    classes: Tensor  # (K,) int64, classes of the training samples, ascending
    choice: Choice  # of C
    class_weight: ClassWeight = None

    def logits(self, z: Tensor) -> Tensor:
        """Logits (n, K) of features (n, d) of the backbone, on the CPU."""
        z = z.cpu().float()
        return self.fit.logits(self.standardize(z, torch.arange(len(z))))

    def predict(self, z: Tensor) -> Tensor:
        """Classes (n,) of features (n, d)."""
        return self.classes[self.logits(z).argmax(dim=1)]

    def linear(self, device: torch.device | str) -> nn.Linear:
        """Standardization and regression as one frozen linear layer, for gradients with respect to the features."""
        weight = self.standardize.scale[:, None] * self.fit.weight  # (d, K)
        layer = nn.Linear(*weight.shape)
        with torch.no_grad():
            layer.weight.copy_(weight.T)
            layer.bias.copy_(self.fit.bias - self.standardize.mean @ weight)
        return layer.requires_grad_(False).to(device)


def fit_linear_probe(
    x: Tensor,
    y: Tensor,
    amount: subsets.Amount,
    seed: int,
    names: tuple[str, ...] = (),
    device: torch.device | str = "cpu",
    strength: float | None = None,
    name: str = "the data set",
    groups: Tensor | None = None,
    class_weight: ClassWeight = None,
) -> LinearProbe:
    """Fits a linear probe to training features (n, d) with labels (n,), -1 for none, by the protocol of `sslcli eval probe`.

    `strength`: scikit-learn's C; None chooses it on training samples, without splitting `groups` (n,). Raises DataError for
    fewer than two classes.
    """
    subsets.check(y, "train", name)
    ids = subsets.draw(y, amount, seed, 0, names)
    subsets.check(y[ids], "train", name)
    classes, targets = y[ids].unique(return_inverse=True)
    standardize = Standardizer(x)
    rows = standardize(x, ids).to(device)
    grid = C_GRID if strength is None else Grid.of([strength])
    weights = class_weights(targets, len(classes), class_weight)
    choice = choose_c(rows, targets, len(classes), grid, seed, 0, None if groups is None else groups[ids], weights)
    fit = Logistic(rows, targets, len(classes), weights=weights).fit(choice.value, TOLERANCE)
    return LinearProbe(standardize, fit, classes, choice, class_weight)
