"""Counter-based random numbers: randomness as a function, not a state.

Every random choice about a sample is computed from `(seed, epoch, sample id, view, purpose)` by a hash, for a whole batch at
once. So it is the same on any device, with any number of workers or processes, for any batch size, and after a resume; there
is no state to save.

The hash is the finalizer of SplitMix64 (Steele, Lea & Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) applied
to a keyed counter, in int64 arithmetic that wraps equally on all devices. Tests compare some numbers with stored values, because
changing them changes every run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_C1 = 0xBF58476D1CE4E5B9
_C2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """A 64-bit pattern as a signed integer, as torch requires."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical right shift; torch's is arithmetic."""
    return (z >> by).bitwise_and_((1 << (64 - by)) - 1)


def _mix_(z: Tensor) -> Tensor:
    """Finalizer of SplitMix64, in place."""
    z.bitwise_xor_(_shift(z, 30)).mul_(_signed(_C1))
    z.bitwise_xor_(_shift(z, 27)).mul_(_signed(_C2))
    return z.bitwise_xor_(_shift(z, 31))


def _unit(bits: Tensor) -> Tensor:
    """The top 24 of 64 bits as float32 in [0, 1): exact, and equal on every device."""
    return _shift(bits, 40).to(torch.float32).mul_(2.0**-24)


def derive(*words: int | str) -> int:
    """A 63-bit seed from integers and strings, for other generators (numpy, torch, scikit-learn)."""
    text = "\x1f".join(f"str:{w}" if isinstance(w, str) else f"int:{int(w)}" for w in words)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def order(seed: int, epoch: int, n: int) -> Tensor:
    """The order of the `n` samples in an epoch: a permutation (n,) int64, a pure function of its arguments."""
    ids = torch.arange(n, dtype=torch.int64)
    keys = _mix_(_mix_(ids * _signed(_GOLDEN) + _signed(derive(seed, epoch, "order"))))
    return torch.argsort(keys, stable=True)


@lru_cache(maxsize=256)
def _integers(values: tuple[int, ...], device: torch.device) -> Tensor:
    """(n,) int64 on the device, cached. The copy is synchronous, so that it is valid on any CUDA stream."""
    return torch.tensor(values, dtype=torch.int64).to(device)


@lru_cache(maxsize=256)
def _columns(counts: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """For `counts` values per purpose, (sum,) int64 each: the purpose of a column, and its counter."""
    each = torch.tensor(counts, dtype=torch.int64)
    column = torch.repeat_interleave(each)
    counter = (torch.arange(1, len(column) + 1) - (each.cumsum(0) - each)[column]) * _signed(_GOLDEN)
    return column.to(device), counter.to(device)


@dataclass(frozen=True)
class Draw:
    """Random numbers of a batch: B sample ids (int64), one epoch, one view. Results are float32 on the device of `ids`."""

    seed: int
    epoch: int
    ids: Tensor
    view: int = -1

    def of_view(self, view: int) -> Draw:
        """The draw of another view of the same samples."""
        return replace(self, view=view)

    def rows(self, index: slice | Tensor) -> Draw:
        """The draw of some samples; their numbers are the same as in the whole batch."""
        return replace(self, ids=self.ids[index])

    def to(self, device: torch.device | str) -> Draw:
        """The draw on another device; the numbers are the same."""
        return replace(self, ids=self.ids.to(device))

    def _key(self, purpose: str) -> int:
        return _signed(derive(self.seed, self.epoch, self.view, purpose))

    def bits(self, purpose: str, count: int) -> Tensor:
        """64 random bits each: (B, count) int64. The first k columns do not depend on `count`."""
        stream = _mix_(_mix_(self.ids.to(torch.int64) * _signed(_GOLDEN) + self._key(purpose)))  # (B,)
        counter = torch.arange(1, count + 1, dtype=torch.int64, device=self.ids.device) * _signed(_GOLDEN)
        return _mix_(stream[:, None] + counter)

    def uniform(self, purpose: str, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Uniform (B, *shape) in [low, high), of 24 random bits each. With other bounds than 0 and 1, `high` itself may occur by
        rounding."""
        unit = _unit(self.bits(purpose, math.prod(shape)))
        if (low, high) != (0.0, 1.0):
            unit = unit.mul_(high - low).add_(low)
        return unit.view(len(self.ids), *shape)

    def uniforms(self, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """`{purpose: uniform(purpose, count)}`, each (B, count), computed in one pass."""
        if not counts:
            return {}
        keys = _integers(tuple(self._key(purpose) for purpose in counts), self.ids.device)
        column, counter = _columns(tuple(counts.values()), self.ids.device)
        stream = _mix_(_mix_(self.ids.to(torch.int64)[:, None] * _signed(_GOLDEN) + keys))  # (B, purposes)
        unit = _unit(_mix_(stream[:, column].add_(counter)))  # (B, columns)
        return dict(zip(counts, unit.split(list(counts.values()), dim=1), strict=True))

    def chance(self, purpose: str, p: float) -> Tensor:
        """Bernoulli (B,) bool, true with probability `p`."""
        return self.uniform(purpose) < p

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Standard normal (B, *shape), by the Box-Muller transform in float64 (so that devices agree up to float32 rounding)."""
        n = math.prod(shape)
        half = (n + 1) // 2  # each pair of uniform numbers yields two normal ones
        unit = _shift(self.bits(purpose, 2 * half), 11).to(torch.float64).add_(0.5).mul_(2.0**-53)  # in (0, 1]
        radius = unit[:, :half].log().mul_(-2.0).sqrt_()
        angle = unit[:, half:] * (2.0 * math.pi)
        both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :n]
        return both.to(torch.float32).reshape(len(self.ids), *shape)

    def integers(self, purpose: str, high: int, *shape: int) -> Tensor:
        """Uniform integers (B, *shape) int64 in [0, high)."""
        bits = self.bits(purpose, math.prod(shape)) & ((1 << 62) - 1)  # the bias of the remainder is below high / 2**62
        return bits.remainder_(high).view(len(self.ids), *shape)

    def permutation(self, purpose: str, n: int) -> Tensor:
        """Random permutations (B, n) int64 of 0..n-1, one per sample."""
        return self.bits(purpose, n).argsort(dim=1, stable=True)
