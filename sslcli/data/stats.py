"""Per-channel mean and standard deviation of training samples."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sslcli.data.dataset import Source
from sslcli.data.storage import Dense
from sslcli.errors import listing
from sslcli.rng import derive, order

EXACT_BYTES = 2 << 30  # larger resident sets are sampled
SAMPLES = 512
DARK_VALUE = 24 / 255  # images that are never brighter cause a warning
OUTLIER_IQRS = 20  # interquartile ranges: a larger standard deviation is caused by a few values


def image_stats(source: Source) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, for values in 0..1: exact for resident data up to 2 GiB, otherwise of a
    fixed random sample.

    A constant channel gets the standard deviation 1/255, so that nothing is divided by zero.
    """
    storage = source.resident
    if storage is None:
        return _from_counts(_streamed_counts(source))
    assert isinstance(storage, Dense), storage
    x = storage.tensor
    if source.bad:
        x = x[[i for i in range(len(source)) if i not in source.bad]]
    if x.numel() > EXACT_BYTES:
        x = x[_sample_ids(len(x), 4 * SAMPLES)]
    counts = torch.zeros(x.shape[1], 256, dtype=torch.int64)
    step = max(1, (1 << 24) // max(1, math.prod(x.shape[1:])))
    for start in range(0, len(x), step):
        part = x[start : start + step]
        for c in range(x.shape[1]):
            counts[c] += torch.bincount(part[:, c].reshape(-1), minlength=256)  # six times as fast as numpy.bincount
    return _from_counts(counts)


def dark_notes(mean: tuple[float, ...], std: tuple[float, ...]) -> list[str]:
    """A warning about nearly black images: masks, values of another range, failed exports."""
    if max(std) <= 1 / 255 and max(mean) in (0.0, 1.0):
        return ["warning: all sampled pixels have the same value"]
    if max(m + 3 * s for m, s in zip(mean, std, strict=True)) < DARK_VALUE:
        top = max(m + 3 * s for m, s in zip(mean, std, strict=True))
        return [
            f"warning: the images are nearly black (values up to about {255 * top:.0f} of 255): "
            "check for masks, or another value range"
        ]
    return []


def _sample_ids(n: int, at_most: int) -> Tensor:
    """Sorted ids of a fixed random sample of at most `at_most` of `n`."""
    return order(derive(0, "statistics"), 0, n)[:at_most].sort().values


def _streamed_counts(source: Source) -> Tensor:
    from sslcli.data.images.decode import BadImage

    counts: Tensor | None = None
    for i in _sample_ids(len(source), SAMPLES).tolist():
        try:
            image = np.asarray(source.read(i))
        except BadImage:
            continue  # counted when samples are loaded
        image = image[..., None] if image.ndim == 2 else image
        one = torch.stack(
            [torch.from_numpy(np.bincount(c.reshape(-1), minlength=256)) for c in np.moveaxis(image, -1, 0)]
        )
        # every image has the same weight, independent of its size
        one = (one.double() / one.sum(1, keepdim=True) * (1 << 32)).round().to(torch.int64)
        counts = one if counts is None else counts + one
    return torch.zeros(1, 256, dtype=torch.int64) if counts is None else counts


def _from_counts(counts: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    weight = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
    value = torch.arange(256, dtype=torch.float64) / 255
    mean = weight @ value
    std = (weight @ value.square() - mean.square()).clamp_min(0).sqrt().clamp_min(1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())


def series_stats(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean and standard deviation of each channel of (n, C, T) float32, ignoring NaN, and the number of constant channels,
    whose standard deviation is set to 1."""
    mean, std = [], []
    for c in range(x.shape[1]):
        v = x[:, c].reshape(-1)
        v = v[~v.isnan()].double()
        mean.append(float(v.mean()) if len(v) else 0.0)
        std.append(float(v.std(correction=0)) if len(v) else 0.0)
    constant = sum(s <= 1e-12 * abs(m) for s, m in zip(std, mean, strict=True))
    std = [1.0 if s <= 1e-12 * abs(m) else s for s, m in zip(std, mean, strict=True)]
    return tuple(mean), tuple(std), constant


def outlier_notes(x: Tensor) -> list[str]:
    """A warning about channels of (n, C, T) whose standard deviation is dominated by a few outliers: -9999 for missing, spikes."""
    far = []
    for c in range(x.shape[1]):
        v = x[:, c].reshape(-1)
        v = v[~v.isnan()]
        if len(v):
            sample = v[_sample_ids(len(v), 1 << 16)].double()
            low, high = torch.quantile(sample, torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
            if high > low and float(v.double().std()) > OUTLIER_IQRS * (high - low):
                far.append(
                    f"channel {c} ({float(v.min()):g}..{float(v.max()):g}, half of the values in {low:g}..{high:g})"
                )
    if not far:
        return []
    return [f"warning: a few outliers dominate the scale of {listing(far, 3)}; replace codes for missing values by NaN"]
