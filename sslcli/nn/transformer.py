"""Transformer blocks with the parameter names of timm's VisionTransformer, and fixed positional embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.attention import attention


class Attention(nn.Module):
    """Multi-head self-attention (B, N, D) -> (B, N, D). `dropout`: of the attention weights, in training."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` bool, true where attention is allowed: (B, N) for keys, or (B, N, N) for queries and keys."""
        b, n, d = x.shape
        # each (B, heads, N, D / heads)
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mask = None if mask is None else mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
        out = attention(q, k, v, mask, self.dropout if self.training else 0.0)
        return self.proj(out.transpose(1, 2).reshape(b, n, d))

    @torch.no_grad()
    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attention (B, heads, N, N) of each token (rows) to each (columns), in float32; rows sum to 1."""
        b, n, d = x.shape
        q, k, _ = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)).float() / math.sqrt(d // self.heads)
        if mask is not None:
            scores = scores.masked_fill(~(mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]), -torch.inf)
        return scores.softmax(dim=-1)


class Mlp(nn.Module):
    """Linear-GELU-Linear on the last axis."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)). LayerNorm eps 1e-6, as in timm and MAE."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


MAX_WEIGHTS = 16_000_000  # of attention in memory at once


@torch.no_grad()
def received_attention(attn: Attention, x: Tensor, mask: Tensor | None, prefix: int, by_prefix: bool) -> Tensor:
    """(B, heads, N): the attention that each of the N tokens after the prefix receives. x (B, prefix + N, D): the input of `attn`.

    By the first token with `by_prefix` (Caron et al., "DINO", ICCV 2021, Fig. 1), else by the mean of the N tokens that `mask`
    (B, prefix + N) has; those that attend to themselves where it is (B, prefix + N, prefix + N). The sum over tokens is at
    most 1. Fused kernels return no weights, so they are computed again."""
    few = max(1, MAX_WEIGHTS // (attn.heads * x.shape[1] ** 2))
    out = []
    for start in range(0, len(x), few):
        rows = slice(start, start + few)
        seen = None if mask is None else mask[rows]
        weights = attn.weights(x[rows], seen)
        if by_prefix:
            out.append(weights[:, :, 0, prefix:])
        elif seen is None:
            out.append(weights[:, :, prefix:, prefix:].mean(dim=2))
        else:
            queries = (seen if seen.ndim == 2 else seen.diagonal(dim1=1, dim2=2))[:, None, prefix:, None].float()
            total = (weights[:, :, prefix:, prefix:] * queries).sum(dim=2)
            out.append(total / queries.sum(dim=2).clamp(min=1))
    return torch.cat(out)


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases of a linear layer, as in MAE's code (`_init_weights`); for `module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def sine_positions(grid: tuple[int, ...], dim: int) -> Tensor:
    """Sine-cosine positional embeddings (N, dim) of a grid of one or two axes, in row-major order.

    Each axis has an equal part of `dim`: sines, then cosines, of position / 10000^(k / K) (Vaswani et al. 2017). `dim`
    must be a multiple of 2 x the number of axes.
    """
    share = dim // len(grid)
    assert dim % (2 * len(grid)) == 0, (grid, dim)
    rate = 10000.0 ** (-torch.arange(share // 2, dtype=torch.float64) / (share // 2))
    places = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [p.flatten()[:, None] * rate for p in places]  # each (N, share / 2)
    return torch.cat([part for a in angles for part in (a.sin(), a.cos())], dim=1).float()
