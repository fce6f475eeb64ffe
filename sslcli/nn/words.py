"""Which tokens of a vocabulary begin a word: a flag for each id, kept as a short string."""

from __future__ import annotations

import base64
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor


def pack_flags(flags: Tensor) -> str:
    """Flags (n,) bool in a string, a bit for each: base64, 5 kB for 30,000. "" where all are false."""
    bits = np.packbits(flags.numpy(), bitorder="little")
    return base64.b64encode(bits.tobytes()).decode("ascii") if bits.any() else ""


def unpack_flags(text: str, n: int) -> Tensor:
    """The inverse of `pack_flags`: (n,) bool on the CPU."""
    if not text:
        return torch.zeros(n, dtype=torch.bool)
    bits = np.frombuffer(base64.b64decode(text), np.uint8)
    return torch.from_numpy(np.unpackbits(bits, count=n, bitorder="little").astype(bool))


def are_flags(text: str, n: int) -> bool:
    """Whether a string is one that `pack_flags` can return for n flags."""
    try:
        return not text or len(base64.b64decode(text, validate=True)) == (n + 7) // 8
    except ValueError:
        return False


def word_starts(x: Tensor, continues: Tensor, markers: Collection[int]) -> Tensor:
    """Bool, of the shape of x (B, L) int64: the tokens that begin a word.

    continues: (size,) bool, the ids that continue the word of the token before them. A token after one of the ids `markers`
    always begins one, and so does the first of a row."""
    starts = ~continues.to(x.device)[x]
    for marker in markers:
        starts[:, 1:] |= x[:, :-1] == marker
    starts[:, 0] = True
    return starts
