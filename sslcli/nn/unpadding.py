"""Batches of sequences of different lengths, without computing on padding.

The number of tokens differs from batch to batch. It is rounded up, to some 32 values, with places of padding: memory that each step
allocates in other sizes is never used again by the next one, so that a process would grow without end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MULTIPLE = 8  # lengths in attention are rounded up to one: kernels are faster


@dataclass(frozen=True)
class Queries:
    """Some rows of a layout, which attend to all. rows: (m,) int64, which ones. slots: (m,) int64, the place of each in (B x
    length)."""

    rows: Tensor
    slots: Tensor
    length: int


@dataclass(frozen=True)
class TokenLayout:
    """Which of the tokens (B, N) of a batch are computed on, as rows (M, ...), and what they may attend to.

    The rows are the present tokens in order, then some places of padding, which nothing attends to; attention has the length T of
    the longest sequence, rounded up. Where shapes may not depend on values, rows are all B x N tokens, and T = N.

    index: (M,) int64, the place of each row in (B x N); None where rows are all tokens in order.
    slots: (M,) int64, the place of each row in (B x T); None where rows are all of them in order.
    mask: bool, (B, 1, 1, T) for keys or (B, 1, T, T) for queries and keys, true where attention is allowed; None: everywhere.
    causal: a token attends to those up to it; the mask is None."""

    shape: tuple[int, int]  # B, N
    length: int  # T
    present: Tensor  # (B, N) bool
    index: Tensor | None = None
    slots: Tensor | None = None
    mask: Tensor | None = None
    causal: bool = False

    def rows(self, x: Tensor) -> Tensor:
        """(B, N, ...) -> (M, ...)."""
        flat = x.flatten(0, 1)
        return flat if self.index is None else flat.index_select(0, self.index)

    def batched(self, rows: Tensor) -> Tensor:
        """(M, ...) -> (B, T, ...), 0 where there is no row."""
        return place(rows, self.slots, self.shape[0], self.length)

    def unbatched(self, x: Tensor) -> Tensor:
        """(B, T, ...) -> (M, ...)."""
        flat = x.flatten(0, 1)
        return flat if self.slots is None else flat.index_select(0, self.slots)

    def queries(self, where: Tensor) -> Queries | None:
        """The tokens where (B, N) is true and which are present. None where tokens differ in what they may attend to."""
        if self.causal or (self.mask is not None and self.mask.shape[2] > 1):
            return None
        chosen = (where & self.present)[:, : self.length]
        length = max(1, int(chosen.sum(dim=1).max()))
        places = chosen.cumsum(dim=1) - 1 + length * torch.arange(len(where), device=where.device)[:, None]
        return Queries(self.rows(where & self.present).nonzero().flatten(), places[chosen], length)

    def restore(self, rows: Tensor) -> Tensor:
        """(M, D) -> (B, N, D), 0 at tokens that are not present."""
        return place(rows, self.index, *self.shape).masked_fill(~self.present[:, :, None], 0.0)


def place(rows: Tensor, slots: Tensor | None, *shape: int) -> Tensor:
    """Rows (M, ...) at `slots` (M,) of zeros (B x N, ...), as (B, N, ...). slots: None where rows are all of them in order."""
    if slots is None:
        return rows.unflatten(0, shape)
    out = rows.new_zeros(shape[0] * shape[1], *rows.shape[1:])
    return out.index_copy(0, slots, rows).unflatten(0, shape)


def select_rows(tokens: Tensor, where: Tensor) -> Tensor:
    """The rows (n, ...) of (B, N, ...) where (B, N) is true."""
    return tokens.flatten(0, 1).index_select(0, where.flatten().nonzero().flatten())


def token_layout(
    present: Tensor,
    attend: Tensor | None = None,
    order: Tensor | None = None,
    causal: bool = False,
    static: bool = False,
) -> TokenLayout:
    """The layout of a batch whose tokens `present` (B, N) bool are computed on.

    attend: (N, N) or (B, N, N) bool, which tokens (columns) each token (row) may attend to. causal: only those up to it, by their
    positions `order` (B, N), None where tokens are in order. Tokens that are not present are never attended to. A token that may
    attend to none attends to itself, so that nothing is NaN. static: no shape may depend on values, as in an exported program."""
    b, n = present.shape
    if static or torch.compiler.is_compiling():
        mask = attention_mask(present, attend, order, causal)
        return TokenLayout((b, n), n, present, mask=mask)
    length, slots, index = n, None, None
    full = bool(present.all())
    if not full:
        ends = torch.where(present, torch.arange(1, n + 1), 0).amax(dim=1) if n else present.new_zeros(b)
        length = min(n, max(MULTIPLE, round_up(int(ends.max()), MULTIPLE)))
        inside = present[:, :length]
        slots = _slots(inside, b * n)
        places = torch.arange(b * length) if slots is None else slots
        index = places if length == n else places // length * n + places % length
        full = bool((ends == present.sum(dim=1)).all()) if causal else slots is None  # padding is at the end alone
    if attend is None and order is None and full:
        return TokenLayout((b, n), length, present, index, slots, causal=causal)
    attend = None if attend is None else attend[..., :length, :length]
    order = None if order is None else order[:, :length]
    mask = attention_mask(present[:, :length], attend, order, causal)
    return TokenLayout((b, n), length, present, index, slots, mask)


def _slots(inside: Tensor, tokens: int) -> Tensor | None:
    """The places (M,) in (B x T) of the tokens where `inside` (B, T) is true, then of others, so that M is a multiple of a 32nd of
    all `tokens` of the batch. None where they are all places in order."""
    flat = inside.flatten()
    known = flat.nonzero().flatten()
    wanted = min(round_up(len(known), max(8, tokens // 32)), len(flat))
    if len(known) == len(flat):
        return None
    return torch.cat([known, (~flat).nonzero().flatten()[: wanted - len(known)]])


def round_up(n: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `n`."""
    return -(-n // step) * step


def attention_mask(present: Tensor, attend: Tensor | None, order: Tensor | None, causal: bool) -> Tensor:
    """(B, 1, 1, T), or (B, 1, T, T) where tokens differ in what they may attend to. No row is without a true entry."""
    b, n = present.shape
    if attend is None and not causal:
        first = torch.arange(n, device=present.device) == 0
        keys = present | (first & ~present.any(dim=1, keepdim=True))
        return keys[:, None, None, :]
    allowed = present[:, None, :].expand(b, n, n)
    if attend is not None:
        allowed = allowed & attend
    if causal:
        at = torch.arange(n, device=present.device)[None] if order is None else order
        allowed = allowed & (at[:, None, :] <= at[:, :, None])
    alone = torch.eye(n, dtype=torch.bool, device=present.device) & ~allowed.any(dim=2, keepdim=True)
    return (allowed | alone)[:, None]
