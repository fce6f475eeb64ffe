"""Views of sensors: rotation of axes, time and magnitude warping, frequency masking.

Um et al., "Data Augmentation of Wearable Sensor Data for Parkinson's Disease Monitoring using Convolutional Neural Networks", ICMI
2017 (arXiv:1706.00527): the first three, where curves are cubic splines; here they are half cosines between knots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslcli.rng import Draw
from sslcli.views.op import BadValue, Op, Params, number
from sslcli.views.signals.steps import interpolate_steps, smooth_curves, valid_length


def _knots(value: object) -> int:
    count = number("knots", value, 2)
    if count != int(count):
        raise BadValue("knots", "an integer of at least 2")
    return int(count)


class Rotation(Op):
    """Rotate each group of three channels (0 to 2, 3 to 5, ...), such as the axes of an accelerometer, about a random axis by an
    angle of up to `angle` degrees: another way to wear the sensor. Channels after the last whole group stay as they are."""

    name = "rotation"

    def __init__(self, angle: float = 30.0, p: float = 1.0):
        self.angle = number("angle", angle, 0.0, 180.0)
        self.p = p

    def bind(self, shape: tuple[int, ...]) -> str | None:
        if shape[0] >= 3:
            return None
        self.p = 0.0
        return "rotation has no effect: it rotates groups of three channels"

    def uniforms(self) -> dict[str, int]:
        return {"axis": 2, "angle": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        """Rodrigues' formula; the axis is uniform on the sphere."""
        z, turn = 2 * u["axis"][:, 0].double() - 1, 2 * math.pi * u["axis"][:, 1].double()
        r = (1 - z.square()).clamp(min=0).sqrt()
        x, y = r * turn.cos(), r * turn.sin()
        angle = (2 * u["angle"][:, 0].double() - 1) * math.radians(self.angle)
        zero = torch.zeros_like(x)
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
        sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
        return {"matrix": (torch.eye(3, dtype=x.dtype) + sine * cross + (1 - cosine) * (cross @ cross)).float()}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        whole = x.shape[1] // 3 * 3
        groups = x[:, :whole].unflatten(1, (-1, 3))  # (B, G, 3, T)
        matrix = params["matrix"][:, None, :, :, None]  # elementwise: the bits of a batched product depend on the batch
        rotated = (matrix * groups.nan_to_num()[:, :, None]).sum(dim=3).masked_fill(groups.isnan(), math.nan)
        return torch.cat([rotated.flatten(1, 2), x[:, whole:]], dim=1)


class MagnitudeWarp(Op):
    """Multiply each channel (about its mean) by a smooth random curve, whose `knots` values are from N(1, sigma^2)."""

    name = "magnitude_warp"

    def __init__(self, sigma: float = 0.2, knots: int = 4, p: float = 0.5):
        self.sigma, self.knots = number("sigma", sigma, 0.0), _knots(knots)
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        values = draw.normal("magnitude_warp/knots", x.shape[1], self.knots).to(x.device)
        return x * smooth_curves(values.mul_(self.sigma).add_(1), x.shape[2])


class TimeWarp(Op):
    """Move through the valid part at a speed that varies smoothly: its logarithm has `knots` values from N(0, sigma^2). The first
    and the last step stay."""

    name = "time_warp"

    def __init__(self, sigma: float = 0.2, knots: int = 4, p: float = 0.5):
        self.sigma, self.knots = number("sigma", sigma, 0.0), _knots(knots)
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        speed = (draw.normal("time_warp/knots", self.knots).to(x.device).double() * self.sigma).exp()
        speed = smooth_curves(speed, x.shape[2])  # (B, T), between a step and the next
        passed = speed.cumsum(1) - speed  # at each step, from 0
        last = (valid_length(x) - 1).clamp(min=0)[:, None]
        at = passed * (last / passed.gather(1, last).clamp(min=1e-9))
        steps = torch.arange(x.shape[2], device=x.device)
        at = torch.where(steps < last, at.minimum(last.double()), steps.double())
        limit = torch.where(steps <= last, last, steps).double()
        return interpolate_steps(x, at, limit)


class FrequencyMask(Op):
    """Remove a random band of up to a fraction `ratio` of the frequencies from all channels; the mean of a series stays. Missing
    values are 0 in the transform, and stay missing."""

    name = "frequency_mask"

    def __init__(self, ratio: float = 0.2, p: float = 0.5):
        self.ratio = number("ratio", ratio, 0.0, 1.0)
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"length": 1, "start": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"length": u["length"].double() * self.ratio, "start": u["start"].double()}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        spectrum = torch.fft.rfft(x.nan_to_num())
        count = spectrum.shape[2] - 1  # without frequency 0
        length = (params["length"] * count).round_()  # (B, 1)
        start = 1 + (params["start"] * (count - length + 1)).floor_()
        frequency = torch.arange(count + 1, dtype=torch.float64, device=x.device)
        hidden = (frequency >= start) & (frequency < start + length)
        kept = torch.fft.irfft(spectrum.masked_fill(hidden[:, None], 0.0), n=x.shape[2])
        return kept.masked_fill(x.isnan(), math.nan)
