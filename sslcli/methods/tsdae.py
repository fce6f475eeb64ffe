"""TSDAE: a text is decoded from one vector, that of the same text with most of its tokens deleted.

Wang, Reimers & Gurevych, "TSDAE: Using Transformer-based Sequential Denoising Auto-Encoder for Unsupervised Sentence Embedding
Learning", Findings of EMNLP 2021, Sec. 3. https://arxiv.org/abs/2104.06979
B batch, L tokens, D width. The decoder predicts each token from those before it and the vector alone, its only key and value of
cross-attention (eqs. 2 and 3): with one key the weights of attention are 1, so queries and keys have no effect and are left out.
Deviations from the authors' code: a small decoder of its own that shares the embeddings of tokens, theirs has the size and all
weights of the encoder; tokens are deleted, there words.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.bert_layers import PredictionHead
from sslcli.nn.masked_language import perplexity, token_terms
from sslcli.nn.stats import spread
from sslcli.nn.text_decoder import TextDecoder, delete_tokens
from sslcli.nn.unpadding import select_rows


class TSDAE(Method):
    requires = frozenset({"vocabulary", "order"})

    def __init__(
        self, backbone: nn.Module, delete: float = 0.6, decoder_depth: int = 1, heads: int = 4, dropout: float = 0.1
    ):
        super().__init__(backbone)
        if not 0 < delete < 1:
            raise ValueError(f"delete must be between 0 and 1, got {delete}")
        if not hasattr(self.backbone, "token_embedding"):
            raise ValueError("the decoder of tsdae shares the backbone's embedding of tokens: backbone=bert_tiny")
        self.delete = delete
        length, embedding = self.backbone.input_shape[0], self.backbone.token_embedding
        self.decoder = TextDecoder(embedding, self.backbone.dim, length, decoder_depth, heads, dropout)
        self.head = PredictionHead(embedding.embedding_dim, embedding, self.backbone.values.size)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        h = self.backbone(self.corrupt(x, batch))  # (B, D)
        where = self.backbone.values.present(x)[:, 1:]  # of the token after each
        terms = token_terms(
            self.head(select_rows(self.decoder(x[:, :-1], h, self.backbone.values), where)), x[:, 1:][where]
        )
        return {
            "loss": terms["loss"],
            "token_acc": terms["accuracy"],
            "perplexity": perplexity(terms["loss"]),
            "spread": spread(h),
        }

    def corrupt(self, x: Tensor, batch: Batch) -> Tensor:
        """x (B, L) without a random share of its content tokens."""
        return delete_tokens(x, batch.uniform("delete", x.shape[1]), self.delete, self.backbone.values)

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Texts, what is left of them, and the most likely texts by their vectors, token by token."""
        x, values = batch.views[0], self.backbone.values
        given = self.corrupt(x, batch)
        h, out = self.backbone(given), x.clone()
        out[:, 1:] = values.pad
        for at in range(1, x.shape[1]):
            logits = self.head(self.decoder(out[:, :at], h, values)[:, -1])
            token = logits.index_fill(1, torch.tensor(values.pad, device=x.device), -torch.inf).argmax(dim=1)
            ended = (out[:, 1:at] == values.separator).any(dim=1) | (out[:, 0] == values.pad)
            out[:, at] = token.masked_fill(ended, values.pad)
        return {"decoded": {"source": x, "given": given, "decoded": out}}
