"""Rows of a table as previews: the name and the value of each column."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sslcli import plotting
from sslcli.console import escape
from sslcli.views.preview.base import INK, QUIET, Preview, heat, rescale

if TYPE_CHECKING:
    from PIL import Image

LINE = 15  # pixels of a column's line
TALLEST = 224  # pixels of a drawing, so that a sheet does not shrink its text
SHOWN = 60  # columns in HTML; the number of all others is given


@dataclass(frozen=True)
class Row(Preview):
    """A row with the columns `names`, and their `values` as text. `colors`: (3, F) in 0..1 behind the values, or None.
    `weights`: of each column in 0..1, where `colors` are their heat."""

    names: tuple[str, ...]
    values: tuple[str, ...]
    colors: Tensor | None = None
    weights: tuple[float, ...] | None = None

    @property
    def size(self) -> tuple[int, int]:
        return 240, min(LINE * len(self.names) + 4, TALLEST)

    def text(self) -> str:
        return ", ".join(f"{escape(name)} {escape(value)}" for name, value in self._cells())

    def _cells(self) -> Sequence[tuple[str, str]]:
        return list(zip(self.names, self.values, strict=True))

    def image(self, width: int, height: int) -> Image.Image:
        """As many columns as fit, the names at the left."""
        from PIL import Image, ImageDraw

        page = Image.new("RGB", (width, height), "white")
        pen = ImageDraw.Draw(page)
        font = plotting.font(11)
        cells = list(self._cells())
        fitting = max(1, (height - 4) // LINE)
        left = width // 2
        for i, (name, value) in enumerate(cells[: fitting if len(cells) <= fitting else fitting - 1]):
            top = 2 + i * LINE
            ink = INK
            if self.colors is not None:
                color, ink = _color(self.colors[:, i])
                pen.rectangle((left, top, width, top + LINE - 1), fill=color)
            pen.text((4, top), _fit(escape(name), left - 8, font), fill=QUIET, font=font)
            pen.text((left + 2, top), _fit(escape(value), width - left - 4, font), fill=ink, font=font)
        if len(cells) > fitting:
            pen.text((4, 2 + (fitting - 1) * LINE), f"… {len(cells)} columns", fill=QUIET, font=font)
        return page

    def html(self) -> str:
        """Weights are shown by the classes of a report's stylesheet, which has none for any color."""
        rows = []
        for i, (name, value) in enumerate(self._cells()[:SHOWN]):
            shade = "" if self.weights is None else f' class="{plotting.heat_class(self.weights[i])}"'
            rows.append(f'<tr><th scope="row">{_escape(name)}</th><td{shade}>{_escape(value)}</td></tr>')
        if (more := len(self.names) - SHOWN) > 0:
            rows.append(f'<tr><td colspan="2">and {more:,} more columns</td></tr>')
        return f'<table class="preview">{"".join(rows)}</table>'

    def overlay(self, colors: Tensor) -> Row:
        return replace(self, colors=colors.detach().cpu().flatten(1), weights=None)

    def importance(self, weights: Tensor) -> Row:
        """The columns from the most to the least important, on the colors of their weights."""
        flat = weights.detach().cpu().flatten()
        order = flat.argsort(descending=True, stable=True)
        names, values = ([cells[i] for i in order.tolist()] for cells in (self.names, self.values))
        own = rescale(flat)[order]
        return Row(tuple(names), tuple(values), heat(own), tuple(own.tolist()))

    def difference(self, other: Preview) -> Preview:
        """The columns whose value differs, with that of `other`."""
        if not isinstance(other, Row) or other.names != self.names:
            return super().difference(other)
        differing = [i for i, (a, b) in enumerate(zip(self.values, other.values, strict=True)) if a != b]
        if not differing:
            return Row(("no difference",), ("",))
        return Row(tuple(self.names[i] for i in differing), tuple(other.values[i] for i in differing))


def _escape(text: str) -> str:
    return html.escape(escape(text))


def _color(color: Tensor) -> tuple[str, str]:
    """The color of a cell and of its text, as in CSS."""
    r, g, b = ((color.float().nan_to_num(1.0).clamp(0, 1)) * 255).round().to(torch.int64).tolist()
    return f"#{r:02x}{g:02x}{b:02x}", INK if 0.299 * r + 0.587 * g + 0.114 * b > 128 else "#ffffff"


def _fit(text: str, width: float, font: Any) -> str:
    """The text, cut to a width in pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
