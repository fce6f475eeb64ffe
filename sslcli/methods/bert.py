"""BERT: masked language modeling and next sentence prediction in one forward pass, the sum of both losses.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019, Sec. 3.1 and Appendix
A.2. https://arxiv.org/abs/1810.04805
B batch, L tokens, V vocabulary. Second segments are permuted, then tokens of both segments are hidden. Deviations from the authors'
code: those of `mlm` and `nsp`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.masked_language import TokenMasking, metrics, predict_targets
from sslcli.nn.sentence_pairs import NextSentence, pair_terms, swap_second_segments


class BERT(Method):
    requires = frozenset({"positions", "values", "vocabulary"})
    compares = True

    def __init__(self, backbone: nn.Module, mask_ratio: float = 0.15, whole_word: bool = False):
        super().__init__(backbone)
        if self.backbone.values.separator is None:
            raise ValueError("next sentence prediction needs a vocabulary with a separator")
        self.masking = TokenMasking(self.backbone.values, mask_ratio, whole_word)
        self.likelihood = self.backbone.likelihood()
        self.mlm_head = self.likelihood.head(self.backbone.dim)
        self.nsp_head = NextSentence(self.backbone.dim)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "pair", "clean")
        swap, scores = batch.uniform("swap") < 0.5, batch.uniform("partner")
        pairs = swap_second_segments(x, self.backbone.values, swap, scores)
        corrupted, where = self.masking(pairs.x, batch.uniform)
        first = torch.arange(x.shape[1], device=x.device) == 0  # the class token
        used = where | first
        rows, is_first = self.backbone.tokens_at(corrupted, used), first.expand_as(used)[used]
        mlm, _ = predict_targets(self.mlm_head, rows[~is_first], pairs.x[where])
        nsp = pair_terms(self.nsp_head(rows[is_first]), pairs)
        parts = {"mlm": mlm["loss"].detach(), "nsp": nsp["loss"].detach(), "nsp_acc": nsp["accuracy"]}
        return {"loss": mlm["loss"] + nsp["loss"], **parts, **metrics(mlm)}

    def token_logits(self, x: Tensor, where: Tensor) -> Tensor:
        out: Tensor = self.mlm_head(self.backbone.tokens_at(x, where))
        return out

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """Hidden tokens of the first view; all of them are mask tokens here, as in use."""
        x = batch.views[0]
        where = self.masking.targets(x, batch.uniform("mask", x.shape[1]))
        mode = self.likelihood.mode(self.token_logits(self.backbone.values.hide(x, where), where))
        return Reconstruction(x, x.masked_scatter(where, mode), where, values=self.backbone.values)
