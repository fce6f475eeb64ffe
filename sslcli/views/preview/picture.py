"""Images as previews, and heat maps of their errors."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.console import escape
from sslcli.views.preview.base import Drawn, Preview, heat, rescale, to_image

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Picture(Drawn):
    """An image: `pixels` (C, H, W) uint8, or float in 0..1; of other than 1 or 3 channels the first three (of two: the first) are
    drawn. Enlarged by an integer, so that its pixels stay squares."""

    cell = (96, 96)
    pixels: Tensor

    def text(self) -> str:
        width, height = self.size
        return f"image of {width} x {height} pixels"

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[2], self.pixels.shape[1]

    def image(self, width: int, height: int) -> Image.Image:
        from PIL import Image

        zoom: float = min(width / self.size[0], height / self.size[1])
        zoom = int(zoom) if zoom >= 2 else zoom
        size = max(1, round(self.size[0] * zoom)), max(1, round(self.size[1] * zoom))
        resampling = Image.Resampling.NEAREST if zoom >= 2 else Image.Resampling.LANCZOS
        return to_image(self.pixels.detach().cpu()).resize(size, resampling)

    def reduce(self) -> Picture:
        larger, most = max(self.size), 2 * self.cell[0]
        x = self.pixels[:3].detach().cpu()
        x = x.float().div(255) if x.dtype == torch.uint8 else x.float()
        if larger > most:
            size = [max(1, round(side * most / larger)) for side in x.shape[1:]]
            x = F.interpolate(x[None], size, mode="bilinear", antialias=True)[0]
        return Picture((x.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8))

    def overlay(self, colors: Tensor) -> Picture:
        return Picture(F.interpolate(colors.detach().cpu().float()[None], self.pixels.shape[1:], mode="nearest")[0])

    def importance(self, weights: Tensor) -> Picture:
        small = weights.detach().cpu().float()[None, None]
        large = F.interpolate(small, self.pixels.shape[1:], mode="bilinear", align_corners=False)[0, 0]
        return Picture(heat(rescale(large)))

    def difference(self, other: Preview) -> Preview:
        assert isinstance(other, Picture), other
        return HeatMap((other.pixels.float() - self.pixels.float()).abs().mean(dim=0))


@dataclass(frozen=True)
class Captioned(Picture):
    """An image with a text that describes it."""

    caption: str = ""

    def text(self) -> str:
        return escape(self.caption)

    def html(self) -> str:
        return f'<span class="preview">{super().html()}<br>{html.escape(self.text())}</span>'

    def reduce(self) -> Captioned:
        return Captioned(super().reduce().pixels, self.caption)


@dataclass(frozen=True)
class HeatMap(Drawn):
    """Values (H, W) from 0, as heat; the darkest is `largest`, or the largest of them."""

    cell = Picture.cell
    values: Tensor
    largest: float | None = None

    def text(self) -> str:
        return f"heat map of {self.size[0]} x {self.size[1]} values"

    @property
    def size(self) -> tuple[int, int]:
        return self.values.shape[1], self.values.shape[0]

    def image(self, width: int, height: int) -> Image.Image:
        largest = self.largest or float(self.values.max()) or 1.0
        return Picture(heat(self.values / largest)).image(width, height)

    @classmethod
    def align(cls, previews: Sequence[Preview]) -> list[Preview]:
        largest = max(float(p.values.max()) for p in previews if isinstance(p, HeatMap))
        return [replace(p, largest=p.largest or largest) if isinstance(p, HeatMap) else p for p in previews]
