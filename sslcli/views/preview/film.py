"""Clips of frames as previews: a strip of frames, and an animated picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.views.preview.base import Drawn, Media, Preview, heat, rescale
from sslcli.views.preview.picture import HeatMap, Picture

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 10  # frames of a strip
MILLISECONDS = 120  # of a frame
GAP = 2  # pixels between frames


@dataclass(frozen=True)
class Film(Drawn):
    """A clip: `frames` (C, T, H, W), uint8 or float in 0..1. Drawn as a strip of at most ten frames, evenly spaced."""

    cell: ClassVar[tuple[int, int]] = (320, 48)
    frames: Tensor

    def text(self) -> str:
        _, frames, height, width = self.frames.shape
        return f"clip of {frames} frames of {width} x {height} pixels"

    @property
    def size(self) -> tuple[int, int]:
        _, frames, height, width = self.frames.shape
        count = min(frames, SHOWN)
        return count * (width + GAP) - GAP, height

    def image(self, width: int, height: int) -> Image.Image:
        return Picture(self.strip()).image(width, height)

    def strip(self, gap: float = 1.0) -> Tensor:
        """(C, H, n (W + 2) - 2): the frames side by side, with `gap` between them."""
        frames = self.frames.shape[1]
        at = torch.linspace(0, frames - 1, min(frames, SHOWN)).round().long()
        x = self.frames[:3, at].detach().cpu()
        x = x.float().div(255) if x.dtype == torch.uint8 else x.float()
        padded = F.pad(x.nan_to_num(0.0).clamp(0, 1), (0, GAP), value=gap)  # (C, n, H, W + 2)
        return padded.permute(0, 2, 1, 3).flatten(2)[:, :, :-GAP]

    def html(self) -> str:
        """The animated picture."""
        return self.media().html(self.text())

    def media(self) -> Media:
        return Media("image/gif", self.animation())

    def animation(self) -> bytes:
        """A GIF that repeats, enlarged to about 96 pixels."""
        zoom = max(1, 96 // max(self.frames.shape[2:]))
        width, height = self.frames.shape[3] * zoom, self.frames.shape[2] * zoom
        pictures = [Picture(self.frames[:, t]).image(width, height) for t in range(self.frames.shape[1])]
        buffer = io.BytesIO()
        first, *others = [picture.quantize(256) for picture in pictures]
        first.save(buffer, "GIF", save_all=True, append_images=others, duration=MILLISECONDS, loop=0)
        return buffer.getvalue()

    def reduce(self) -> Film:
        x = self.frames[:3].detach().cpu()
        x = x.float().div(255) if x.dtype == torch.uint8 else x.float()
        larger, most = max(x.shape[2:]), 2 * 48
        if larger > most:
            size = [max(1, round(side * most / larger)) for side in x.shape[2:]]
            x = F.interpolate(x.transpose(0, 1), size, mode="bilinear", antialias=True).transpose(0, 1)
        return Film((x.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8))

    def overlay(self, colors: Tensor) -> Film:
        colors = colors.detach().cpu().float()
        colors = colors if colors.dim() == 4 else colors[:, None]
        return Film(F.interpolate(colors[None], self.frames.shape[1:], mode="nearest")[0])

    def importance(self, weights: Tensor) -> Film:
        small = weights.detach().cpu().float()[None, None]
        large = F.interpolate(small, self.frames.shape[1:], mode="trilinear", align_corners=False)[0, 0]
        return Film(heat(rescale(large)))

    def difference(self, other: Preview) -> Preview:
        assert isinstance(other, Film), other
        error = Film((other.frames.float() - self.frames.float()).abs().mean(dim=0, keepdim=True))
        return HeatMap(error.strip(0.0)[0])
