"""FT-Transformer: a transformer whose tokens are the columns of a table."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.backbones.base import TokenBackbone
from sslcli.errors import RequestError
from sslcli.nn.columns import CategoryEmbedding, categorical, uniform
from sslcli.nn.transformer import Attention, received_attention
from sslcli.nn.values import Columns, Values
from sslcli.rng import Draw


class FTTransformer(TokenBackbone):
    """Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021, arXiv:2106.11959, Sec. 3.3: a feature
    tokenizer, a class token, pre-norm blocks without the first norm, ReGLU, and ReLU(LayerNorm) of the class token.

    B rows, F columns, D = `width`. The token of a number x_j is x_j w_j + b_j, that of a category its embedding + b_j. Defaults are
    those of the authors' code. Deviations: a missing number has a learned vector instead of x_j w_j; the class token is the first;
    `pool: mean` is the mean of the columns' tokens, for methods that do not train the class token (MAE).
    """

    accepts: ClassVar = {"columns": (1,)}
    prefix = 1
    patch_dim = 1

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 192,
        depth: int = 3,
        heads: int = 8,
        mlp_ratio: float = 4 / 3,
        attention_dropout: float = 0.2,
        mlp_dropout: float = 0.1,
        residual_dropout: float = 0.0,
        pool: str = "cls",
        values: Values | None = None,
    ):
        super().__init__(input_shape, values)
        assert isinstance(self.values, Columns), self.values
        if depth < 1 or heads < 1 or width < 1 or width % heads:
            raise RequestError(
                f"backbone.width={width}: expected a multiple of backbone.heads={heads}, and backbone.depth={depth} of at "
                "least 1"
            )
        if int(width * mlp_ratio) < 1:
            raise RequestError(f"backbone.mlp_ratio={mlp_ratio} results in no hidden unit", "backbone.mlp_ratio=1.3333")
        for name, p in (("attention", attention_dropout), ("mlp", mlp_dropout), ("residual", residual_dropout)):
            if not 0 <= p < 1:
                raise RequestError(f"backbone.{name}_dropout: expected a number from 0 to below 1, got {p}")
        if pool not in ("cls", "mean"):
            raise RequestError(f"backbone.pool: expected cls or mean, got {pool!r}", "backbone.pool=cls")
        self.dim, self.pool = width, pool
        self.num_tokens = self.input_shape[0]
        self.grid = (self.num_tokens,)
        self.tokenizer = ColumnTokens(self.values, width)
        self.cls_token = uniform(1, width)
        hidden = int(width * mlp_ratio)
        self.blocks = nn.ModuleList(
            RegluBlock(width, heads, hidden, attention_dropout, mlp_dropout, residual_dropout, norm=i > 0)
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        return F.relu(tokens[:, 0] if self.pool == "cls" else tokens[:, 1:].mean(dim=1))

    def tokens(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
        attend: Tensor | None = None,
    ) -> Tensor:
        h = self._embed(x, keep, hidden, mask_token)
        mask = None if attend is None else attend.expand(x.shape[0], -1, -1)
        for block in self.blocks:
            h = block(h, mask)
        return self.norm(h)

    def depths(self, x: Tensor) -> list[Tensor]:
        h, out = self._embed(x), []
        for block in self.blocks:
            h = block(h)
            out.append(h)
        return out

    def _embed(
        self, x: Tensor, keep: Tensor | None = None, hidden: Tensor | None = None, mask_token: Tensor | None = None
    ) -> Tensor:
        """Input of the first block (B, 1 + n, D)."""
        if tuple(x.shape[1:]) != self.input_shape:
            raise RequestError(f"ft_transformer: expected rows of shape {self.input_shape}, got {tuple(x.shape[1:])}")
        h = self.tokenizer(x, hidden, mask_token)
        if keep is not None:
            h = h.gather(1, keep[:, :, None].expand(-1, -1, self.dim))
        return torch.cat([self.cls_token.expand(x.shape[0], 1, -1).to(h.dtype), h], dim=1)

    def patchify(self, x: Tensor) -> Tensor:
        """(B, F) -> (B, F, 1)."""
        return x[:, :, None]

    def unpatchify(self, patches: Tensor) -> Tensor:
        return patches[:, :, 0]

    def present(self, x: Tensor) -> Tensor | None:
        return self.values.present(x)

    @torch.no_grad()
    def attention(self, x: Tensor) -> Tensor:
        h = self._embed(x)
        blocks: list[Any] = list(self.blocks)
        last = blocks.pop()
        for block in blocks:
            h = block(h)
        return received_attention(last.attn, last.norm1(h), None, self.prefix, self.pool == "cls")

    def token_positions(self, dim: int) -> Tensor:
        """Random directions (1 + F, dim) with the squared norm dim / 2 of a sine-cosine embedding; 0 for the class token. Columns
        have no order, so no two of them may be closer than others. A function of the shape alone."""
        codes = F.normalize(Draw(0, 0, torch.arange(self.num_tokens)).normal("column", dim), dim=1) * (dim / 2) ** 0.5
        return torch.cat([torch.zeros(1, dim), codes])


class ColumnTokens(nn.Module):
    """Rows (B, F) -> tokens (B, F, D). Without weight decay, as in the authors' code."""

    no_weight_decay = True

    def __init__(self, values: Columns, width: int):
        super().__init__()
        numeric = values.slices.numeric
        self.numeric: Tensor
        self.order: Tensor
        self.register_buffer("numeric", torch.tensor(numeric, dtype=torch.int64), persistent=False)
        order = torch.tensor([*numeric, *categorical(values)]).argsort()  # of numbers, then categories, to columns
        self.register_buffer("order", order, persistent=False)
        self.weight = uniform(len(numeric), width)
        self.missing = nn.Parameter(
            torch.zeros(len(numeric), width)
        )  # 0: no effect where no training row lacks a value
        self.categories = CategoryEmbedding(values, width)
        self.bias = uniform(len(values.categories), width)

    def forward(self, x: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tensor:
        numbers = x[:, self.numeric, None]
        h = torch.where(numbers.isnan(), self.missing, numbers.nan_to_num() * self.weight)
        h = torch.cat([h, self.categories(x)], dim=1)[:, self.order]
        if hidden is not None and mask_token is not None:
            h = torch.where(hidden[:, :, None], mask_token.to(h.dtype), h)
        return h + self.bias


class RegluBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + W2 (a * relu(b)) with (a, b) = W1 norm(x). Without the first norm unless
    `norm`: the authors found that it makes the first block worse."""

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        attention_dropout: float,
        mlp_dropout: float,
        dropout: float,
        norm: bool,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim) if norm else nn.Identity()
        self.attn = Attention(dim, heads, attention_dropout)
        nn.init.zeros_(self.attn.qkv.bias)
        nn.init.zeros_(self.attn.proj.bias)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.mlp_dropout, self.dropout = nn.Dropout(mlp_dropout), nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.attn(self.norm1(x), mask))
        a, b = self.fc1(self.norm2(x)).chunk(2, dim=-1)
        return x + self.dropout(self.fc2(self.mlp_dropout(a * F.relu(b))))
