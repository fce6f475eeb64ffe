"""BERT: a transformer on sequences of tokens, such as words. Parameters have the names of Hugging Face's `BertModel`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcli.backbones.base import TokenBackbone
from sslcli.errors import RequestError
from sslcli.nn.bert_layers import Embeddings, Layer, TiedCategorical, init_bert
from sslcli.nn.likelihood import Likelihood
from sslcli.nn.transformer import MAX_WEIGHTS, sine_positions
from sslcli.nn.unpadding import TokenLayout, token_layout
from sslcli.nn.values import Tokens, Values

POOLS = ("mean", "cls", "last")


class BERT(TokenBackbone):
    """Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019,
    arXiv:1810.04805, and the authors' code: post-norm blocks, exact GELU, LayerNorm eps 1e-12, learned positions, two segments,
    weights from N(0, 0.02), `dropout` of embeddings, attention weights and what a block adds. Without the pooler.

    B samples of N = L tokens, D = `width`. The class token is the first token of a sample, so `prefix` is 0. Tokens after the
    first separator belong to the second segment. Padding is never attended to, its outputs are 0, and on a CPU it is not computed
    on, unless blocks are compiled. `causal`: a token attends to those up to it, as in GPT. `pool`: the mean of the present tokens,
    `cls`, the first token, or `last`, the last present one. `max_positions: auto` is L; shorter samples are supported.
    `vocabulary`: rows of the embedding, for weights that have more of them than the tokenizer has tokens; `auto` is the size of the
    vocabulary.
    """

    accepts: ClassVar = {"tokens": (1,)}
    prefix = 0
    patch_dim = 1
    values: Tokens

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 256,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        max_positions: int | str = "auto",
        vocabulary: int | str = "auto",
        dropout: float = 0.1,
        pool: str = "mean",
        causal: bool = False,
        values: Values | None = None,
    ):
        super().__init__(input_shape, values)
        self.sizes = check_sizes(width, depth, heads, mlp_ratio, dropout)
        if pool not in POOLS:
            raise RequestError(f"backbone.pool: expected {', '.join(POOLS)}, got {pool!r}", "backbone.pool=mean")
        if causal and pool == "cls":
            raise RequestError(
                "backbone.pool=cls: with backbone.causal=true the first token attends to no other", "backbone.pool=mean"
            )
        length = self.input_shape[0]
        self.dim, self.pool, self.causal = width, pool, causal
        self.num_tokens, self.grid = length, (length,)
        self.max_positions = at_least("max_positions", max_positions, length, "tokens per sample, dataset.max_length")
        rows = at_least("vocabulary", vocabulary, self.values.size, "tokens of the vocabulary")
        self.embeddings = Embeddings(rows, self.max_positions, width, dropout, self.values.pad)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(Layer(width, heads, self.sizes.hidden, dropout) for _ in range(depth))}
        )
        self.apply(init_bert)

    @property
    def token_embedding(self) -> nn.Embedding:
        """The embedding of tokens, which heads and decoders share."""
        return self.embeddings.word_embeddings

    @property
    def layers(self) -> list[Any]:
        """The blocks, from the first to the last."""
        layers: Any = self.encoder["layer"]
        return list(layers)

    @property
    def compiled(self) -> bool:
        """Whether the blocks are compiled, for constant shapes."""
        return any(layer._compiled_call_impl is not None for layer in self.layers)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        if self.pool == "cls":
            return tokens[:, 0]
        if self.pool == "last":
            rows = torch.arange(x.shape[0], device=x.device)  # len(x) would be a constant in an exported program
            return tokens[rows, self.last(x)]
        count = self.present(x).sum(dim=1, keepdim=True)
        return tokens.sum(dim=1) / count.clamp(min=1)  # padding is 0

    def last(self, x: Tensor) -> Tensor:
        """(B,) int64: the place of the last present token, 0 where there is none."""
        return (self.present(x) * torch.arange(x.shape[1], device=x.device)).amax(dim=1)

    def tokens(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
        attend: Tensor | None = None,
    ) -> Tensor:
        rows, layout = self.embed(x, keep, hidden, mask_token, attend)
        for layer in self.layers:
            rows = layer(rows, layout)
        return layout.restore(rows)

    def tokens_at(self, x: Tensor, where: Tensor) -> Tensor:
        """The last block computes the other tokens as keys and values alone."""
        rows, layout = self.embed(x)
        queries = None if self.compiled else layout.queries(where)
        if queries is None:
            return super().tokens_at(x, where)
        *before, last = self.layers
        for layer in before:
            rows = layer(rows, layout)
        rows = last(rows, layout, queries)
        there = layout.present[where].nonzero().flatten()  # all of them, unless there is padding among them
        return rows.new_zeros(int(where.sum()), self.dim).index_copy(0, there, rows)

    def depths(self, x: Tensor) -> list[Tensor]:
        rows, layout = self.embed(x)
        out = []
        for layer in self.layers:
            rows = layer(rows, layout)
            out.append(layout.restore(rows))
        return out

    def embed(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
        attend: Tensor | None = None,
    ) -> tuple[Tensor, TokenLayout]:
        """Input of the first block (M, D), and which tokens its rows are."""
        if len(x.shape) != 2 or x.shape[1] > self.max_positions:
            raise RequestError(
                f"bert: expected sequences of at most {self.max_positions} tokens, got samples of shape {tuple(x.shape[1:])}",
                "backbone.max_positions=N for longer ones",
            )
        positions = torch.arange(x.shape[1], device=x.device).expand_as(x)
        segments = self.segments(x)
        if keep is not None:
            x, positions, segments = (part.gather(1, keep) for part in (x, positions, segments))
            hidden = None if hidden is None else hidden.gather(1, keep)
        order = None if keep is None else positions
        layout = token_layout(self.present(x), attend, order, self.causal, self.compiled or x.device.type != "cpu")
        words = self.token_embedding(layout.rows(x))
        if hidden is not None and mask_token is not None:
            words = torch.where(layout.rows(hidden)[:, None], mask_token.to(words.dtype), words)
        return self.embeddings(words, layout.rows(positions), layout.rows(segments)), layout

    def segments(self, x: Tensor) -> Tensor:
        """(B, N) int64: 1 for the tokens after the first separator, 0 for the others and padding."""
        if self.values.separator is None:
            return torch.zeros_like(x)
        ends = (x == self.values.separator).long()
        return (ends.cumsum(dim=1) > ends).long() * self.present(x)

    def patchify(self, x: Tensor) -> Tensor:
        """(B, L) -> (B, L, 1)."""
        return x[:, :, None]

    def unpatchify(self, patches: Tensor) -> Tensor:
        return patches[:, :, 0]

    def present(self, x: Tensor) -> Tensor:
        return self.values.present(x)

    def likelihood(self) -> Likelihood:
        """Cross-entropy, with a head whose outputs share the embeddings of tokens."""
        return TiedCategorical(self.values.size, self.values.pad, self.token_embedding)

    @torch.no_grad()
    def attention(self, x: Tensor) -> Tensor:
        few = max(1, MAX_WEIGHTS // (self.sizes.heads * x.shape[1] ** 2))
        return torch.cat([self._attention(part) for part in x.split(few)])

    def _attention(self, x: Tensor) -> Tensor:
        """(B, heads, N): of the token that is the feature with `pool: cls` or `last`, else the mean over the present tokens."""
        rows, layout = self.embed(x)
        *before, last = self.layers
        for layer in before:
            rows = layer(rows, layout)
        weights = last.attention["self"].weights(rows, layout)  # (B, heads, T, T)
        present = layout.present[:, None, : layout.length]
        if self.pool != "mean":
            at = self.last(x) if self.pool == "last" else torch.zeros(len(x), dtype=torch.int64, device=x.device)
            received = weights[torch.arange(len(x), device=x.device), :, at]
        else:
            queries = present[..., None].float()
            received = (weights * queries).sum(dim=2) / queries.sum(dim=2).clamp(min=1)
        out = torch.zeros(*received.shape[:2], x.shape[1], device=x.device)
        out[:, :, : layout.length] = received.masked_fill(~present, 0.0)
        return out

    def token_positions(self, dim: int) -> Tensor:
        return sine_positions(self.grid, dim)


@dataclass(frozen=True)
class Sizes:
    """hidden: units between the two linear layers of a block."""

    width: int
    depth: int
    heads: int
    hidden: int
    dropout: float


def check_sizes(width: int, depth: int, heads: int, mlp_ratio: float, dropout: float) -> Sizes:
    """RequestError for sizes that are not possible."""
    if min(width, depth, heads) < 1 or width % heads:
        raise RequestError(
            f"backbone.width={width}: expected a multiple of backbone.heads={heads}, and backbone.depth={depth} of at least 1"
        )
    if int(width * mlp_ratio) < 1:
        raise RequestError(f"backbone.mlp_ratio={mlp_ratio} results in no hidden unit", "backbone.mlp_ratio=4")
    if not 0 <= dropout < 1:
        raise RequestError(f"backbone.dropout: expected a number from 0 to below 1, got {dropout}")
    return Sizes(width, depth, heads, int(width * mlp_ratio), dropout)


def at_least(key: str, requested: int | str, needed: int, of: str) -> int:
    """The rows of an embedding; `auto` is what is needed. RequestError for fewer."""
    if requested == "auto":
        return needed
    if isinstance(requested, str) or requested < needed:
        raise RequestError(
            f"backbone.{key}: expected auto, or at least the {needed:,} {of}, got {requested!r}", f"backbone.{key}=auto"
        )
    return requested
