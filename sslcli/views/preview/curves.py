"""Series as previews: one curve for each channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli import plotting
from sslcli.views.preview.base import FAINT, QUIET, Drawn, Preview, heat, rescale, to_image

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

COLORS = ("#2f6690", "#d1603d", "#5a9367", "#8e5572", "#c09f3f", "#3a3a3a")  # of the channels
FINE = 3  # drawn this many times larger and then reduced, for smooth lines
AXES_FROM = 100  # pixels of height, from which there are axes
AXES = (30, 16)  # pixels at the left and at the bottom for the numbers of the axes


@dataclass(frozen=True)
class Curves(Drawn):
    """A series `values` (C, T), a color for each channel; NaN is a gap.

    `limits`: the least and the largest value of the axis. `length`: the number of steps that the values span, T unless they were
    reduced. `steps`: of the axis, at least `length`. `background`: colors (3, n) in 0..1 behind the curves.
    `standardized`: values are in standard deviations of their channel, from its mean."""

    cell = (144, 84)
    values: Tensor
    limits: tuple[float, float] | None = None
    length: int = 0
    steps: int = 0
    background: Tensor | None = None
    standardized: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", self.values.detach().cpu().float())
        object.__setattr__(self, "length", self.length or self.values.shape[1])

    def text(self) -> str:
        channels = len(self.values)
        how = ", each in its standard deviations" if self.standardized else ""
        return f"series of {self.length} steps" + (f", {channels} channels{how}" if channels > 1 else "")

    @classmethod
    def align(cls, previews: Sequence[Preview]) -> list[Preview]:
        curves = [p for p in previews if isinstance(p, Curves)]
        limits = room_for([p.values for p in curves])
        steps = max(p.length for p in curves)
        return [replace(p, limits=limits, steps=steps) if isinstance(p, Curves) else p for p in previews]

    def reduce(self) -> Curves:
        """At most four points for a pixel: the least and the largest value of each stretch."""
        stretch = -(-self.values.shape[1] // (2 * self.cell[0]))
        if stretch < 2:
            return self
        padded = F.pad(self.values, (0, -self.values.shape[1] % stretch), value=float("nan"))
        whole = padded.unflatten(1, (-1, stretch))
        low = whole.masked_fill(whole.isnan(), torch.inf).amin(dim=2)
        high = whole.masked_fill(whole.isnan(), -torch.inf).amax(dim=2)
        values = torch.stack([low, high], dim=2).flatten(1).nan_to_num(posinf=torch.nan, neginf=torch.nan)
        return replace(self, values=values)

    def overlay(self, colors: Tensor) -> Curves:
        background = F.interpolate(colors.detach().cpu().float().flatten(1)[None], self.length, mode="nearest")[0]
        return replace(self, background=0.45 + 0.55 * background)  # lighter than the curves

    def importance(self, weights: Tensor) -> Curves:
        small = weights.detach().cpu().float().flatten()[None, None]
        return self.overlay(heat(rescale(F.interpolate(small, self.length, mode="linear", align_corners=False)[0, 0])))

    def difference(self, other: Preview) -> Preview:
        assert isinstance(other, Curves), other
        return replace(self, values=(other.values - self.values).abs())

    def image(self, width: int, height: int) -> Image.Image:
        from PIL import Image, ImageDraw

        left, bottom = AXES if height >= AXES_FROM else (0, 0)
        plot = (max(1, width - left), max(1, height - bottom))
        limits, steps = self.limits or room_for([self.values]), max(self.steps, self.length, 2)
        curves = self._draw_curves(plot, limits, steps)
        if not bottom:
            return curves
        page = Image.new("RGB", (width, height), "white")
        page.paste(curves, (left, 0))
        draw_axes(ImageDraw.Draw(page), (left, 0, width, plot[1]), limits, steps)
        return page

    def _draw_curves(self, size: tuple[int, int], limits: tuple[float, float], steps: int) -> Image.Image:
        from PIL import Image, ImageDraw

        width, height = size[0] * FINE, size[1] * FINE
        page = Image.new("RGB", (width, height), "white")
        per_step = (width - 4 * FINE) / (steps - 1)
        if self.background is not None:
            colors = to_image(self.background[:, None])
            page.paste(colors.resize((max(1, round(per_step * self.length)), height)), (2 * FINE, 0))
        pen = ImageDraw.Draw(page)
        low, high = limits
        count = self.values.shape[1]
        per_point = per_step * (self.length - 1) / max(1, count - 1)
        for c, channel in enumerate(self.values):
            y = ((high - channel) / (high - low) * height).tolist()
            stretch: list[tuple[float, float]] = []
            for i, value in enumerate([*y, math.nan]):
                if math.isfinite(value):
                    stretch.append((2 * FINE + i * per_point, value))
                    continue
                draw_line(pen, stretch, COLORS[c % len(COLORS)])
                stretch = []
        return page.resize(size, Image.Resampling.LANCZOS)


def draw_line(pen: ImageDraw.ImageDraw, points: list[tuple[float, float]], color: str) -> None:
    """A line through the points; a lone one is a dot."""
    if len(points) == 1:
        (x, y), r = points[0], FINE
        pen.ellipse((x - r, y - r, x + r, y + r), fill=color)
    if len(points) > 1:
        pen.line(points, fill=color, width=4, joint="curve")


def room_for(values: Sequence[Tensor]) -> tuple[float, float]:
    """The range of all finite values, with some room; around 0..1 where there is none."""
    flat = torch.cat([x.flatten() for x in values])
    flat = flat[flat.isfinite()]
    low, high = (float(flat.min()), float(flat.max())) if len(flat) else (0.0, 1.0)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def draw_axes(
    pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], limits: tuple[float, float], steps: int
) -> None:
    """Axes with numbers at the left and below a plot in `box`."""
    x0, y0, x1, y1 = box
    font = plotting.font(9)
    pen.line([(x0, y0), (x0, y1), (x1, y1)], fill=FAINT, width=1)
    for value in round_numbers(*limits, 4):
        y = y1 - (value - limits[0]) / (limits[1] - limits[0]) * (y1 - y0)
        pen.line([(x0 - 2, y), (x0, y)], fill=QUIET, width=1)
        if y0 + 4 < y < y1 - 2:
            pen.text((x0 - 4, y), f"{value:.4g}", fill=QUIET, font=font, anchor="rm")
    for value in round_numbers(0, steps - 1, 4):
        x = x0 + 2 + value / (steps - 1) * (x1 - x0 - 4)
        pen.line([(x, y1), (x, y1 + 2)], fill=QUIET, width=1)
        if x < x1 - 6:
            pen.text((x, y1 + 4), f"{value:.4g}", fill=QUIET, font=font, anchor="mt")


def round_numbers(low: float, high: float, count: int) -> list[float]:
    """At most about `count` multiples of 1, 2 or 5 times a power of ten within low..high."""
    rough = (high - low) / count
    if not (rough > 0 and math.isfinite(rough)):
        return []
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]
