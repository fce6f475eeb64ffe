"""A decoder of texts from one vector, and the deletion of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.bert_layers import EPS, AddNorm, SelfAttention, init_bert
from sslcli.nn.unpadding import TokenLayout, token_layout
from sslcli.nn.values import Tokens


class DecoderLayer(nn.Module):
    """Post-norm block: causal attention, cross-attention to one vector, then two linear layers with GELU between them.

    The weights of attention to one key are 1: what is left of cross-attention is a linear map of its value."""

    def __init__(self, width: int, memory: int, heads: int, dropout: float):
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout)
        self.attention_output = AddNorm(width, width, dropout)
        self.value = nn.Linear(memory, width)
        self.cross_output = AddNorm(width, width, dropout)
        self.intermediate = nn.Linear(width, 4 * width)
        self.output = AddNorm(4 * width, width, dropout)

    def forward(self, rows: Tensor, memory: Tensor, layout: TokenLayout) -> Tensor:
        """rows (M, D): tokens; memory (M, D'): the vector of the sample of each."""
        rows = self.attention_output(self.attention(rows, layout), rows)
        rows = self.cross_output(self.value(memory), rows)
        return self.output(F.gelu(self.intermediate(rows)), rows)


class TextDecoder(nn.Module):
    """Tokens (B, N) and vectors (B, D') -> (B, N, D): at each token what predicts the next one. `embedding` is that of the
    backbone, whose parameters are not among those of the decoder; learned positions."""

    def __init__(
        self, embedding: nn.Embedding, memory: int, positions: int, depth: int = 1, heads: int = 4, dropout: float = 0.1
    ):
        super().__init__()
        width = embedding.embedding_dim
        if depth < 1 or heads < 1 or width % heads:
            raise ValueError(f"decoder_depth must be at least 1, and heads divide the width {width} of an embedding")
        self._tied = (embedding,)  # a tuple, so that the module is not registered a second time
        self.position_embeddings = nn.Embedding(positions, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)
        self.dropout = dropout
        self.layers = nn.ModuleList(DecoderLayer(width, memory, heads, dropout) for _ in range(depth))
        self.apply(init_bert)

    def forward(self, x: Tensor, memory: Tensor, values: Tokens) -> Tensor:
        layout = token_layout(values.present(x), causal=True, static=x.device.type != "cpu")
        positions = torch.arange(x.shape[1], device=x.device).expand_as(x)
        rows = self._tied[0](layout.rows(x)) + self.position_embeddings(layout.rows(positions))
        rows = F.dropout(self.LayerNorm(rows), self.dropout, self.training)
        memory = layout.rows(memory[:, None].expand(-1, x.shape[1], -1))
        for layer in self.layers:
            rows = layer(rows, memory, layout)
        return layout.restore(rows)


def delete_tokens(x: Tensor, scores: Tensor, share: float, values: Tokens) -> Tensor:
    """x (B, L) without the content tokens whose uniform score (B, L) is below `share`; of a text that would lose all, the token
    with the largest score stays. What is left moves to the front."""
    special = values.present(x) & torch.isin(x, torch.tensor(values.special, dtype=x.dtype, device=x.device))
    content = values.present(x) & ~special
    largest = scores.masked_fill(~content, -1.0)
    keep = (scores >= share) | (largest == largest.amax(dim=1, keepdim=True))
    keep = special | (content & keep)
    order = (~keep).long().argsort(dim=1, stable=True)
    return x.masked_fill(~keep, values.pad).gather(1, order)
