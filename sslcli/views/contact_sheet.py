"""Contact sheets of views as PNG files: one row per sample, one column per view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sslcli import plotting
from sslcli.views.preview import prose
from sslcli.views.preview.base import FAINT, INK, PAPER, Preview, align

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

WIDE, SIDE = 144, 112  # pixels; small views are enlarged to about this box, large ones reduced to at most twice as much


def signed() -> PngInfo:
    """PNG metadata that marks a file as written by this program, so that it is not read as a sample."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", "sslcli")
    return info


def sheet(path: str | Path, rows: Sequence[Sequence[Preview]], titles: Sequence[str] = ()) -> None:
    """Write `rows` to a PNG at `path`, whose folder is created: each row has one sample, its source first and then its views.

    Sizes may differ within a row: views are drawn to one scale, and the source is fitted into the cell of the largest view.
    Samples that are read, such as documents, are listed one below the other.
    `titles`: one per column.
    """
    from PIL import Image, ImageDraw

    assert rows, "a sheet requires at least one row"
    assert all(len(row) for row in rows), "a row of a sheet requires at least one sample"
    columns = max(len(row) for row in rows)
    assert len(titles) in (0, columns), (len(titles), columns)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if prose.is_prose(x for row in rows for x in row):
        prose.draw("", prose.groups_of(rows, titles), {}).save(path, format="PNG", pnginfo=signed())
        return
    rows = [align(row) for row in rows]
    views = [x for row in rows for x in row[1:]] or [x for row in rows for x in row]
    largest = max(max(x.size[0] * SIDE / WIDE, x.size[1]) for x in views)
    zoom: float = max(1, round(SIDE / largest)) if largest <= 2 * SIDE else 2 * SIDE / largest
    cell = tuple(max(round(x.size[axis] * zoom) for x in views) for axis in (0, 1))

    def drawing(j: int, x: Preview) -> Image.Image:
        scale = min(zoom, cell[0] / x.size[0], cell[1] / x.size[1]) if j == 0 else zoom
        return x.image(max(1, round(x.size[0] * scale)), max(1, round(x.size[1] * scale)))

    drawings = [[drawing(j, x) for j, x in enumerate(row)] for row in rows]
    gap, margin, apart = 6, 18, 12
    font = plotting.font(13)
    head = 26 if titles else 0
    wide = [max(row[j].width for row in drawings if j < len(row)) for j in range(columns)]
    if titles:  # a column is at least as wide as its title
        wide = [max(w, round(font.getlength(title)) + 8) for w, title in zip(wide, titles, strict=True)]
    lefts = [margin + sum(wide[:j]) + j * gap + (2 * apart if j else 0) for j in range(columns)]
    height = 2 * margin + head + len(rows) * (cell[1] + gap) - gap
    page = Image.new("RGB", (lefts[-1] + wide[-1] + margin, height), PAPER)
    pen = ImageDraw.Draw(page)
    for j in range(columns):
        if titles:
            pen.text((lefts[j] + wide[j] / 2, margin + head / 2 - 6), titles[j], fill=INK, font=font, anchor="mm")
        for i, row in enumerate(drawings):
            if j < len(row):
                top = margin + head + i * (cell[1] + gap) + (cell[1] - row[j].height) // 2
                page.paste(row[j], (lefts[j] + (wide[j] - row[j].width) // 2, top))
    if columns > 1:  # a line separates the sources
        line = lefts[1] - apart - gap // 2
        pen.line([(line, margin), (line, height - margin)], fill=FAINT, width=1)
    page.save(path, format="PNG", pnginfo=signed())
