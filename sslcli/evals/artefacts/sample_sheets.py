"""Sheets of samples: rows of thumbnails with captions, and frames that mark correct or wrong samples.

A frame is distinguished by its line as well as by its color: solid is right; dashed, with a cross in the corner, is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli import plotting
from sslcli.evals.base.features import EvalData, Split
from sslcli.runs.files import replacing
from sslcli.views.contact_sheet import FAINT, INK, PAPER, to_image

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Mark = Literal["", "right", "wrong"]

SIDE = 96  # pixels of a image
CURVE = (144, 84)  # of a series
QUIET = "#6f6a60"
RIGHT, WRONG = "#3f7d4e", "#c2452d"
CURVES = ("#2f6690", "#d1603d", "#5a9367", "#8e5572", "#c09f3f", "#3a3a3a")
AT_ONCE = 64  # samples in memory at full size


@dataclass
class Cell:
    """One sample, as `thumbnails` gave it."""

    sample: Tensor
    mark: Mark = ""


@dataclass
class Row:
    """`title` and `about` are two lines at the left."""

    title: str
    about: str
    cells: list[Cell]


@dataclass
class Sheet:
    """`heads` stand above groups of columns, of which the first has `apart` columns (0: there is one group). `legend` says
    what the frames mean: (right, wrong)."""

    title: str
    rows: list[Row]
    caption: str = field(repr=False)
    heads: Sequence[str] = ()
    apart: int = 0
    legend: tuple[str, str] | None = None

    def save(self, path: Path) -> None:
        """Write a PNG."""
        assert self.rows, "a sheet needs a row"
        with replacing(path) as temporary:
            _draw(self).save(temporary, format="PNG")


def class_name(classes: Sequence[str], c: int) -> str:
    """A class's name, or its number where it has none."""
    return classes[c] if c < len(classes) else str(c)


def thumbnails(data: EvalData, split: Split, ids: Iterable[int]) -> dict[int, Tensor]:
    """By id: images (C, h, w) uint8 of at most 2 SIDE pixels a side, series (C, T) of at most 4 points a pixel (the least and
    the largest of each stretch). Samples that cannot be read any more are missing."""
    wanted = torch.tensor(sorted(set(ids)), dtype=torch.int64)
    images: dict[int, Tensor] = {}
    for part in wanted.split(AT_ONCE):
        x, read_ids = data.display_inputs(split, part)
        images |= {int(i): _small(sample) for i, sample in zip(read_ids, x, strict=True)}
    return images


def _small(x: Tensor) -> Tensor:
    if x.ndim == 2:
        stretch = -(-x.shape[1] // (2 * CURVE[0]))
        if stretch < 2:
            return x.clone()
        whole = F.pad(x, (0, -x.shape[1] % stretch), value=float("nan")).unflatten(1, (-1, stretch))
        last = whole.isnan()
        low = whole.masked_fill(last, torch.inf).amin(dim=2)
        high = whole.masked_fill(last, -torch.inf).amax(dim=2)
        return torch.stack([low, high], dim=2).flatten(1).nan_to_num(posinf=torch.nan, neginf=torch.nan)
    larger = max(x.shape[1:])
    if larger > 2 * SIDE:
        size = [max(1, round(side * 2 * SIDE / larger)) for side in x.shape[1:]]
        x = F.interpolate(x[None].float(), size, mode="bilinear", antialias=True)[0]
    return (x.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)


# -------------------------------------------------------------------------------------------------------------- drawing

MARGIN, GAP, APART, HEAD, LINE = 20, 12, 26, 26, 18
WORDS = 260  # pixels at most for what stands at the left


def _draw(sheet: Sheet) -> Image.Image:
    from PIL import Image, ImageDraw

    series = sheet.rows[0].cells[0].sample.ndim == 2
    wide, high = CURVE if series else (SIDE, SIDE)
    columns = max(len(row.cells) for row in sheet.rows)
    left = MARGIN + max(_width_of(row) for row in sheet.rows) + 14
    lefts = [left + j * (wide + GAP) + (APART if sheet.apart and j >= sheet.apart else 0) for j in range(columns)]
    top = MARGIN + 30 + (LINE + 6 if sheet.legend else 0) + (HEAD if sheet.heads else 0)
    needed = int(_font(16, bold=True).getlength(sheet.title)) + 2 * MARGIN
    size = max(lefts[-1] + wide + MARGIN, needed), top + len(sheet.rows) * (high + GAP) - GAP + MARGIN
    page = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, MARGIN + 8), sheet.title, fill=INK, font=_font(16, bold=True), anchor="lm")
    if sheet.legend:
        _legend(pen, MARGIN, MARGIN + 30 + LINE // 2, sheet.legend)
    for head, column in zip(sheet.heads, (0, sheet.apart), strict=False):
        pen.text((lefts[column], top - HEAD // 2 - 2), head, fill=QUIET, font=_font(13), anchor="lm")
    if sheet.apart:
        x = lefts[sheet.apart] - (APART + GAP) // 2
        pen.line([(x, top), (x, size[1] - MARGIN)], fill=FAINT, width=2)
    for i, row in enumerate(sheet.rows):
        y = top + i * (high + GAP)
        pen.text((MARGIN, y + high / 2 - 10), _fit(row.title, 14, True), fill=INK, font=_font(14, True), anchor="lm")
        pen.text((MARGIN, y + high / 2 + 10), _fit(row.about, 13), fill=QUIET, font=_font(13), anchor="lm")
        limits = _limits([cell.sample for cell in row.cells]) if series else (0.0, 1.0)
        for x, cell in zip(lefts, row.cells, strict=False):
            drawn = _curves(cell.sample, (wide, high), limits) if series else _image(cell.sample)
            at = x + (wide - drawn.width) // 2, y + (high - drawn.height) // 2
            page.paste(drawn, at)
            _frame(pen, (at[0], at[1], at[0] + drawn.width - 1, at[1] + drawn.height - 1), cell.mark)
    return page


def _image(x: Tensor) -> Image.Image:
    """Small images are enlarged by a integer, larger ones made to fit."""
    from PIL import Image

    image = to_image(x)
    larger = max(image.size)
    zoom: float = SIDE // larger if larger <= SIDE // 2 else SIDE / larger
    size = max(1, round(image.width * zoom)), max(1, round(image.height * zoom))
    return image.resize(size, Image.Resampling.NEAREST if zoom >= 2 else Image.Resampling.LANCZOS)


def _limits(samples: Sequence[Tensor]) -> tuple[float, float]:
    values = torch.cat([x.flatten().float() for x in samples])
    values = values[values.isfinite()]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def _curves(x: Tensor, size: tuple[int, int], limits: tuple[float, float]) -> Image.Image:
    """(C, T) as curves, a color a channel; NaN is a gap."""
    from PIL import Image, ImageDraw

    fine = 3  # drawn larger and then made smaller, for smooth lines
    wide, high = size[0] * fine, size[1] * fine
    page = Image.new("RGB", (wide, high), "white")
    pen = ImageDraw.Draw(page)
    low, top = limits
    steps = torch.linspace(2 * fine, wide - 2 * fine, x.shape[1]).tolist()
    for c, channel in enumerate(x):
        y = ((top - channel.float()) / (top - low) * high).tolist()
        stretch: list[tuple[float, float]] = []
        for point in [*zip(steps, y, strict=True), (0.0, float("nan"))]:
            if point[1] == point[1]:
                stretch.append(point)
                continue
            if len(stretch) > 1:
                pen.line(stretch, fill=CURVES[c % len(CURVES)], width=4, joint="curve")
            stretch = []
    return page.resize(size, Image.Resampling.LANCZOS)


def _frame(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], mark: Mark) -> None:
    x0, y0, x1, y1 = box
    if mark == "right":
        pen.rectangle((x0 - 3, y0 - 3, x1 + 3, y1 + 3), outline=RIGHT, width=3)
    if mark == "wrong":
        for x in range(x0 - 3, x1 + 3, 10):
            for y in (y0 - 3, y1 + 1):
                pen.rectangle((x, y, min(x + 5, x1 + 3), y + 2), fill=WRONG)
        for y in range(y0 - 3, y1 + 3, 10):
            for x in (x0 - 3, x1 + 1):
                pen.rectangle((x, y, x + 2, min(y + 5, y1 + 3)), fill=WRONG)
        pen.rectangle((x1 - 13, y0 - 3, x1 + 3, y0 + 13), fill=WRONG)
        for way in ((x1 - 9, y0 + 1, x1 - 1, y0 + 9), (x1 - 9, y0 + 9, x1 - 1, y0 + 1)):
            pen.line(way, fill="white", width=2)


def _legend(pen: ImageDraw.ImageDraw, x: int, y: int, words: tuple[str, str]) -> None:
    marks: tuple[Mark, Mark] = ("right", "wrong")
    for mark, text in zip(marks, words, strict=True):
        _frame(pen, (x + 4, y - 7, x + 26, y + 7), mark)
        pen.text((x + 40, y), text, fill=QUIET, font=_font(13), anchor="lm")
        x += 40 + int(_font(13).getlength(text)) + 24


@cache
def _font(size: int, bold: bool = False) -> Any:
    """matplotlib brings one that has most alphabets."""
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(plotting.prepare().get_data_path()) / "fonts" / "ttf" / name), size)


def _fit(text: str, size: int, bold: bool = False) -> str:
    """As much of a text as fits at the left."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    font = _font(size, bold)
    while len(text) > 1 and font.getlength(text) > WORDS:
        text = f"{text[:-2]}…"
    return text


def _width_of(row: Row) -> int:
    return int(max(_font(14, True).getlength(_fit(row.title, 14, True)), _font(13).getlength(_fit(row.about, 13))))
