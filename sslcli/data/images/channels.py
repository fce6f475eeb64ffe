"""Convert images between 1 and 3 channels, for encoders trained on the other number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.data.dataset import Dataset, Source
from sslcli.data.images.crop import to_array
from sslcli.data.storage import Dense

LUMINANCE = (299, 587, 114)  # thousandths of red, green, blue: ITU-R BT.601, as Pillow converts to mode L


class ConvertedSource(Source):
    """`whole` with its gray channel repeated to 3, or with its 3 channels reduced to 1, the luminance. uint8."""

    def __init__(self, whole: Source, channels: int):
        assert channels in (1, 3), channels
        self.whole, self.channels = whole, channels
        self.labels, self.names, self.groups, self.bad = whole.labels, whole.names, whole.groups, whole.bad
        self.targets, self.max_bad_fraction = whole.targets, whole.max_bad_fraction
        self.captions = whole.captions
        self._x: Dense | None = None

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def resident(self) -> Dense | None:
        whole = self.whole.resident
        if not isinstance(whole, Dense):
            return None
        if self.channels == 3:
            return Dense(whole.tensor.expand(-1, 3, -1, -1))  # a view
        if self._x is None:
            self._x = Dense(torch.cat([luminance(part, 1) for part in whole.tensor.split(1024)]))
        return self._x

    def read(self, index: int) -> Any:
        if (x := self.resident) is not None:
            return x[index]
        image = to_array(self.whole.read(index))
        if self.channels == 3:
            return np.repeat(image[..., :1], 3, axis=2)
        return luminance(torch.from_numpy(np.array(image)), 2).numpy()

    def name_of(self, index: int) -> str:
        return self.whole.name_of(index)


def luminance(x: Tensor, axis: int) -> Tensor:
    """The rounded luminance of uint8 with 3 channels along `axis`, which has 1 afterwards."""
    weighted = sum(w * channel.to(torch.int32) for w, channel in zip(LUMINANCE, x.unbind(axis), strict=True))
    assert isinstance(weighted, Tensor)
    return ((weighted + 500) // 1000).to(torch.uint8).unsqueeze(axis)


def convert_channels(dataset: Dataset, channels: int) -> Dataset:
    """A data set of 3 or 1 channels converted to `channels`, 1 or 3. The caller sets its mean and std."""

    def convert(part: Source | None) -> Source | None:
        return None if part is None else ConvertedSource(part, channels)

    return replace(
        dataset,
        shape=(channels, *dataset.shape[1:]),
        train=ConvertedSource(dataset.train, channels),
        test=convert(dataset.test),
        unlabelled=convert(dataset.unlabelled),
    )
