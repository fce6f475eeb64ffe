"""Series views: ops on (B, C, T) float32, and the pipeline from raw series.

A series is normalized to zero mean and unit standard deviation (per channel, of the data set) *before* its ops, so that noise,
scaling and masking are in the same units for any sensor. NaN is padding or a missing value, which no op replaces. The valid part
of a sample ends before its tail of NaN (in all channels).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.sources.series_preprocessor import SeriesPreprocessor
from sslcli.data.user_files.samples import UserFiles
from sslcli.data.user_files.series import read_series_files
from sslcli.nn.values import Continuous
from sslcli.rng import Draw
from sslcli.views.copies import NearCopies
from sslcli.views.corruption import Corruption
from sslcli.views.grid import GridModality
from sslcli.views.modality import Baseline, RawFeatures
from sslcli.views.op import (
    BadValue,
    Op,
    OpRandoms,
    Params,
    add_noise,
    between,
    constant,
    interval,
    number,
    output_size,
    parts,
    per_channel,
)
from sslcli.views.preview.base import Preview
from sslcli.views.preview.curves import Curves
from sslcli.views.signals.baselines import baselines
from sslcli.views.signals.copies import SeriesCopies, defects
from sslcli.views.signals.corruptions import CORRUPTIONS
from sslcli.views.signals.spans import Spans
from sslcli.views.signals.steps import gather_steps, interpolate_steps, valid_length
from sslcli.views.signals.warps import FrequencyMask, MagnitudeWarp, Rotation, TimeWarp

FLAT = 30.0  # standard deviations of a channel in the range of all: on a common axis it would be a flat line


class RandomCrop(Op):
    """A random window of the valid part.

    With `resample`, the window is interpolated linearly to the output length; `length`, a fraction of the valid part or a range of
    fractions, is the window's length, and a padded sample stays padded by the same fraction. Without, `length` is a single number,
    a fraction of T or a number of steps, and is the output length; a sample with fewer valid steps is taken whole and padded with
    NaN. `size`: the output length when resampling; null is T, a fraction a part of T.
    """

    name = "random_crop"
    first = True

    def __init__(
        self, length: float | int | Sequence[float] = (0.5, 1.0), resample: bool = True, size: float | int | None = None
    ):
        if not isinstance(resample, bool):
            raise BadValue("resample", "true or false")
        self.resample = resample
        if resample:
            self.length: Any = interval("length", length, 1e-6, 1.0)
        else:
            self.length = number("length", length, 1e-6)
            if size is not None:
                raise BadValue("size", "null when resample is false: the window's length is the output's")
        self.size = size
        self.out = 0

    def bind(self, shape: tuple[int, ...]) -> str | None:
        steps = shape[1]
        if self.resample:
            self.out = output_size("size", self.size, steps)
        else:
            self.out = min(steps, output_size("length", self.length, steps))
        return None

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], self.out)

    def uniforms(self) -> dict[str, int]:
        return {"length": 1, "start": 1} if self.resample else {"start": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        params = {"start": u["start"][:, 0].double()}
        if self.resample:
            params["part"] = between(u["length"][:, 0].double(), *self.length)
        return params

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        valid = valid_length(x).double()  # (B,)
        steps = torch.arange(self.out, dtype=torch.float64, device=x.device)
        if not self.resample:
            start = (params["start"] * (valid - self.out + 1).clamp(min=1)).floor_()
            at = (start[:, None] + steps).long()
            return gather_steps(x, at.clamp(max=x.shape[2] - 1)).masked_fill_((at >= valid[:, None])[:, None], math.nan)
        window = (params["part"] * valid).round_().clamp_(min=2).minimum(valid)
        start = (params["start"] * (valid - window + 1)).floor_()
        filled = (valid * (self.out / x.shape[2])).round_().clamp_(min=1)  # output steps with values
        # the first and last output step coincide with the first and last step of the window
        at = start[:, None] + steps * ((window - 1) / (filled - 1).clamp(min=1))[:, None]
        last = (start + window - 1).clamp(min=0)[:, None]
        at = at.clamp_(min=0).minimum(last)
        return interpolate_steps(x, at, last).masked_fill_((steps >= filled[:, None])[:, None], math.nan)


class Jitter(Op):
    """Add normal noise of `sigma` standard deviations of the channel to each value."""

    name = "jitter"

    def __init__(self, sigma: float = 0.05, p: float = 1.0):
        self.sigma = number("sigma", sigma, 0.0)
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return add_noise(x, "jitter/value", self.sigma, draw)


class Scale(Op):
    """Multiply each channel (about its mean) by a factor from N(1, sigma^2)."""

    name = "scale"

    def __init__(self, sigma: float = 0.1, p: float = 1.0):
        self.sigma = number("sigma", sigma, 0.0)
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return draw.normal("scale/factor", x.shape[1], 1).to(x.device).mul_(self.sigma).add_(1).mul(x)


class TimeMask(Spans):
    """Set `spans` time spans of all channels to the channel's mean; each has up to a fraction `ratio` of the valid part. Missing
    values stay missing; masked values are not NaN, so that the backbone cannot detect the mask."""

    name = "time_mask"

    def __init__(self, ratio: float = 0.2, spans: int = 1, p: float = 0.5):
        super().__init__(ratio, spans, p)

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        hidden = self.hidden(params, x.shape[2], valid_length(x))
        return x.masked_fill(hidden[:, None] & ~x.isnan(), 0.0)


class Permutation(Op):
    """Divide the valid part into `segments` of equal length and permute them randomly."""

    name = "permutation"

    def __init__(self, segments: int = 4, p: float = 0.5):
        if number("segments", segments, 2) != int(segments):
            raise BadValue("segments", "an integer of at least 2")
        self.segments = int(segments)
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"order": self.segments}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"order": u["order"].argsort(dim=1, stable=True)}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        order, k = params["order"], self.segments
        valid = valid_length(x)[:, None]
        bounds = valid * torch.arange(k + 1, device=x.device) // k  # (B, k + 1)
        begin, length = bounds[:, :-1].gather(1, order), bounds.diff(dim=1).gather(1, order)  # in the permuted order
        ends = length.cumsum(1)
        steps = torch.arange(x.shape[2], device=x.device).expand(len(x), -1)
        segment = torch.searchsorted(ends, steps.contiguous(), right=True).clamp_(max=k - 1)
        source = begin.gather(1, segment) + steps - (ends - length).gather(1, segment)
        return gather_steps(x, torch.where(steps < valid, source, steps))


WARPS = (Rotation, MagnitudeWarp, TimeWarp, FrequencyMask)
OPS: dict[str, type[Op]] = {op.name: op for op in (RandomCrop, Jitter, Scale, TimeMask, Permutation, *WARPS)}


class SeriesView:
    """One view: raw series (B, C, T) float32 -> (B, *shape) float32, normalized, NaN where there is no value."""

    def __init__(self, ops: list[Op], shape: tuple[int, ...], mean: Sequence[float], std: Sequence[float]):
        self.ops = ops
        self.raw_shape = shape
        self.shape = shape
        for op in ops:
            self.shape = op.out_shape(self.shape)
        self.mean, self.std = per_channel(mean, shape[0]), per_channel(std, shape[0])

    def resident(self, raw: Tensor, draw: Draw) -> Tensor:
        """(B, C, T) -> (B, *shape)."""
        assert raw.is_floating_point(), raw.dtype
        assert raw.shape[1:] == self.raw_shape, (raw.shape, self.raw_shape)
        randoms = OpRandoms(self.ops, draw, raw.device)
        mean, scale = (constant(tuple(v.tolist()), raw.device).view(-1, 1) for v in (self.mean, 1 / self.std))
        out = torch.empty(len(raw), *self.shape, device=raw.device)
        for part in parts(len(raw), math.prod(raw.shape[1:]), raw.device):
            x = torch.sub(raw[part].to(torch.float32), mean).mul_(scale)
            out[part] = randoms.run(self.ops, x, part)
        return out

    def frame(self, samples: Sequence[Any], draw: Draw) -> Tensor:
        """Stack series that are read one at a time: (C, T) tensors -> (B, C, T)."""
        return torch.stack([torch.as_tensor(sample, dtype=torch.float32) for sample in samples])

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        """Apply all ops."""
        return self.resident(frame, draw)


class SeriesModality(GridModality):
    """Series: raw and views (C, T) float32, NaN where there is no value."""

    noun = ("series", "series")
    ops = OPS
    unit = "standard deviations of the channel"
    raw_limit = 3072  # values of all channels

    def view(self, ops: list[Op], dataset: Dataset) -> SeriesView:
        assert isinstance(dataset.values, Continuous), dataset.values
        return SeriesView(ops, dataset.shape, dataset.values.mean, dataset.values.std)

    def read_files(self, paths: Sequence[str], preprocessor: Preprocessor, notes: list[str]) -> UserFiles:
        assert isinstance(preprocessor, SeriesPreprocessor), preprocessor
        return read_series_files(paths, preprocessor, notes)

    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        mean, std = (per_channel(v, x.shape[1]).view(-1, 1) for v in (dataset.values.mean, dataset.values.std))
        shown = x.detach().float().cpu()
        if float((mean + std).max() - (mean - std).min()) > FLAT * float(std.min()):
            return [Curves(sample, standardized=True) for sample in shown]
        return [Curves(sample * std + mean) for sample in shown]

    def baselines(self, dataset: Dataset) -> dict[str, Baseline]:
        return baselines(dataset)

    def near_copies(self, dataset: Dataset, features: RawFeatures) -> NearCopies:
        return SeriesCopies()

    def defects(self, x: Tensor, dataset: Dataset) -> Mapping[str, Tensor]:
        longest = dataset.details.get("recordings", {}).get("lengths", [0])[-1]
        return defects(x, padded=longest <= x.shape[2])  # else the samples are windows of longer recordings

    def corruptions(self, dataset: Dataset) -> Mapping[str, Corruption]:
        return CORRUPTIONS
