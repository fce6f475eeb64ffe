"""Ops on the content of documents: ids (B, n) int64 of a vocabulary, without class token; padding follows the content.

Tokens that are no content (unknown words, separators of segments) are neither deleted, moved nor masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sslcli.nn.values import Tokens
from sslcli.rng import Draw
from sslcli.views.op import BadValue, Op, Params, between, interval, number


class TextOp(Op):
    """An op that knows the vocabulary."""

    values: Tokens

    def attach(self, values: Tokens) -> None:
        """Set the vocabulary of the ids."""
        self.values = values

    def is_content(self, x: Tensor) -> Tensor:
        """Bool, of the shape of x: ordinary tokens."""
        out = x != self.values.pad
        for special in self.values.special:
            out = out & (x != special)
        return out


class Span(TextOp):
    """A window of the document at a random place: at most as many tokens as the view holds.

    `length`: the window, as a fraction of the tokens that the document or the view has, the smaller of the two; or a range of
    fractions. `size`: the length of the view, a fraction of `dataset.max_length`.
    """

    name = "span"
    first = True

    def __init__(self, length: float | Sequence[float] = 1.0, size: float = 1.0):
        self.length: Any = interval("length", length, 1e-6, 1.0)
        self.size = number("size", size, 1e-6, 1.0)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (min(shape[0], max(4, round(self.size * shape[0]))),)

    def uniforms(self) -> dict[str, int]:
        return {"length": 1, "start": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"start": u["start"][:, 0].double(), "part": between(u["length"][:, 0].double(), *self.length)}

    def window(self, lengths: Tensor, room: int, params: Params) -> tuple[Tensor, Tensor]:
        """First token and number of tokens (B,) int64 of the window, of documents with `lengths` (B,) tokens."""
        most = lengths.clamp(max=room)
        size = (params["part"] * most).round().long().clamp(min=1).minimum(most)
        start = (params["start"] * (lengths - size + 1)).floor().long().clamp(min=0)
        return start, size

    def arrange(self, x: Tensor, size: Tensor, params: Params) -> Tensor:
        """The content (B, n) of the view from the tokens (B, n) of the window and their number (B,)."""
        return x

    @property
    def reserved(self) -> int:
        """Places of the content that hold no token of the document."""
        return 0


class Pair(Span):
    """Two segments that follow one another in the document, at a random place, with a separator between them: together as many
    tokens as the view holds.

    `share`: the first segment, as a range of fractions of both. A document of a single token has no second segment. Devlin et al.,
    "BERT", NAACL 2019, Appendix A.2, where segments are "spans of text" that need not be sentences.
    """

    name = "pair"

    def __init__(self, share: float | Sequence[float] = (0.3, 0.7)):
        super().__init__()
        self.share = interval("share", share, 0.0, 1.0)

    def uniforms(self) -> dict[str, int]:
        return {**super().uniforms(), "split": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {**super().params(u), "share": between(u["split"][:, 0].double(), *self.share)}

    def arrange(self, x: Tensor, size: Tensor, params: Params) -> Tensor:
        assert self.values.separator is not None, self.values
        first = (params["share"] * size).round().long().clamp(min=1).minimum((size - 1).clamp(min=1))  # (B,)
        place = torch.arange(x.shape[1], device=x.device).expand_as(x)
        at = torch.where(place <= first[:, None], place, place - 1)
        out = x.gather(1, at)
        divided = (size > 1)[:, None]
        return torch.where(divided & (place == first[:, None]), self.values.separator, torch.where(divided, out, x))

    @property
    def reserved(self) -> int:
        return 1


class Delete(TextOp):
    """Delete each token with probability `share`; of a document at least one token remains."""

    name = "delete"

    def __init__(self, share: float = 0.1, p: float = 1.0):
        self.share = number("share", share, 0.0, 1.0)
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        scores = draw.uniform("delete/token", x.shape[1]).to(x.device)
        content = self.is_content(x)
        best = scores.masked_fill(~content, -1.0).amax(dim=1, keepdim=True)  # the last one to be deleted
        return compact(x, content & (scores < self.share) & (scores < best), self.values.pad)


class Cut(TextOp):
    """Delete a contiguous span of `share` of the tokens, at a random place; at least one token remains."""

    name = "cut"

    def __init__(self, share: float = 0.2, p: float = 1.0):
        self.share = number("share", share, 0.0, 1.0)
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"start": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"start": u["start"].double()}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        content = self.is_content(x)
        count = content.sum(dim=1, keepdim=True)
        size = (self.share * count.double()).round().long().minimum((count - 1).clamp(min=0))
        start = (params["start"] * (count - size + 1)).floor().long()
        index = content.cumsum(dim=1) - 1  # of each token among the content
        return compact(x, content & (index >= start) & (index < start + size), self.values.pad)


class Swap(TextOp):
    """Exchange neighboring tokens: each token belongs to one pair of neighbors, which is exchanged with probability `share`."""

    name = "swap"

    def __init__(self, share: float = 0.1, p: float = 1.0):
        self.share = number("share", share, 0.0, 1.0)
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"offset": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"offset": (u["offset"] < 0.5).long()}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        n = x.shape[1]
        place = torch.arange(n, device=x.device).expand_as(x)
        is_left = (place + params["offset"]) % 2 == 0
        other = torch.where(is_left, place + 1, place - 1)
        inside = (other >= 0) & (other < n)
        other = other.clamp(0, n - 1)
        content = self.is_content(x)
        left = torch.where(is_left, place, other)  # the left one of the pair decides for both
        chosen = (draw.uniform("swap/pair", n).to(x.device) < self.share).gather(1, left)
        moved = inside & chosen & content & content.gather(1, other)
        return torch.where(moved, x.gather(1, other), x)


class Mask(TextOp):
    """Replace each token by the mask token with probability `share`."""

    name = "mask"

    def __init__(self, share: float = 0.15, p: float = 1.0):
        self.share = number("share", share, 0.0, 1.0)
        self.p = p

    def attach(self, values: Tokens) -> None:
        super().attach(values)
        if values.mask is None:
            raise BadValue("share", "0, because the vocabulary has no mask token")

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        where = draw.uniform("mask/token", x.shape[1]).to(x.device) < self.share
        return self.values.hide(x, where & self.is_content(x))


def compact(x: Tensor, removed: Tensor, pad: int) -> Tensor:
    """x (B, n) without the entries where `removed`; the others move to the left, and padding follows."""
    gone = removed | (x == pad)
    order = gone.to(torch.uint8).argsort(dim=1, stable=True)
    return x.masked_fill(gone, pad).gather(1, order)


OPS: dict[str, type[Op]] = {op.name: op for op in (Span, Pair, Delete, Cut, Swap, Mask)}
