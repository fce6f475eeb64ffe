"""Ops on histories: ids (B, L) int64, the latest item last, padding after it.

Crop, mask and reorder are those of Xie et al., "Contrastive Learning for Sequential Recommendation" (CL4SRec), ICDE 2022, Sec. 3.2,
arXiv:2010.14395.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslcli.data.histories.next_items import MASK, PAD
from sslcli.rng import Draw
from sslcli.views.op import Op, Params, number


class Window(Op):
    """As many consecutive items as the view holds, at a random place of a longer history. `size`: the length of the view, a
    fraction of `dataset.max_length`."""

    name = "window"
    first = True

    def __init__(self, size: float = 1.0):
        self.size = number("size", size, 1e-6, 1.0)

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (min(shape[0], max(2, round(self.size * shape[0]))),)

    def uniforms(self) -> dict[str, int]:
        return {"start": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"start": u["start"][:, 0].double()}

    def start(self, lengths: Tensor, room: int, params: Params) -> Tensor:
        """The first item (B,) int64 of the window, of histories with `lengths` (B,) items."""
        return (params["start"] * ((lengths - room).clamp(min=0) + 1)).floor().long()


class _Part(Op):
    """An op on a share of the items of a history."""

    def __init__(self, share: float, p: float):
        self.share, self.p = number("share", share, 0.0, 1.0), p

    def uniforms(self) -> dict[str, int]:
        return {"start": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"start": u["start"].double()}

    def count(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1) int64: the number of items of each history, and of the share of them, rounded down, at least one."""
        n = (x != PAD).sum(dim=1, keepdim=True)
        return n, (self.share * n.double()).floor().long().clamp(min=1).minimum(n)

    def span(self, x: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """(B, 1) int64: the first item and the size of a span of the share, at a random place."""
        n, size = self.count(x)
        return (params["start"] * (n - size + 1)).floor().long(), size


class Crop(_Part):
    """Only a contiguous `share` of the items, at a random place (Sec. 3.2.1, eta)."""

    name = "crop"

    def __init__(self, share: float = 0.6, p: float = 1.0):
        super().__init__(share, p)

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        start, size = self.span(x, params)
        place = torch.arange(x.shape[1], device=x.device).expand_as(x)
        return x.gather(1, (place + start).clamp(max=x.shape[1] - 1)).masked_fill(place >= size, PAD)


class Mask(_Part):
    """A `share` of the items, chosen at random, replaced by the mask token (Sec. 3.2.2, gamma)."""

    name = "mask"

    def __init__(self, share: float = 0.3, p: float = 1.0):
        super().__init__(share, p)

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        n, size = self.count(x)
        scores = draw.uniform("mask/item", x.shape[1]).to(x.device).masked_fill(x == PAD, 2.0)
        rank = scores.argsort(dim=1, stable=True).argsort(dim=1)
        return x.masked_fill((rank < size.minimum(n - 1)) & (x != PAD), MASK)


class Reorder(_Part):
    """A contiguous `share` of the items in a random order (Sec. 3.2.3, beta)."""

    name = "reorder"

    def __init__(self, share: float = 0.6, p: float = 1.0):
        super().__init__(share, p)

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        start, size = self.span(x, params)
        place = torch.arange(x.shape[1], device=x.device).expand_as(x)
        inside = (place >= start) & (place < start + size)
        shuffled = start + draw.uniform("reorder/item", x.shape[1]).to(x.device) * size
        keys = torch.where(inside, shuffled.double(), place.double())
        return x.gather(1, keys.argsort(dim=1, stable=True))


class OneOf(Op):
    """One of crop, mask and reorder with these shares, chosen at random; null leaves one out (CL4SRec, Sec. 3.3)."""

    name = "one_of"

    def __init__(self, crop: float | None = 0.6, mask: float | None = 0.3, reorder: float | None = 0.6, p: float = 1.0):
        shares = {"crop": (Crop, crop), "mask": (Mask, mask), "reorder": (Reorder, reorder)}
        self.ops: list[Any] = [
            kind(number(name, share, 0.0, 1.0)) for name, (kind, share) in shares.items() if share is not None
        ]
        self.p = p if self.ops else 0.0

    def uniforms(self) -> dict[str, int]:
        return {"which": 1, "start": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"which": (u["which"] * len(self.ops)).floor().long(), "start": u["start"].double()}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        out = x
        for i, op in enumerate(self.ops):
            out = torch.where(params["which"] == i, op.apply(x, params, draw), out)
        return out


OPS: dict[str, type[Op]] = {op.name: op for op in (Window, Crop, Mask, Reorder, OneOf)}
