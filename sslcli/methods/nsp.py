"""Next sentence prediction: binary cross-entropy of whether the second segment of a pair follows the first in its document.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019, Sec. 3.1, Task 2.
https://arxiv.org/abs/1810.04805
B batch, L tokens. Half of the second segments are permuted within the global batch. Deviations from the authors' code: theirs draws
a segment of any other document; here a segment, permuted or not, is cut to the length of its partner, so that lengths give no hint.
"""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.sentence_pairs import NextSentence, pair_terms, swap_second_segments


class NSP(Method):
    requires = frozenset({"positions", "vocabulary"})
    compares = True

    def __init__(self, backbone: nn.Module):
        super().__init__(backbone)
        if self.backbone.values.separator is None:
            raise ValueError("next sentence prediction needs a vocabulary with a separator")
        self.head = NextSentence(self.backbone.dim)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "pair", "clean")
        swap, scores = batch.uniform("swap") < 0.5, batch.uniform("partner")
        pairs = swap_second_segments(x, self.backbone.values, swap, scores)
        terms = pair_terms(self.head(self.backbone.tokens(pairs.x)[:, 0]), pairs)
        return {"loss": terms["loss"], "nsp_acc": terms["accuracy"]}
