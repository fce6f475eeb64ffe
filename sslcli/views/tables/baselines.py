"""What tables are compared with: standardized and one-hot encoded columns, logistic or ridge regression, gradient boosting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.data.dataset import Dataset
from sslcli.nn.values import Columns
from sslcli.views.modality import Baseline, RawFeatures

MAX_BINS = 255  # of scikit-learn's gradient boosting: columns of more categories are taken as numbers
ALL_READ = 10_000  # rows up to which it bins all of them: it holds a tenth out of more, and bins a sample of very many


class OneHot(RawFeatures):
    """Standardized numbers, 0 where one is missing; 1 where one is missing, else 0; one 0 or 1 for each known category."""

    def __init__(self, values: Columns):
        self.values = values

    def transform(self, x: Tensor) -> Tensor:
        numbers = x[:, self.values.slices.numeric]
        parts = [numbers.nan_to_num(), numbers.isnan().float()]
        for j, n in enumerate(self.values.categories):
            if n:
                parts.append(F.one_hot(x[:, j].nan_to_num().long(), n)[:, 1:].to(x))
        return torch.cat(parts, dim=1).float()


class Linear(Baseline):
    """Logistic regression of classes, or ridge regression of values, on `OneHot`."""

    def __init__(self, features: OneHot, task: str):
        self.features, self.task = features, task
        what = "logistic regression, C 1" if task == "classes" else "ridge regression, cross-validated alpha"
        self.note = f"scikit-learn's {what}, on standardized numbers and one-hot categories"

    def fit(self, x: Tensor, y: Tensor, seed: int, class_weight: str | None = None) -> Callable[[Tensor], Tensor]:
        from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV

        if self.task == "classes":
            model = LogisticRegression(max_iter=2000, class_weight=class_weight)
        else:
            model = RidgeCV(np.logspace(-3, 5, 17)) if len(y) > 1 else Ridge()  # one row cannot be cross-validated
        model.fit(self.features.transform(x).numpy(), y.numpy())
        predict = model.predict_proba if self.task == "classes" else model.predict
        return lambda new: torch.from_numpy(np.asarray(predict(self.features.transform(new).numpy())))


class Boosting(Baseline):
    """scikit-learn's histogram gradient boosting with its default settings; categories are split as such, missing values have a
    branch of their own. It cannot bin a column without any value: columns of which the labeled rows have none, or so few that the
    rows it bins may have none, are left out."""

    def __init__(self, values: Columns, task: str):
        self.values, self.task = values, task
        self.native = [0 < n <= MAX_BINS for n in values.categories]
        self.note = (
            "scikit-learn's histogram gradient boosting, default settings: a leaf has at least 20 rows, so that fewer than 40 "
            "labels result in a constant"
        )

    def fit(self, x: Tensor, y: Tensor, seed: int, class_weight: str | None = None) -> Callable[[Tensor], Tensor]:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        count = self.values.present(x).sum(dim=0)
        kept = (count >= (1 if len(x) <= ALL_READ else max(20, len(x) // 10_000))).nonzero()[:, 0]
        native = [self.native[j] for j in kept.tolist()] or None
        settings = {"categorical_features": native, "random_state": seed % (1 << 32)}
        if self.task == "classes":
            model = HistGradientBoostingClassifier(class_weight=class_weight, **settings)
        else:
            model = HistGradientBoostingRegressor(**settings)
        model.fit(self._input(x, kept), y.numpy())
        predict = model.predict_proba if self.task == "classes" else model.predict
        return lambda new: torch.from_numpy(np.asarray(predict(self._input(new, kept))))

    def _input(self, x: Tensor, kept: Tensor) -> np.ndarray:
        """The columns `kept`: known categories from 0, NaN where a value is missing or unknown. A constant where there is none."""
        x = x.double()
        category = self.values.is_category(x)
        codes = torch.where(x == 0, torch.nan, x - 1)
        out: np.ndarray = torch.where(category, codes, x)[:, kept].numpy()
        return out if len(kept) else np.zeros((len(x), 1))


def baselines(dataset: Dataset, values: Columns) -> dict[str, Baseline]:
    return {"linear": Linear(OneHot(values), dataset.task), "boosting": Boosting(values, dataset.task)}
