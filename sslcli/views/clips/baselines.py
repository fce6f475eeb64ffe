"""What audio is compared with: statistics of mel bands, and spectrograms of one length, with logistic or ridge regression.

They see whole clips, without the silence that a view adds to short ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.data.audio.mel import LogMel
from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.audio.statistics import SECONDS, middle, wave
from sslcli.data.dataset import Source
from sslcli.views.modality import Baseline, RawFeatures

FRAMES = 32  # of a spectrogram of one length
Summary = Callable[[Tensor], Tensor]  # log-mel (F, T) -> (p,)


class Clips:
    """The clips `ids` (n,) of a source, as normalized spectrograms of their own lengths. A tensor of positions (m,) selects
    some."""

    def __init__(self, source: Source, ids: Tensor, preprocessor: AudioPreprocessor):
        self.source, self.ids, self.preprocessor = source, ids, preprocessor

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Tensor]:
        """(F, T) each, of at most 30 seconds of the middle."""
        known = self.preprocessor
        log_mel, mean, std = LogMel(known.mel), torch.tensor(known.mean)[:, None], torch.tensor(known.std)[:, None]
        for i in self.ids.tolist():
            part = middle(self.source.read(i), SECONDS * known.mel.rate)
            yield (log_mel(wave(part)[None])[0] - mean) / std

    def __getitem__(self, positions: Tensor) -> Clips:
        return Clips(self.source, self.ids[positions], self.preprocessor)


def mean_and_std(x: Tensor) -> Tensor:
    """(F, T) -> (2 F,): the mean and the standard deviation of each band over time."""
    return torch.cat([x.mean(dim=1), x.std(dim=1, correction=0)])


def stretched(x: Tensor) -> Tensor:
    """(F, T) -> (32 F,): the spectrogram at 32 equally spaced times, interpolated linearly, or averaged where it is longer."""
    if x.shape[1] >= FRAMES:
        return F.adaptive_avg_pool1d(x[None], FRAMES).flatten()
    return F.interpolate(x[None], FRAMES, mode="linear", align_corners=True).flatten()


class MelStatistics(RawFeatures):
    """The mean and the standard deviation of each mel band."""

    def transform(self, x: Any) -> Tensor:
        """Clips, or clean views (B, 1, F, T)."""
        each = x[:, 0].cpu() if isinstance(x, Tensor) else x
        return torch.stack([mean_and_std(one) for one in each])


class MelRegression(Baseline):
    """Logistic regression of classes, or ridge regression of values, on standardized features of spectrograms."""

    def __init__(self, summary: Summary, what: str, training: Clips, task: str):
        self.summary, self.training, self.task = summary, training, task
        model = "logistic regression, C 1" if task == "classes" else "ridge regression, cross-validated alpha"
        self.note = f"scikit-learn's {model}, on {what} of whole clips, standardized"
        self._of_training: np.ndarray | None = None  # draws of labels select rows of it
        self._last: tuple[Clips, np.ndarray] | None = None  # the same test clips are predicted for each draw

    def fit(self, x: Clips, y: Tensor, seed: int, class_weight: str | None = None) -> Callable[[Clips], Tensor]:
        from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if self.task == "classes":
            last: Any = LogisticRegression(max_iter=1000, class_weight=class_weight)
        else:
            last = RidgeCV(np.logspace(-3, 5, 17)) if len(y) > 1 else Ridge()
        model = make_pipeline(StandardScaler(), last).fit(self._features(x), y.numpy())
        predict = model.predict_proba if self.task == "classes" else model.predict
        return lambda new: torch.from_numpy(np.asarray(predict(self._features(new))))

    def _features(self, x: Clips) -> np.ndarray:
        """(n, p)"""
        if x.source is self.training.source:
            if self._of_training is None:
                self._of_training = self._compute(self.training)
            return self._of_training[x.ids.numpy()]
        if self._last is None or self._last[0] is not x:
            self._last = x, self._compute(x)
        return self._last[1]

    def _compute(self, x: Clips) -> np.ndarray:
        return torch.stack([self.summary(one) for one in x]).numpy()
