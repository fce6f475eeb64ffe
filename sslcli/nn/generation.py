"""Generation of text, token by token."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.nn.sampling import sample_categories
from sslcli.nn.values import Tokens

NextToken = Callable[[Tensor, Tensor, int], Tensor]  # x (B, L), first (B,), at -> logits (B, V) of token `at`


@torch.no_grad()
def continue_tokens(predict: NextToken, x: Tensor, first: Tensor, values: Tokens, uniform: Tensor) -> Tensor:
    """x (B, L) with all tokens from `first` (B,) on drawn from the predicted distributions, up to a separator; padding follows.

    uniform: (B, L) random numbers in [0, 1). Other special tokens are never drawn."""
    length = x.shape[1]
    drawn_here = torch.arange(length, device=x.device) >= first[:, None]
    out = x.masked_fill(drawn_here, values.pad)
    barred = torch.tensor(sorted({values.pad, *values.special} - {values.separator}), device=x.device)
    ended = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for at in range(int(first.min()), length):
        logits = predict(out, first, at).index_fill(1, barred, -torch.inf)
        token = sample_categories(logits, uniform[:, at]).masked_fill(ended, values.pad)
        out[:, at] = torch.where(drawn_here[:, at], token, out[:, at])
        ended = ended | (drawn_here[:, at] & (token == values.separator))
    return out
