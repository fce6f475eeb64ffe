"""What series are compared with: the nearest neighbor under dynamic time warping, and ridge regression on MiniROCKET features.

Both are fitted for each draw of labels, but see the same samples again and again: what they compute of a sample is kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sslcli.data.dataset import Dataset
from sslcli.data.recordings.gaps import fill_gaps
from sslcli.nn.values import Continuous
from sslcli.rng import order
from sslcli.views.modality import Baseline
from sslcli.views.op import per_channel
from sslcli.views.signals.dtw import dtw_distances
from sslcli.views.signals.minirocket import DIM, MiniRocket

MAX_CELLS = 40e9  # pairs of steps that DTW compares: about two minutes on one core
BAND = 0.1  # of the longest series: the Sakoe-Chiba band where all pairs of steps would be more
MAX_ROWS = 8_000  # labeled samples of ridge regression on 9,996 features
MAX_FEATURES = 1 << 30  # bytes of the features of training and test samples
LEVELS_FROM = 1_000  # training samples that MiniROCKET's biases are taken from
ALPHAS = np.logspace(-3, 3, 10)  # of ridge regression, as in the authors' code
CHOOSE_ON_AT_MOST = 2_000  # rows of the leave-one-out error that chooses alpha


def baselines(dataset: Dataset) -> dict[str, Baseline]:
    tested = 0 if dataset.test is None else len(dataset.test)
    return {
        "dtw": NearestDTW(dataset.task, dataset.shape, len(dataset.train) * tested),
        "minirocket": MiniRocketRidge(dataset),
    }


def row_digests(x: Tensor) -> list[bytes]:
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x.contiguous().numpy()]


class NearestDTW(Baseline):
    """The class, or value, of the training series of the smallest distance. Channels are standardized over the training split."""

    weighs_classes = False  # the nearest sample decides

    def __init__(self, task: str, shape: tuple[int, ...], pairs: int):
        """`pairs`: of training and test samples; their number decides whether the warping is limited to a band."""
        self.task, (self.channels, self.steps) = task, shape
        every = self._cells(pairs, self.steps)
        self.radius = None if every <= MAX_CELLS else math.ceil(BAND * self.steps)
        band = "any warping" if self.radius is None else f"warping by at most {self.radius} steps"
        self.note = f"1-nearest neighbor under dynamic time warping, channels aligned together, {band}"
        self._tested = b""  # digest of the test samples of `_columns`
        self._columns: dict[bytes, Tensor] = {}  # digest of a training sample -> its distances to the test samples

    def left_out(self, labeled: int, tested: int) -> str:
        width = self.steps if self.radius is None else min(self.steps, 2 * self.radius + 1)
        cells = self._cells(labeled * tested, width)
        if cells <= MAX_CELLS:
            return ""
        return f"dtw is left out: {labeled:,} x {tested:,} pairs of series would take {cells:.0e} steps"

    def fit(self, x: Tensor, y: Tensor, seed: int, class_weight: str | None = None) -> Callable[[Tensor], Tensor]:
        def predict(new: Tensor) -> Tensor:
            distances = self._distances(x, new)
            if self.task == "value":
                return y[distances.argmin(dim=1)]
            nearest = torch.stack([distances[:, y == k].amin(dim=1) for k in range(int(y.max()) + 1)], dim=1).double()
            near = 1 / (nearest + 1e-12 * nearest.amax(dim=1, keepdim=True) + 1e-30)
            return near / near.sum(dim=1, keepdim=True)

        return predict

    def _cells(self, pairs: int, width: int) -> float:
        return float(pairs) * self.steps * width * self.channels

    def _distances(self, x: Tensor, new: Tensor) -> Tensor:
        """(m, n): of new samples to training samples."""
        tested = b"".join(row_digests(new))
        if tested != self._tested:
            self._tested, self._columns = tested, {}
        keys = row_digests(x)
        unseen = {key: i for i, key in enumerate(keys) if key not in self._columns}
        if unseen:
            found = dtw_distances(*fill_gaps(new), *fill_gaps(x[list(unseen.values())]), self.radius)
            self._columns |= dict(zip(unseen, found.unbind(dim=1), strict=True))
        return torch.stack([self._columns[key] for key in keys], dim=1)


class MiniRocketRidge(Baseline):
    """A ridge classifier, or ridge regression, on standardized MiniROCKET features, with alpha by leave-one-out. The biases are
    quantiles of all training samples, because most of these may have no label."""

    note = (
        "MiniROCKET, 9,996 features with biases from the training samples, and ridge regression with alpha chosen by the "
        "leave-one-out error"
    )

    def __init__(self, dataset: Dataset, seed: int = 0):
        """`seed`: of the training samples that biases are taken from, and of the channels of each kernel."""
        self.dataset, self.seed = dataset, seed
        self._transform: MiniRocket | None = None
        self._features: dict[bytes, Tensor] = {}

    def left_out(self, labeled: int, tested: int) -> str:
        if labeled <= MAX_ROWS and (labeled + tested) * DIM * 4 <= MAX_FEATURES:
            return ""
        return (
            f"minirocket is left out: {labeled:,} labeled and {tested:,} test samples have too many features for memory"
        )

    def fit(self, x: Tensor, y: Tensor, seed: int, class_weight: str | None = None) -> Callable[[Tensor], Tensor]:
        from sklearn.linear_model import Ridge, RidgeClassifier, RidgeClassifierCV, RidgeCV
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        features, targets = scaler.fit_transform(self._of(x)), y.numpy()
        search, final = RidgeCV, Ridge
        if self.dataset.task == "classes":
            search, final = (partial(kind, class_weight=class_weight) for kind in (RidgeClassifierCV, RidgeClassifier))
        rows = order(seed, 0, len(y))[:CHOOSE_ON_AT_MOST].sort().values.numpy()
        alpha = search(ALPHAS).fit(features[rows], targets[rows]).alpha_ if len(y) > 1 else 1.0
        model = final(alpha).fit(features, targets)

        def predict(new: Tensor) -> Tensor:
            z = scaler.transform(self._of(new))
            if self.dataset.task == "value":
                return torch.from_numpy(np.asarray(model.predict(z), np.float64))
            scores = torch.from_numpy(np.asarray(model.decision_function(z), np.float64))
            both = torch.stack([-scores, scores], dim=1) if len(model.classes_) == 2 else scores
            return both.softmax(dim=1)

        return predict

    def _of(self, x: Tensor) -> np.ndarray:
        """(n, 9996) float64 features of clean views."""
        if self._transform is None:
            self._transform = MiniRocket(*fill_gaps(self._training_sample()), self.seed)
        keys = row_digests(x)
        unseen = {key: i for i, key in enumerate(keys) if key not in self._features}
        if unseen:
            found = self._transform.transform(*fill_gaps(x[list(unseen.values())]))
            self._features |= dict(zip(unseen, found, strict=True))
        return torch.stack([self._features[key] for key in keys]).double().numpy()

    def _training_sample(self) -> Tensor:
        """Clean views (n, C, T) of training samples, at most 1,000, the same for each draw."""
        values, source = self.dataset.values, self.dataset.train
        assert isinstance(values, Continuous), values
        rows = order(0, 0, len(source))[:LEVELS_FROM].sort().values
        raw = torch.stack([torch.as_tensor(source.read(i), dtype=torch.float32) for i in rows.tolist()])
        mean, std = (per_channel(v, self.dataset.shape[0]).view(-1, 1) for v in (values.mean, values.std))
        return ((raw - mean) / std).float()
