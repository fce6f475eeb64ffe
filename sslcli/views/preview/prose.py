"""Lists of samples that are read, such as documents: as a drawing, and as a table of text for reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sslcli.plotting import font
from sslcli.views.preview.base import INK, PAPER, QUIET, Preview

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

MARGIN, GAP, LABEL, TEXT = 20, 8, 130, 820  # pixels; of the labels at the left, and of a sample
TALLEST = 68  # pixels of a sample: four lines
LONGEST = 600  # characters of a sample in a table


@dataclass(frozen=True)
class Entry:
    """A sample, what it is, and the mark that it carries, a key of `marks`."""

    label: str
    sample: Preview
    mark: str = ""


@dataclass(frozen=True)
class Group:
    """Samples under a heading."""

    title: str
    about: str
    entries: Sequence[Entry]

    @property
    def heading(self) -> str:
        return ": ".join(part for part in (self.title, self.about) if part)


@dataclass(frozen=True)
class Mark:
    """What a mark says, and the line at the left of a sample that shows it."""

    meaning: str
    color: str
    dashed: bool


def is_prose(samples: Iterable[Preview]) -> bool:
    """Whether all samples are read, and there is one."""
    kinds = {sample.prose for sample in samples}
    return kinds == {True}


def groups_of(rows: Sequence[Sequence[Preview]], titles: Sequence[str]) -> list[Group]:
    """A group for each row of samples, whose columns have `titles`, or none."""
    return [
        Group(f"sample {i}", "", [Entry(titles[j] if titles else "", sample) for j, sample in enumerate(row)])
        for i, row in enumerate(rows, start=1)
    ]


def table(groups: Sequence[Group], marks: Mapping[str, Mark], column: str = "sample") -> dict[str, Any]:
    """`columns` and `rows` of the list: see `evals/artefacts/tables.py`."""
    entries = [entry for group in groups for entry in group.entries]
    marked, labeled = any(entry.mark for entry in entries), any(entry.label for entry in entries)
    rows: list[Any] = []
    for group in groups:
        rows.append(group.heading)
        for entry in group.entries:
            meaning = [marks[entry.mark].meaning if entry.mark else ""] if marked else []
            rows.append([*([entry.label] if labeled else []), cell(entry.sample), *meaning])
    return {"columns": [*([""] if labeled else []), column, *([""] if marked else [])], "rows": rows}


def cell(sample: Preview) -> Any:
    """A cell of a table: text, or words with weights."""
    words = sample.words()
    if words is not None:
        return {"words": [[word[:LONGEST], round(weight, 3)] for word, weight in words[:LONGEST]]}
    text = sample.text()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"


def draw(title: str, groups: Sequence[Group], marks: Mapping[str, Mark]) -> Image.Image:
    """A page with the samples of each group one below the other, and a `title` where it is not empty."""
    from PIL import Image, ImageDraw

    drawn = [[_trim(entry.sample.image(TEXT, TALLEST)) for entry in group.entries] for group in groups]
    used = [mark for key, mark in marks.items() if any(e.mark == key for g in groups for e in g.entries)]
    labeled = any(entry.label for group in groups for entry in group.entries)
    left = MARGIN + (LABEL if labeled else 12)
    width = left + TEXT + MARGIN
    heights = [30 + sum(image.height + GAP for image in images) + 10 for images in drawn]
    top = MARGIN + (30 if title else 0) + (30 if used else 0)
    page = Image.new("RGB", (width, top + sum(heights) + MARGIN), PAPER)
    pen = ImageDraw.Draw(page)
    if title:
        shown = fit(title, width - 2 * MARGIN, 16, True)
        pen.text((MARGIN, MARGIN + 8), shown, fill=INK, font=font(16, True), anchor="lm")
    x = MARGIN
    for mark in used:
        _line(pen, x + 2, MARGIN + 34, MARGIN + 50, mark)
        pen.text((x + 14, MARGIN + 42), mark.meaning, fill=QUIET, font=font(13), anchor="lm")
        x += 40 + int(font(13).getlength(mark.meaning))
    for group, images in zip(groups, drawn, strict=True):
        _heading(pen, group, top, width - 2 * MARGIN)
        top += 30
        for entry, image in zip(group.entries, images, strict=True):
            label = fit(entry.label, LABEL - 20, 12)
            pen.text((MARGIN, top + 2), label, fill=QUIET, font=font(12))
            page.paste(image, (left, top))
            if entry.mark:
                _line(pen, left - 9, top, top + image.height, marks[entry.mark])
            top += image.height + GAP
        top += 10
    return page


def fit(text: str, width: float, size: int, bold: bool = False) -> str:
    """A text in one line, cut to a width in pixels."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())[:400]
    shape = font(size, bold)
    while len(text) > 1 and shape.getlength(text) > width:
        text = f"{text[:-2]}…"
    return text


def _heading(pen: ImageDraw.ImageDraw, group: Group, top: int, width: int) -> None:
    title = fit(group.title, width, 14, True)
    pen.text((MARGIN, top + 12), title, fill=INK, font=font(14, True), anchor="lm")
    left = MARGIN + font(14, True).getlength(title) + (12 if title else 0)
    pen.text((left, top + 12), fit(group.about, max(60, width - left), 13), fill=QUIET, font=font(13), anchor="lm")


def _line(pen: ImageDraw.ImageDraw, x: int, top: int, bottom: int, mark: Mark) -> None:
    """A solid line, or dots, so that marks differ without color."""
    if not mark.dashed:
        pen.rectangle((x, top, x + 3, bottom), fill=mark.color)
        return
    for y in range(top, bottom, 7):
        pen.rectangle((x, y, x + 3, min(y + 3, bottom)), fill=mark.color)


def _trim(image: Image.Image) -> Image.Image:
    """A drawing without the white below its last line, at least one line high."""
    from PIL import Image, ImageChops

    box = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    return image.crop((0, 0, image.width, max(17, min(image.height, (box[3] if box else 0) + 3))))
