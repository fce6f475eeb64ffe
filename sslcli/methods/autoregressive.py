"""Autoregressive prediction of the next token with causal attention: patches in raster order, or words.

Chen et al., "Generative Pretraining from Pixels" (iGPT), ICML 2020. https://proceedings.mlr.press/v119/chen20s.html
El-Nouby et al., "Scalable Pre-training of Large Autoregressive Image Models" (AIM), ICML 2024. https://arxiv.org/abs/2401.08541
Radford et al., "Improving Language Understanding by Generative Pre-Training" (GPT), 2018: `prefix: none` with backbone.causal=true.
B batch, N tokens in order, P raw values of a token. Numbers are predicted with squared error, ids of a vocabulary with
cross-entropy. With `prefix: random` a prefix of random length attends bidirectionally and is no target, so that the network can be
evaluated with bidirectional attention (AIM, Sec. 3.2); with `none` all tokens but the first are targets. backbone.patch=1 predicts
pixel by pixel. Deviations from the papers: squared error of unnormalized values, where iGPT uses a palette and AIM normalizes each
patch (which could not be continued from predictions); a head with one hidden layer for numbers. Padding is no target.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.generation import continue_tokens
from sslcli.nn.next_item import leave_room
from sslcli.nn.values import Tokens


class Autoregressive(Method):
    requires = frozenset({"positions", "values", "order"})
    min_batch = 1

    def __init__(self, backbone: nn.Module, head_ratio: float | str = "auto", prefix: str = "random"):
        super().__init__(backbone)
        if self.backbone.num_tokens < 2:
            raise ValueError(
                "autoregressive prediction needs at least 2 tokens per sample: choose a smaller backbone.patch"
            )
        if prefix not in ("random", "none"):
            raise ValueError(f"prefix must be random or none, got {prefix!r}")
        self.causal = getattr(self.backbone, "causal", False)
        if self.causal and prefix == "random":
            raise ValueError("a prefix cannot attend to both sides with backbone.causal=true: method.prefix=none")
        self.prefix = prefix
        self.likelihood = self.backbone.likelihood()
        self.head = self._head(head_ratio)

    def _head(self, ratio: float | str) -> nn.Module:
        """`ratio`: hidden width over that of the backbone, 0 without a hidden layer; auto: 4, or 0 for a vocabulary."""
        dim = self.backbone.dim
        if ratio == "auto":
            ratio = 4.0 if self.likelihood.has_variance else 0.0
        if isinstance(ratio, str) or ratio < 0 or 0 < ratio * dim < 1:
            raise ValueError(f"head_ratio must be auto, 0, or a number with at least one hidden unit, got {ratio!r}")
        if ratio == 0:
            return self.likelihood.head(dim)
        hidden = int(ratio * dim)
        return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), self.likelihood.head(hidden))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        n = self.backbone.num_tokens
        length = torch.ones(len(x), dtype=torch.int64, device=x.device)  # (B,) in 1..N - 1
        if self.prefix == "random":
            length = 1 + (batch.uniform("prefix") * (n - 1)).long()
        is_target = torch.arange(1, n, device=x.device) >= length[:, None]  # (B, N - 1): of the token after each
        target = self.backbone.patchify(x)[:, 1:]
        return {"loss": self.likelihood.loss(self.next(x, length)[:, :-1], target, is_target[:, :, None])}

    def next(self, x: Tensor, length: Tensor) -> Tensor:
        """(B, N, ...): at each token the prediction of the next, given the tokens up to it and the prefix of `length` (B,)."""
        return self.head(self._tokens(x, length))

    def _tokens(self, x: Tensor, length: Tensor) -> Tensor:
        """(B, N, D): each token from those up to it and the prefix."""
        attend = None if self.causal else causal(length, self.backbone.prefix, self.backbone.num_tokens)
        tokens: Tensor = self.backbone.tokens(x, attend=attend)
        return tokens[:, self.backbone.prefix :]

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """The second half of the tokens, each generated from those before it."""
        (x,) = batch.expect_views(1, "weak", "clean")
        first = self.middle(x)
        hidden = torch.arange(self.backbone.num_tokens, device=x.device) >= first[:, None]
        patches = self.backbone.patchify(x)
        values = self.backbone.values
        generated = values.hide(values.complete(patches), hidden[:, :, None])
        for at in range(int(first.min()), generated.shape[1]):
            mode = self.likelihood.mode(self._next_token(self.backbone.unpatchify(generated), first, at))
            mode = mode.to(generated.dtype).view_as(generated[:, at])
            generated[:, at] = torch.where(hidden[:, at, None], mode, generated[:, at])
        mask = hidden[:, :, None].expand_as(generated)
        to_view = self.backbone.unpatchify
        return Reconstruction(x, to_view(generated), to_view(mask), values=values)

    def middle(self, x: Tensor) -> Tensor:
        """(B,): half the number of tokens, at least 1; of a text, of those that are present."""
        count = torch.full((len(x),), self.backbone.num_tokens, device=x.device)
        if isinstance(self.backbone.values, Tokens):
            count = self.backbone.values.present(x).sum(dim=1)
        return (count // 2).clamp(min=1)

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Reconstructions; of texts their first half and two continuations of it, drawn at random."""
        values = self.backbone.values
        if not isinstance(values, Tokens):
            return super().figures(batch)
        x = batch.views[0]
        first = self.middle(x)
        start = values.remove(x, torch.arange(x.shape[1], device=x.device) >= first[:, None])
        samples = {}
        for name in ("first", "second"):
            uniform = batch.uniform(f"{name} continuation", x.shape[1])
            samples[f"{name} continuation"] = continue_tokens(self._next_token, x, first, values, uniform)
        return {"generate": {"source": x, "start": start, **samples}}

    def _next_token(self, x: Tensor, first: Tensor, at: int) -> Tensor:
        """The prediction (B, ...) of token `at` from those before it; a prefix of length `first` (B,) attends to both sides."""
        out: Tensor = self.head(self._tokens(x, first)[:, at - 1 : at])
        return out[:, 0]

    def next_scores(self, x: Tensor) -> Tensor | None:
        values = self.backbone.values
        if not isinstance(values, Tokens):
            return None
        x, count = leave_room(x, values)
        rows = self._tokens(x, count)[torch.arange(len(x), device=x.device), (count - 1).clamp(min=0)]
        scores: Tensor = self.head(rows[:, None])[:, 0]
        return scores.index_fill(1, torch.tensor(sorted({values.pad, *values.special}), device=x.device), -torch.inf)

    def details(self) -> dict[str, str]:
        return {"tokens": f"{self.backbone.num_tokens}, each predicted from those before it"}


def causal(length: Tensor, prefix: int, tokens: int) -> Tensor:
    """Attention mask (B, prefix + N, prefix + N): a patch token attends to those up to it and to the first `length` (B,) of its
    sample; the leading `prefix` tokens (class token) only to the latter. All attend to the leading tokens."""
    at = torch.arange(-prefix, tokens, device=length.device)
    in_prefix = at[None, :] < length[:, None]  # (B, prefix + N): attended to by all tokens
    before = (at[None, :] <= at[:, None]) | (at[None, :] < 0)
    return before[None] | in_prefix[:, None, :]
