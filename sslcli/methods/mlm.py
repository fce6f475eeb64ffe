"""Masked language modeling: cross-entropy of predicting hidden tokens from those on both sides.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019, Sec. 3.1, Task 1.
https://arxiv.org/abs/1810.04805
B batch, L tokens, n hidden tokens of the batch, V vocabulary. Outputs share the embeddings of the tokens. Logits are computed at
the hidden positions only. Deviations from the authors' code: masks are drawn anew in each epoch (as in RoBERTa), theirs ten times
for the whole training; random tokens are never special ones; with `whole_word` the last word may exceed the share.
"""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.masked_language import TokenMasking, metrics, predict_targets


class MLM(Method):
    requires = frozenset({"positions", "values", "vocabulary"})
    min_batch = 1

    def __init__(self, backbone: nn.Module, mask_ratio: float = 0.15, whole_word: bool = False):
        super().__init__(backbone)
        self.masking = TokenMasking(self.backbone.values, mask_ratio, whole_word)
        self.likelihood = self.backbone.likelihood()
        self.head = self.likelihood.head(self.backbone.dim)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        corrupted, where = self.masking(x, batch.uniform)
        terms, _ = predict_targets(self.head, self.backbone.tokens_at(corrupted, where), x[where])
        return {"loss": terms["loss"], **metrics(terms)}

    def token_logits(self, x: Tensor, where: Tensor) -> Tensor:
        out: Tensor = self.head(self.backbone.tokens_at(x, where))
        return out

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """All hidden tokens are mask tokens here, as in use."""
        x = batch.views[0]
        where = self.masking.targets(x, batch.uniform("mask", x.shape[1]))
        mode = self.likelihood.mode(self.token_logits(self.backbone.values.hide(x, where), where))
        return Reconstruction(x, x.masked_scatter(where, mode), where, values=self.backbone.values)
