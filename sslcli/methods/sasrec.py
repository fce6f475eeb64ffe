"""SASRec: prediction of the next item from all items before it, with causal attention; cross-entropy over all items.

Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, https://arxiv.org/abs/1808.09781
Klenitskiy & Vasilev, "Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec?", RecSys 2023,
https://arxiv.org/abs/2309.07602: the cross-entropy over all items instead of the paper's binary one with a negative item.
B batch, L items of a view, n targets of the batch, V ids, D width. Each item of a view but the first is a target: its scores are
the products of the output before it with the embeddings of all items. Deviations from the paper: blocks of BERT (post-norm, GELU,
positions and items normalized together); a view is another window of a long history in each epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.masked_language import perplexity, predict_targets
from sslcli.nn.next_item import ItemScores, item_embedding, leave_room


class SASRec(Method):
    requires = frozenset({"positions", "order", "items"})
    min_batch = 1

    def __init__(self, backbone: nn.Module):
        super().__init__(backbone)
        if self.backbone.num_tokens < 2:
            raise ValueError("prediction of the next item requires views of at least 2 items: dataset.max_length=50")
        self.scores = ItemScores(item_embedding(backbone), self.backbone.values)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        present = self.backbone.values.present(x)
        known = present[:, :-1] & present[:, 1:]  # (B, L - 1)
        target = self.scores.place[x[:, 1:][known]]
        terms, _ = predict_targets(self.scores, self.outputs(x)[:, :-1][known], target)
        return {"loss": terms["loss"], "accuracy": terms["accuracy"], "perplexity": perplexity(terms["loss"])}

    def outputs(self, x: Tensor) -> Tensor:
        """(B, L, D): of each item, from the items up to it."""
        attend = None
        if not getattr(self.backbone, "causal", False):
            attend = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        tokens: Tensor = self.backbone.tokens(x, attend=attend)
        return tokens

    def next_scores(self, x: Tensor) -> Tensor:
        x, count = leave_room(x, self.backbone.values)
        rows = self.outputs(x)[torch.arange(len(x), device=x.device), (count - 1).clamp(min=0)]
        return self.scores.of_all(rows)
