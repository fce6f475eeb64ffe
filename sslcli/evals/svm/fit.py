"""A support-vector machine with an RBF kernel, in the protocol of TS2Vec."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.evals.classifier.class_weight import ClassWeight
from sslcli.evals.fit.grid_search import Choice
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.rng import derive

C_VALUES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 1e2, 1e3, 1e4, float("inf"))
FOLDS = 5
FEWEST = 50  # labeled samples, and 5 a class: with fewer C is infinite, that is, the margin is hard
ITERATIONS = 1_000_000  # the authors have 10 million; a hard margin may not exist, and the solver would not end
MOST = 10_000  # labeled samples; a stratified subset of more


@dataclass(frozen=True)
class SVM:
    """`choice`: of C. `labeled`: the number of samples that it was fitted to. `converged`: whether the solver ended before
    `ITERATIONS`."""

    model: Any
    choice: Choice
    labeled: int
    converged: bool = True

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Classes (m,) by the votes of pairs of classes, and scores (m, K), of features (m, d)."""
        z = x.double().numpy()
        scores = torch.from_numpy(np.asarray(self.model.decision_function(z)))
        both = torch.stack([-scores, scores], dim=1) if len(self.model.classes_) == 2 else scores
        return torch.from_numpy(self.model.predict(z)), both


def fit_svm(
    x: Tensor,
    y: Tensor,
    values: tuple[float, ...],
    seed: int,
    index: int,
    groups: Tensor | None = None,
    class_weight: ClassWeight = None,
) -> SVM:
    """Fit to features x (n, d) as they are, and classes y (n,), each of them present.

    Yue et al., "TS2Vec: Towards Universal Representation of Time Series", AAAI 2022 (arXiv:2106.10466), and the authors' code:
    gamma is 1 / (d * variance), C the best of `values` in cross-validation. `groups` (n,) are never divided by folds, a deviation
    for data that have such groups. With balanced `class_weight`, C is the best by balanced
    accuracy. The solver ends after 1,000,000 iterations, the authors' after 10 million."""
    from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    if len(y) > MOST:
        subset = subsets.draw(y, subsets.Amount("count", MOST), derive(seed, "svm"), index)
        x, y, groups = x[subset], y[subset], None if groups is None else groups[subset]
    groups = subsets.several(groups)
    features, classes = x.double().numpy(), y.numpy()
    count = len(y.unique())
    if len(values) == 1:
        choice = Choice(values[0])
    elif len(y) // count < FOLDS or len(y) < FEWEST or (groups is not None and len(groups.unique()) < FOLDS):
        choice = Choice(float("inf"), "default: too few labels to choose from")
    else:
        folds: Any = FOLDS
        if groups is not None:
            fold = subsets.folds(y, FOLDS, seed, index, groups).numpy()
            folds = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(FOLDS)]
        machine = SVC(gamma="scale", max_iter=ITERATIONS, class_weight=class_weight)
        what = "accuracy" if class_weight is None else "balanced accuracy"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter(
                "ignore", FitFailedWarning
            )  # a C without a solution scores NaN, which is never the best
            warnings.filterwarnings("ignore", "One or more of the test scores are non-finite")
            search = GridSearchCV(machine, {"C": list(values)}, scoring=what.replace(" ", "_"), cv=folds, refit=False)
            search.fit(features, classes)
        how = f"{what} over {FOLDS} folds of {len(y)} labelled training samples"
        choice = Choice(float(search.best_params_["C"]), how, values)
    model = SVC(C=choice.value, gamma="scale", max_iter=ITERATIONS, class_weight=class_weight)
    with warnings.catch_warnings():  # `converged` says it
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, classes)
    return SVM(model, choice, len(y), model.fit_status_ == 0 and int(np.max(model.n_iter_)) < ITERATIONS)
