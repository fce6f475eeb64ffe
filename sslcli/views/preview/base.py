"""Previews: samples as people see them, in contact sheets, results, reports and terminals.

`Modality.preview` turns views into previews. What draws samples takes previews and never asks for a shape or a kind of data: a new
kind of sample is one class derived from `Preview`, beside its modality.
"""

from __future__ import annotations

import base64
import html
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from sslcli import plotting
from sslcli.console import escape

if TYPE_CHECKING:
    from PIL import Image

PAPER, INK, FAINT, QUIET = "#fbfaf7", "#2b2b2b", "#dcd8cf", "#8a857a"
HEAT = torch.tensor(  # from paper over amber and red to nearly black: darker is more, in gray too
    [[251, 250, 247], [250, 214, 137], [226, 128, 62], [160, 44, 48], [52, 12, 30]], dtype=torch.float32
)


@dataclass(frozen=True)
class Media:
    """A file that a browser plays. `kind`: `audio/wav`, or `image/gif`, whose pictures are drawn in turn."""

    kind: str
    content: bytes

    @property
    def is_picture(self) -> bool:
        return self.kind.startswith("image/")

    def html(self, text: str) -> str:
        """An HTML element that plays it and loads nothing. `text`: what it is, for screen readers."""
        uri, label = f"data:{self.kind};base64,{base64.b64encode(self.content).decode('ascii')}", html.escape(text)
        if self.is_picture:
            return f'<img class="preview" src="{uri}" alt="{label}">'
        return f'<audio controls preload="metadata" aria-label="{label}" src="{uri}"></audio>'


class Preview(ABC):
    """One sample. Only `text` must be defined: it is what `image` and `html` show unless a class overrides them."""

    cell: ClassVar[tuple[int, int]] = (180, 96)  # width and height of a small drawing, in pixels
    graphic: ClassVar[bool] = False  # whether a drawing of half a cell can be recognized; otherwise reports show `html`
    prose: ClassVar[bool] = (
        False  # whether samples are read from left to right: sheets are lists, reports show tables of text
    )

    @abstractmethod
    def text(self) -> str:
        """The sample in words, for terminals and screen readers."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels at full detail. Views of one sample are drawn to one scale."""
        return 2 * self.cell[0], 2 * self.cell[1]

    def image(self, width: int, height: int) -> Image.Image:
        """An RGB drawing of at most `width` x `height` pixels."""
        return draw_text(self.text(), width, height)

    def html(self) -> str:
        """The sample as one HTML element of class `preview`. Text is escaped and nothing is loaded. The policy of a report forbids
        `style` attributes; it has styles for tables."""
        text = escape(self.text(), keep="\n\t")
        return f'<p class="preview">{html.escape(text)}</p>'

    def media(self) -> Media | None:
        """The sound or the motion of the sample; None for samples without."""
        return None

    def player(self) -> str | None:
        """An HTML element that plays the sample, with all that it needs inside; None for samples without sound or motion."""
        media = self.media()
        return None if media is None else media.html(self.text())

    def words(self) -> list[tuple[str, float]] | None:
        """The words of the sample with their weights in 0..1 after `importance`; None where it has none."""
        return None

    def parts(self, weights: Tensor) -> list[tuple[str, float]] | None:
        """What the sample consists of, such as words, each with the sum of the `weights` (*grid) of its places. None for samples
        whose parts have no names that occur in others."""
        return None

    def reduce(self) -> Preview:
        """The preview with the detail of a small drawing, so that many fit into memory."""
        return self

    def overlay(self, colors: Tensor) -> Preview:
        """The sample with `colors` (3, *grid) in 0..1 at its places. Unless a class overrides it: a strip below the sample, one box
        for each place."""
        return Strip(self, colors.detach().cpu().flatten(1))

    def importance(self, weights: Tensor) -> Preview:
        """The sample with heat at its places, from the least (light) to the largest (dark) of `weights` (*grid)."""
        return self.overlay(heat(rescale(weights)))

    def difference(self, other: Preview) -> Preview:
        """What differs in `other`, a reconstruction of this sample; unless a class overrides it, its text where that differs."""
        return Text("" if other.text() == self.text() else other.text())

    @classmethod
    def align(cls, previews: Sequence[Preview]) -> list[Preview]:
        """Previews of this class on a common scale, and all others as they are."""
        return list(previews)


def align(previews: Sequence[Preview]) -> list[Preview]:
    """Previews that are compared, each class on a common scale."""
    aligned = list(previews)
    for kind in dict.fromkeys(type(p) for p in previews):
        aligned = kind.align(aligned)
    return aligned


def heat(x: Tensor) -> Tensor:
    """Values (...) in 0..1 -> colors (3, ...) in 0..1: light is 0, dark is 1; NaN is light."""
    place = x.detach().cpu().float().nan_to_num(0.0).clamp(0, 1) * (len(HEAT) - 1)
    low = place.floor().clamp(max=len(HEAT) - 2).long()
    share = (place - low)[..., None]
    color = HEAT[low] * (1 - share) + HEAT[low + 1] * share
    return (color / 255).movedim(-1, 0)


def rescale(x: Tensor) -> Tensor:
    """From the least value to the largest, 0..1; all 0 where they are equal."""
    low, high = x.min(), x.max()
    return (x - low) / (high - low) if high > low else torch.zeros_like(x)


def draw_text(text: str, width: int, height: int) -> Image.Image:
    """As many words as fit, in lines."""
    from PIL import Image, ImageDraw

    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    font, line = plotting.font(12), 15
    words = [escape(word) for word in text.encode("utf-8", "replace").decode().split()]
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width - 8:
            lines.append(word)
        else:
            lines[-1] = longer
        if len(lines) * line > height:
            break
    fitting = max(1, (height - 4) // line)
    if len(lines) > fitting:
        lines = [*lines[: fitting - 1], f"{lines[fitting - 1]} …"]
    for i, content in enumerate(lines):
        pen.text((4, 2 + i * line), content, fill=INK, font=font)
    return page


def to_image(x: Tensor) -> Image.Image:
    """(C, H, W) uint8, or float clipped to 0..1 -> an RGB image of the first three channels (of two: the first)."""
    from PIL import Image

    if x.dtype != torch.uint8:
        x = (x.to(torch.float32).nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    x = x[:3] if len(x) >= 3 else x[:1]
    pixels = x[0].numpy() if len(x) == 1 else x.permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def to_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class Drawn(Preview):
    """The base class of samples that are drawn: `html` is the drawing."""

    graphic = True

    def html(self) -> str:
        width, height = (min(2 * most, n) for most, n in zip(self.cell, self.size, strict=True))
        uri = base64.b64encode(to_png(self.image(width, height))).decode("ascii")
        return f'<img class="preview" src="data:image/png;base64,{uri}" alt="{html.escape(self.text())}">'


@dataclass(frozen=True)
class Text(Preview):
    """A sample that is shown by its text."""

    content: str

    def text(self) -> str:
        return self.content


@dataclass(frozen=True)
class Strip(Preview):
    """A sample above a strip of `colors` (3, n) in 0..1."""

    sample: Preview
    colors: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.sample.size

    def text(self) -> str:
        return self.sample.text()

    def image(self, width: int, height: int) -> Image.Image:
        from PIL import Image

        page = Image.new("RGB", (width, height), "white")
        strip = min(12, height // 4)
        page.paste(self.sample.image(width, max(1, height - strip)), (0, 0))
        page.paste(
            to_image(self.colors[:, None]).resize((width, max(1, strip)), Image.Resampling.NEAREST), (0, height - strip)
        )
        return page
