"""Scaled dot-product attention, by the fastest way of the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_PRODUCTS = 511  # keys: with more, products are no faster (measured with AMX), and take memory


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0, causal: bool = False
) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of queries (B, H, N, d), keys and values (B, H, M, d).

    Args:
        mask: bool, true where attention is allowed, broadcast to (B, H, N, M).
        dropout: the share of the weights that is zeroed.
        causal: whether query i attends to keys 0 to i only. Not with `mask`.

    The same as PyTorch's `scaled_dot_product_attention` (SDPA), which computes it, except for training in bfloat16 on a processor:
    the backward pass of SDPA is up to 6 times as slow there as matrix products, which are used instead. They round the scores to
    bfloat16, and a query without any key gets the mean of the values, not zero."""
    slow = q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled() and q.requires_grad
    if not slow or k.shape[2] > MAX_PRODUCTS:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal)
    if causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    with torch.autocast("cpu", enabled=False):  # softmax accumulates in float32 in any case, and its result is rounded
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return F.dropout(scores.softmax(dim=-1), dropout) @ v
