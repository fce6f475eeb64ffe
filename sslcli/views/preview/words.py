"""Documents as previews: words in lines, on colors where they have weights."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcli import plotting
from sslcli.console import escape
from sslcli.views.preview.base import INK, Preview, draw_text, heat, rescale

if TYPE_CHECKING:
    from PIL import Image

LINE = 16  # pixels of a line
LONGEST = 40  # characters of a word in a drawing
SHOWN = 2000  # characters in HTML; the number of all others is given


@dataclass(frozen=True)
class Words(Preview):
    """A document. `pieces`: the text of its tokens; `begins`: whether each begins a word; `at`: its place in the view; `weights`:
    of each token in 0..1, or None."""

    content: str
    pieces: tuple[str, ...]
    begins: tuple[bool, ...]
    at: tuple[int, ...]
    weights: tuple[float, ...] | None = None

    cell = (300, 96)
    prose = True

    @property
    def size(self) -> tuple[int, int]:
        return 420, 224

    def text(self) -> str:
        return escape(self.content)

    def image(self, width: int, height: int) -> Image.Image:
        """As many words as fit, in lines."""
        if self.weights is None:
            return draw_text(self.text(), width, height)
        from PIL import Image, ImageDraw

        page = Image.new("RGB", (width, height), "white")
        pen = ImageDraw.Draw(page)
        font = plotting.font(12)
        space = font.getlength(" ")
        left, top = 4.0, 2
        for word, weight in self._words():
            word = escape(word)[:LONGEST]
            long = font.getlength(word)
            if left > 4 and left + long > width - 4:
                left, top = 4.0, top + LINE
            if top + LINE > height:
                break
            color, ink = _color(weight)
            pen.rectangle((left - 1, top, left + long + 1, top + LINE - 2), fill=color)
            pen.text((left, top), word, fill=ink, font=font)
            left += long + space
        return page

    def words(self) -> list[tuple[str, float]] | None:
        """Words, each with the largest weight of its tokens."""
        return None if self.weights is None else [(escape(word), weight) for word, weight in self._words()]

    def parts(self, weights: Tensor) -> list[tuple[str, float]]:
        flat = weights.detach().cpu().flatten().double().tolist()
        return [(self._name(word), sum(flat[self.at[i]] for i in word)) for word in self._tokens()]

    def _name(self, word: list[int]) -> str:
        """The text of the tokens of a word, without the mark of the space before it."""
        text = "".join(self.pieces[i] for i in word)
        return escape(text.lstrip("␣Ġ▁") or text)[:LONGEST]

    def _words(self) -> Iterator[tuple[str, float]]:
        assert self.weights is not None
        for word in self._tokens():
            yield "".join(self.pieces[i] for i in word), max(self.weights[i] for i in word)

    def _tokens(self) -> Iterator[list[int]]:
        """The tokens of each word."""
        word: list[int] = []
        for i, begins in enumerate(self.begins):
            if begins and word:
                yield word
                word = []
            word.append(i)
        if word:
            yield word

    def html(self) -> str:
        if self.weights is None:
            text = self.text()
            more = f" … ({len(text) - SHOWN:,} more characters)" if len(text) > SHOWN else ""
            return f'<p class="preview">{html.escape(text[:SHOWN])}{more}</p>'
        parts = []
        for word, weight in self._words():
            parts.append(f'<span class="{plotting.heat_class(weight)}">{html.escape(escape(word))}</span>')
            if len(parts) >= SHOWN // 5:
                parts.append("…")
                break
        return f'<p class="preview">{" ".join(parts)}</p>'

    def overlay(self, colors: Tensor) -> Preview:
        """The document: words have no room for any color."""
        return self

    def importance(self, weights: Tensor) -> Words:
        flat = weights.detach().cpu().flatten().float()
        own = rescale(flat[list(self.at)]) if self.at else flat[:0]
        return replace(self, weights=tuple(own.tolist()))

    def difference(self, other: Preview) -> Preview:
        """The words of `other` at the places where they differ, on the darkest color; the others without."""
        if not isinstance(other, Words) or other.at != self.at:
            return super().difference(other)
        differs = [float(a != b) for a, b in zip(self.pieces, other.pieces, strict=True)]
        return replace(other, weights=tuple(differs))


def _color(weight: float) -> tuple[str, str]:
    """The color behind a word, and of its text."""
    r, g, b = (heat(torch.tensor(weight)) * 255).round().to(torch.int64).tolist()
    return f"#{r:02x}{g:02x}{b:02x}", INK if 0.299 * r + 0.587 * g + 0.114 * b > 128 else "#ffffff"
