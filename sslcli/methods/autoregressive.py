"""Autoregressive: patch after patch, what does the next one look like?

Chen et al., "Generative Pretraining from Pixels" (iGPT), ICML 2020. https://proceedings.mlr.press/v119/chen20s.html
El-Nouby et al., "Scalable Pre-training of Large Autoregressive Image Models" (AIM), ICML 2024. https://arxiv.org/abs/2401.08541
B batch, N tokens in raster order, P raw values of a token. A prefix of random length is seen at once and is no target, so that the
network may be measured with attention in both directions (AIM, Sec. 3.2). With backbone.patch=1 it goes pixel by pixel. Deviations:
squared error of the values as they are, where iGPT has a palette and AIM normalises each patch (what was drawn could then not be
drawn on); a head of one hidden layer. Padding of a series (NaN) is no target.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.losses import mse_known


class Autoregressive(Method):
    needs_tokens = True
    min_batch = 1

    def __init__(self, backbone: nn.Module, head_ratio: float = 4.0):
        super().__init__(backbone)
        if self.backbone.num_tokens < 2:
            raise ValueError("a sample of one token has no next one: a smaller backbone.patch is needed")
        hidden = int(head_ratio * self.backbone.dim)
        if hidden < 1:
            raise ValueError("head_ratio is above 0")
        self.head = nn.Sequential(
            nn.Linear(self.backbone.dim, hidden), nn.GELU(), nn.Linear(hidden, self.backbone.patch_dim)
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        n = self.backbone.num_tokens
        length = 1 + (batch.uniform("prefix") * (n - 1)).long()  # (B,) in 1..N - 1
        asked = (
            torch.arange(1, n, device=x.device) >= length[:, None]
        )  # (B, N - 1): of which token the next is a target
        target = self.backbone.patchify(x)[:, 1:]
        return {"loss": mse_known(self.next(x, length)[:, :-1], target, asked[:, :, None])}

    def next(self, x: Tensor, length: Tensor) -> Tensor:
        """(B, N, P): at each token what is said of the next, having seen those up to it and the prefix of `length` (B,)."""
        attend = causal(length, self.backbone.prefix, self.backbone.num_tokens)
        return self.head(self.backbone.tokens(x, attend=attend)[:, self.backbone.prefix :])

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """The second half of the tokens, each drawn from what was drawn before."""
        (x,) = batch.expect_views(1, "weak", "clean")
        first = max(1, self.backbone.num_tokens // 2)
        hidden = (torch.arange(self.backbone.num_tokens, device=x.device) >= first).expand(len(x), -1)
        patches = self.backbone.patchify(x)
        drawn = patches.nan_to_num().masked_fill(hidden[:, :, None], 0.0)
        length = torch.full((len(x),), first, device=x.device)
        for at in range(first, drawn.shape[1]):
            drawn[:, at] = self.next(self.backbone.unpatchify(drawn), length)[:, at - 1].to(drawn.dtype)
        whole = self.backbone.unpatchify
        return Reconstruction(x, whole(drawn), whole(hidden[:, :, None].expand_as(drawn)))

    def details(self) -> dict[str, str]:
        return {"tokens": f"{self.backbone.num_tokens}, in raster order"}


def causal(length: Tensor, prefix: int, tokens: int) -> Tensor:
    """(B, prefix + N, prefix + N) bool: a token looks at those up to it and at the first `length` (B,) of its sample; the leading
    `prefix` tokens (class token) at the latter alone. All look at the leading ones."""
    at = torch.arange(-prefix, tokens, device=length.device)
    early = at[None, :] < length[:, None]  # (B, prefix + N): seen by everyone
    before = (at[None, :] <= at[:, None]) | (at[None, :] < 0)
    return before[None] | early[:, None, :]
