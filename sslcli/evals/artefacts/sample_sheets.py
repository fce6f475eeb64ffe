"""Sheets of samples: rows of thumbnails with captions, and frames that mark correct or wrong samples.

A frame is distinguished by its line as well as by its color: solid is right; dashed, with a cross in the corner, is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from sslcli.evals.base.features import EvalData, Split
from sslcli.plotting import font
from sslcli.runs import Record
from sslcli.runs.files import replacing
from sslcli.views import previews
from sslcli.views.preview import prose
from sslcli.views.preview.base import FAINT, INK, PAPER, Preview, align
from sslcli.views.preview.clip_sheet import ClipSheet, clip_sheet

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Mark = Literal["", "right", "wrong"]

QUIET = "#6f6a60"
RIGHT, WRONG = "#3f7d4e", "#c2452d"
AT_ONCE = 64  # samples in memory at full size


@dataclass
class Cell:
    """One sample."""

    sample: Preview
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
    what the frames mean: (right, wrong), of which one that has no frames is ""."""

    title: str
    rows: list[Row]
    caption: str = field(repr=False)
    heads: Sequence[str] = ()
    apart: int = 0
    legend: tuple[str, str] | None = None

    def save(self, path: Path) -> None:
        """Write a PNG."""
        assert self.rows, "a sheet needs a row"
        page = prose.draw(self.title, self._groups(), self._marks()) if self._is_prose() else _draw(self)
        with replacing(path) as temporary:
            page.save(temporary, format="PNG")

    def table(self) -> Record | None:
        """Samples that are read, such as documents, as a table of text for reports; None for others."""
        return prose.table(self._groups(), self._marks()) if self._is_prose() else None

    def clips(self) -> ClipSheet | None:
        """Samples with sound or motion as they play in reports; None for others."""
        return clip_sheet(self._groups(), self._marks(), self.caption)

    def _is_prose(self) -> bool:
        return prose.is_prose(cell.sample for row in self.rows for cell in row.cells)

    def _marks(self) -> dict[str, prose.Mark]:
        right, wrong = self.legend or ("right", "wrong")
        return {"right": prose.Mark(right, RIGHT, False), "wrong": prose.Mark(wrong, WRONG, True)}

    def _groups(self) -> list[prose.Group]:
        heads = dict(zip((0, self.apart), self.heads, strict=False))  # of the first sample below each
        return [
            prose.Group(
                row.title,
                row.about,
                [prose.Entry(heads.get(j, ""), cell.sample, cell.mark) for j, cell in enumerate(row.cells)],
            )
            for row in self.rows
        ]


def class_name(classes: Sequence[str], c: int) -> str:
    """A class's name, or its number where it has none."""
    return classes[c] if c < len(classes) else str(c)


def thumbnails(data: EvalData, split: Split, ids: Iterable[int]) -> dict[int, Preview]:
    """Samples by id, with no more detail than a cell of a sheet shows. Samples that cannot be read any more are missing."""
    wanted = torch.tensor(sorted(set(ids)), dtype=torch.int64)
    samples: dict[int, Preview] = {}
    for part in wanted.split(AT_ONCE):
        x, read_ids = data.inputs(split, part)
        shown = previews(data.dataset, x, data.source(split), read_ids)
        samples |= {i: preview.reduce() for i, preview in zip(read_ids.tolist(), shown, strict=True)}
    return samples


# -------------------------------------------------------------------------------------------------------------- drawing

MARGIN, GAP, APART, HEAD, LINE = 20, 12, 26, 26, 18
WORDS = 260  # pixels at most for what stands at the left


def _draw(sheet: Sheet) -> Image.Image:
    from PIL import Image, ImageDraw

    kinds = {type(cell.sample) for row in sheet.rows for cell in row.cells}
    wide, high = (max(kind.cell[axis] for kind in kinds) for axis in (0, 1))
    columns = max(len(row.cells) for row in sheet.rows)
    left = MARGIN + max(_width_of(row) for row in sheet.rows) + 14
    lefts = [left + j * (wide + GAP) + (APART if sheet.apart and j >= sheet.apart else 0) for j in range(columns)]
    top = MARGIN + 30 + (LINE + 6 if sheet.legend else 0) + (HEAD if sheet.heads else 0)
    needed = int(font(16, bold=True).getlength(sheet.title)) + 2 * MARGIN
    size = max(lefts[-1] + wide + MARGIN, needed), top + len(sheet.rows) * (high + GAP) - GAP + MARGIN
    page = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, MARGIN + 8), sheet.title, fill=INK, font=font(16, bold=True), anchor="lm")
    if sheet.legend:
        _legend(pen, MARGIN, MARGIN + 30 + LINE // 2, sheet.legend)
    for head, column in zip(sheet.heads, (0, sheet.apart), strict=False):
        pen.text((lefts[column], top - HEAD // 2 - 2), head, fill=QUIET, font=font(13), anchor="lm")
    if sheet.apart:
        x = lefts[sheet.apart] - (APART + GAP) // 2
        pen.line([(x, top), (x, size[1] - MARGIN)], fill=FAINT, width=2)
    for i, row in enumerate(sheet.rows):
        y = top + i * (high + GAP)
        pen.text((MARGIN, y + high / 2 - 10), _fit(row.title, 14, True), fill=INK, font=font(14, True), anchor="lm")
        pen.text((MARGIN, y + high / 2 + 10), _fit(row.about, 13), fill=QUIET, font=font(13), anchor="lm")
        samples = align([cell.sample for cell in row.cells])
        for x, cell, sample in zip(lefts, row.cells, samples, strict=False):
            drawn = sample.image(wide, high)
            at = x + (wide - drawn.width) // 2, y + (high - drawn.height) // 2
            page.paste(drawn, at)
            _frame(pen, (at[0], at[1], at[0] + drawn.width - 1, at[1] + drawn.height - 1), cell.mark)
    return page


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
        if not text:
            continue
        _frame(pen, (x + 4, y - 7, x + 26, y + 7), mark)
        pen.text((x + 40, y), text, fill=QUIET, font=font(13), anchor="lm")
        x += 40 + int(font(13).getlength(text)) + 24


def _fit(text: str, size: int, bold: bool = False) -> str:
    """As much of a text as fits at the left."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    shape = font(size, bold)
    while len(text) > 1 and shape.getlength(text) > WORDS:
        text = f"{text[:-2]}…"
    return text


def _width_of(row: Row) -> int:
    return int(max(font(14, True).getlength(_fit(row.title, 14, True)), font(13).getlength(_fit(row.about, 13))))
