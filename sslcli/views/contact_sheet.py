"""Contact sheets of views as PNG files: one row per sample, one column per view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sslcli.plotting import new_figure

if TYPE_CHECKING:
    from PIL import Image, ImageFont
    from PIL.PngImagePlugin import PngInfo

PAPER, INK, FAINT = "#fbfaf7", "#2b2b2b", "#dcd8cf"
SIDE = 112  # small images are enlarged to about this many pixels, large ones reduced to at most twice as many


def signed() -> PngInfo:
    """PNG metadata that marks a file as written by this program, so that it is not read as a sample."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", "sslcli")
    return info


def sheet(path: str | Path, rows: Sequence[Sequence[Tensor]], titles: Sequence[str] = ()) -> None:
    """Write `rows` to a PNG at `path`, whose folder is created: each row has one sample, its source first and then its views.

    Images: (C, H, W) uint8, or float clipped to 0..1 (undo the normalization with `Views.restore`). Series: (C, T) float; NaN is
    left blank. Sizes may differ within a row: smaller views are drawn smaller. `titles`: one per column. With other than 1 or 3
    channels, the first three (of two: the first) are shown.
    """
    assert rows, "a sheet requires at least one row"
    assert all(len(row) for row in rows), "a row of a sheet requires at least one image"
    wide = max(len(row) for row in rows)
    assert len(titles) in (0, wide), (len(titles), wide)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[x.detach().cpu() for x in row] for row in rows]
    (_series if rows[0][0].ndim == 2 else _images)(path, rows, list(titles))


def to_image(x: Tensor) -> Image.Image:
    """(C, H, W) -> an RGB image."""
    from PIL import Image

    if x.dtype != torch.uint8:
        x = (x.to(torch.float32).nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
    x = x[:3] if len(x) >= 3 else x[:1]
    pixels = x[0].numpy() if len(x) == 1 else x.permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _images(path: Path, rows: Sequence[Sequence[Tensor]], titles: Sequence[str]) -> None:
    from PIL import Image, ImageDraw

    views = [x for row in rows for x in row[1:]] or [x for row in rows for x in row]
    largest = max(max(x.shape[1:]) for x in views)
    zoom: float = max(1, round(SIDE / largest)) if largest <= 2 * SIDE else 2 * SIDE / largest
    columns = max(len(row) for row in rows)
    # Sources may have any size: they are fitted into the cell of the largest view. Views are size_of to scale.
    cell = [max(round(x.shape[axis] * zoom) for x in views) for axis in (2, 1)]

    def size_of(j: int, x: Tensor) -> tuple[int, int]:
        scale = min(zoom, cell[0] / x.shape[2], cell[1] / x.shape[1]) if j == 0 else zoom
        return max(1, round(x.shape[2] * scale)), max(1, round(x.shape[1] * scale))

    gap, margin, apart = 6, 18, 12
    font = _font(14)
    head = 26 if titles else 0
    wide = [max(size_of(j, row[j])[0] for row in rows if j < len(row)) for j in range(columns)]
    if titles:  # a column is at least as wide as its title
        wide = [max(w, round(font.getlength(title)) + 8) for w, title in zip(wide, titles, strict=True)]
    lefts = [margin + sum(wide[:j]) + j * gap + (2 * apart if j else 0) for j in range(columns)]
    height = 2 * margin + head + len(rows) * (cell[1] + gap) - gap
    page = Image.new("RGB", (lefts[-1] + wide[-1] + margin, height), PAPER)
    pen = ImageDraw.Draw(page)
    for j in range(columns):
        if titles:
            pen.text((lefts[j] + wide[j] / 2, margin + head / 2 - 6), titles[j], fill=INK, font=font, anchor="mm")
        for i, row in enumerate(rows):
            if j >= len(row):
                continue
            size = size_of(j, row[j])
            enlarge = size[0] >= row[j].shape[2]
            image = to_image(row[j]).resize(size, Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS)
            top = margin + head + i * (cell[1] + gap) + (cell[1] - size[1]) // 2
            page.paste(image, (lefts[j] + (wide[j] - size[0]) // 2, top))
    if columns > 1:  # a line separates the sources
        line = lefts[1] - apart - gap // 2
        pen.line([(line, margin), (line, height - margin)], fill=FAINT, width=1)
    page.save(path, format="PNG", pnginfo=signed())


def _series(path: Path, rows: Sequence[Sequence[Tensor]], titles: Sequence[str]) -> None:

    columns = max(len(row) for row in rows)
    figure = new_figure(
        figsize=(2.7 * columns + 0.6, 1.35 * len(rows) + 0.5), dpi=110, facecolor=PAPER, layout="constrained"
    )
    axes = figure.subplots(len(rows), columns, squeeze=False)
    colors = ["#2f6690", "#d1603d", "#5a9367", "#8e5572", "#c09f3f", "#3a3a3a"]
    for i, row in enumerate(rows):
        values = torch.cat([x.flatten().to(torch.float32) for x in row])
        values = values[values.isfinite()]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        room = 0.06 * (high - low) or 1.0
        steps = max(x.shape[1] for x in row)
        for j in range(columns):
            ax = axes[i, j]
            if j >= len(row):
                ax.set_axis_off()
                continue
            for c, channel in enumerate(row[j].to(torch.float32)):
                ax.plot(channel.numpy(), color=colors[c % len(colors)], linewidth=1.1, alpha=0.9)
            ax.set_xlim(-0.5, steps - 0.5)
            ax.set_ylim(low - room, high + room)
            ax.set_facecolor("white" if j else PAPER)
            ax.tick_params(labelsize=7, colors="#8a857a", length=2, labelleft=j == 0, labelbottom=i == len(rows) - 1)
            ax.locator_params(nbins=4)
            for side, spine in ax.spines.items():
                spine.set_visible(side in ("left", "bottom"))
                spine.set_color(FAINT)
            if i == 0 and titles:
                ax.set_title(titles[j], fontsize=10, color=INK)
    figure.savefig(path, format="png", facecolor=PAPER)
