"""BERT4Rec: prediction of hidden items from those on both sides; the next item is a hidden one after the last.

Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer", CIKM 2019, Sec. 3.
https://arxiv.org/abs/1904.06690
B batch, L items of a view, n hidden items of the batch, V ids, D width. In a share `last` of the samples the last item alone is
hidden, as in use; the authors' code adds such samples to those with random masks. Hidden items are replaced by the mask token
always. Outputs share the embeddings of items after a layer with GELU, with a bias (eq. 7). It needs many more steps than SASRec.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.masked_language import TokenMasking, metrics, predict_targets
from sslcli.nn.next_item import is_last, leave_room


class BERT4Rec(Method):
    requires = frozenset({"positions", "values", "items"})
    min_batch = 1

    def __init__(self, backbone: nn.Module, mask_ratio: float = 0.2, last: float = 0.5):
        super().__init__(backbone)
        if not 0 <= last <= 1:
            raise ValueError(f"last must be from 0 to 1, got {last}")
        if getattr(self.backbone, "causal", False):
            raise ValueError("bert4rec predicts items from both sides: backbone=bert4rec, or backbone.causal=false")
        self.last = last
        self.masking = TokenMasking(self.backbone.values, mask_ratio, masked=1.0, random=0.0)
        self.likelihood = self.backbone.likelihood()
        self.head = self.likelihood.head(self.backbone.dim)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        where = self.hidden(x, batch)
        rows = self.backbone.tokens_at(self.backbone.values.hide(x, where), where)
        terms, _ = predict_targets(self.head, rows, x[where])
        return {"loss": terms["loss"], **metrics(terms)}

    def hidden(self, x: Tensor, batch: Batch) -> Tensor:
        """(B, L) bool: the items to predict."""
        anywhere = self.masking.targets(x, batch.uniform("mask", x.shape[1]))
        alone = batch.uniform("last") < self.last
        return torch.where(alone[:, None], is_last(x, self.backbone.values), anywhere)

    def token_logits(self, x: Tensor, where: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone.tokens_at(x, where))
        return out

    def next_scores(self, x: Tensor) -> Tensor:
        x, count = leave_room(x, self.backbone.values)
        after = torch.arange(x.shape[1], device=x.device) == count[:, None]
        scores = self.token_logits(x.masked_fill(after, self.backbone.values.mask), after)
        return scores.index_fill(1, torch.tensor(self.backbone.values.special, device=x.device), -torch.inf)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        x = batch.views[0]
        where = self.masking.targets(x, batch.uniform("mask", x.shape[1]))
        mode = self.likelihood.mode(self.token_logits(self.backbone.values.hide(x, where), where))
        return Reconstruction(x, x.masked_scatter(where, mode), where, values=self.backbone.values)
