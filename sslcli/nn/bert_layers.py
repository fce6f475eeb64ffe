"""Embeddings and post-norm blocks of BERT, with the parameter names of Hugging Face's `BertModel`, and its prediction head.

Rows are tokens of a batch without padding (`TokenLayout`): M rows of width D."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.attention import attention
from sslcli.nn.likelihood import Categorical
from sslcli.nn.unpadding import Queries, TokenLayout, place

EPS = 1e-12  # of LayerNorm, as in the authors' code
STD = 0.02  # of initial weights


class Embeddings(nn.Module):
    """Sums of the embeddings of token, position and segment, normalized."""

    def __init__(self, size: int, positions: int, width: int, dropout: float, pad: int):
        super().__init__()
        self.word_embeddings = nn.Embedding(size, width, padding_idx=pad)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)
        self.dropout = dropout

    def forward(self, words: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        """words (M, D): embeddings of the tokens; positions, segments: (M,) int64."""
        h = words + self.position_embeddings(positions) + self.token_type_embeddings(segments)
        return F.dropout(self.LayerNorm(h), self.dropout, self.training)


class SelfAttention(nn.Module):
    """Multi-head attention (M, D) -> (M, D), without the output layer. `dropout`: of the attention weights, in training."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, rows: Tensor, layout: TokenLayout, only: Queries | None = None) -> Tensor:
        """`only`: the rows to compute, m of the M."""
        dropout = self.dropout if self.training else 0.0
        k, v = (self._split(layout.batched(part(rows))) for part in (self.key, self.value))
        if only is None:
            q = self._split(layout.batched(self.query(rows)))
        else:
            chosen = self.query(rows.index_select(0, only.rows))
            q = self._split(place(chosen, only.slots, layout.shape[0], only.length))
        out = attention(q, k, v, layout.mask, dropout, layout.causal)
        out = out.transpose(1, 2)
        return (layout.unbatched(out) if only is None else out.flatten(0, 1).index_select(0, only.slots)).flatten(1)

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, T, D) -> (B, heads, T, D / heads)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)

    @torch.no_grad()
    def weights(self, rows: Tensor, layout: TokenLayout) -> Tensor:
        """The attention (B, heads, T, T) of each token (rows) to each (columns), in float32; rows sum to 1."""
        q, k = (self._split(layout.batched(part(rows))) for part in (self.query, self.key))
        scores = (q @ k.transpose(-2, -1)).float() / math.sqrt(q.shape[-1])
        mask = layout.mask
        if layout.causal:
            mask = torch.ones(layout.length, layout.length, dtype=torch.bool, device=rows.device).tril()
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1)


class AddNorm(nn.Module):
    """LayerNorm(residual + dropout(linear(x)))."""

    def __init__(self, before: int, width: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(before, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)
        self.dropout = dropout

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + F.dropout(self.dense(x), self.dropout, self.training))


class Layer(nn.Module):
    """Post-norm block: attention, then two linear layers with GELU between them."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(width, heads, dropout), "output": AddNorm(width, width, dropout)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, hidden)})
        self.output = AddNorm(hidden, width, dropout)

    def forward(self, rows: Tensor, layout: TokenLayout, only: Queries | None = None) -> Tensor:
        """(M, D) -> (M, D), or with `only` the rows that it has, (m, D)."""
        attention = self.attention["self"](rows, layout, only)
        rows = self.attention["output"](attention, rows if only is None else rows.index_select(0, only.rows))
        return self.output(F.gelu(self.intermediate["dense"](rows)), rows)


def init_bert(module: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0, the embedding of padding 0; for `module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        nn.init.zeros_(module.weight[module.padding_idx])


class PredictionHead(nn.Module):
    """BERT's head of masked language modeling: linear, GELU, LayerNorm, then the product with the embedding of each token, plus a
    bias: (..., before) -> (..., size).

    `embedding` belongs to the backbone: it is not among the parameters of the head. Rows of it from `size` on are not predicted."""

    def __init__(self, before: int, embedding: nn.Embedding, size: int, prefix: int = 0):
        super().__init__()
        width = embedding.embedding_dim
        self.dense = nn.Linear(before, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)
        self.bias = nn.Parameter(torch.zeros(size))
        self.prefix, self.size = prefix, size
        self._tied = (embedding,)  # a tuple, so that the module is not registered a second time
        self.dense.apply(init_bert)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.LayerNorm(F.gelu(self.dense(tokens)))
        weight = self._tied[0].weight
        weight = weight if len(weight) == self.size else weight[: self.size]
        out = F.linear(h, weight, self.bias)
        return out[:, self.prefix :] if self.prefix else out


@dataclass(frozen=True)
class TiedCategorical(Categorical):
    """`Categorical`, whose head is BERT's: its outputs share the embeddings of the tokens."""

    embedding: nn.Embedding | None = field(default=None, compare=False, repr=False)

    def head(self, width: int, prefix: int = 0) -> nn.Module:
        assert self.embedding is not None
        return PredictionHead(width, self.embedding, self.size, prefix)
