"""Autoregressive prediction of the next patch in raster order, by mean squared error, with causal attention.

Chen et al., "Generative Pretraining from Pixels" (iGPT), ICML 2020. https://proceedings.mlr.press/v119/chen20s.html
El-Nouby et al., "Scalable Pre-training of Large Autoregressive Image Models" (AIM), ICML 2024. https://arxiv.org/abs/2401.08541
B batch, N tokens in raster order, P raw values of a token. A prefix of random length attends bidirectionally and is no target, so
that the network can be evaluated with bidirectional attention (AIM, Sec. 3.2). backbone.patch=1 predicts pixel by pixel.
Ids of a vocabulary are predicted with cross-entropy. Deviations from the papers: squared error of unnormalized values, where iGPT
uses a palette and AIM normalizes each patch (which could not be continued from predictions); a head with one hidden layer. Padding
is no target.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction


class Autoregressive(Method):
    requires = frozenset({"positions", "values", "order"})
    min_batch = 1

    def __init__(self, backbone: nn.Module, head_ratio: float = 4.0):
        super().__init__(backbone)
        if self.backbone.num_tokens < 2:
            raise ValueError(
                "autoregressive prediction needs at least 2 tokens per sample: choose a smaller backbone.patch"
            )
        hidden = int(head_ratio * self.backbone.dim)
        if hidden < 1:
            raise ValueError(f"head_ratio must be above 0, got {head_ratio}")
        self.likelihood = self.backbone.likelihood()
        self.head = nn.Sequential(nn.Linear(self.backbone.dim, hidden), nn.GELU(), self.likelihood.head(hidden))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        n = self.backbone.num_tokens
        length = 1 + (batch.uniform("prefix") * (n - 1)).long()  # (B,) in 1..N - 1
        is_target = torch.arange(1, n, device=x.device) >= length[:, None]  # (B, N - 1): of the token after each
        target = self.backbone.patchify(x)[:, 1:]
        return {"loss": self.likelihood.loss(self.next(x, length)[:, :-1], target, is_target[:, :, None])}

    def next(self, x: Tensor, length: Tensor) -> Tensor:
        """(B, N, ...): at each token the prediction of the next, given the tokens up to it and the prefix of `length` (B,)."""
        attend = causal(length, self.backbone.prefix, self.backbone.num_tokens)
        return self.head(self.backbone.tokens(x, attend=attend)[:, self.backbone.prefix :])

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """The second half of the tokens, each generated from those before it."""
        (x,) = batch.expect_views(1, "weak", "clean")
        first = max(1, self.backbone.num_tokens // 2)
        hidden = (torch.arange(self.backbone.num_tokens, device=x.device) >= first).expand(len(x), -1)
        patches = self.backbone.patchify(x)
        values = self.backbone.values
        generated = values.hide(values.complete(patches), hidden[:, :, None])
        length = torch.full((len(x),), first, device=x.device)
        for at in range(first, generated.shape[1]):
            mode = self.likelihood.mode(self.next(self.backbone.unpatchify(generated), length)[:, at - 1])
            generated[:, at] = mode.to(generated.dtype).view_as(generated[:, at])
        mask = hidden[:, :, None].expand_as(generated)
        to_view = self.backbone.unpatchify
        return Reconstruction(x, to_view(generated), to_view(mask), values=values)

    def details(self) -> dict[str, str]:
        return {"tokens": f"{self.backbone.num_tokens}, in raster order"}


def causal(length: Tensor, prefix: int, tokens: int) -> Tensor:
    """Attention mask (B, prefix + N, prefix + N): a patch token attends to those up to it and to the first `length` (B,) of its
    sample; the leading `prefix` tokens (class token) only to the latter. All attend to the leading tokens."""
    at = torch.arange(-prefix, tokens, device=length.device)
    in_prefix = at[None, :] < length[:, None]  # (B, prefix + N): attended to by all tokens
    before = (at[None, :] <= at[:, None]) | (at[None, :] < 0)
    return before[None] | in_prefix[:, None, :]
