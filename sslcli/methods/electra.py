"""ELECTRA: a discriminator tells which tokens a small generator, trained by masked language modeling, has replaced.

Clark et al., "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators", ICLR 2020.
https://arxiv.org/abs/2003.10555
B batch, L tokens, n hidden tokens of the batch, V vocabulary, D width of the discriminator, d of the generator. The generator
shares the embeddings of the discriminator and is not trained to fool it: no gradient passes through the samples. The discriminator
is the backbone, which is evaluated. Deviations from the authors' code: all hidden tokens become the mask token, there 85 % of them;
special tokens are never sampled; the embeddings are as wide as the discriminator, in their smallest model narrower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.bert_layers import Layer, init_bert
from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.masked_language import TokenMasking, metrics, predict_targets
from sslcli.nn.precision import full_precision
from sslcli.nn.sampling import sample_categories
from sslcli.nn.unpadding import TokenLayout


class ELECTRA(Method):
    requires = frozenset({"positions", "values", "vocabulary"})
    min_batch = 1

    def __init__(
        self,
        backbone: nn.Module,
        mask_ratio: float = 0.15,
        whole_word: bool = False,
        generator_ratio: float = 0.25,
        weight: float = 50.0,
    ):
        super().__init__(backbone)
        if weight <= 0:
            raise ValueError(f"weight must be above 0, got {weight}")
        self.weight = weight
        self.masking = TokenMasking(self.backbone.values, mask_ratio, whole_word, masked=1.0, random=0.0)
        self.likelihood = self.backbone.likelihood()
        self.generator = Generator(self.backbone, generator_ratio)
        self.generator_head = self.likelihood.head(self.generator.width)
        self.head = nn.Sequential(
            nn.Linear(self.backbone.dim, self.backbone.dim), nn.GELU(), nn.Linear(self.backbone.dim, 1)
        )
        self.head.apply(init_bert)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        masked, where = self.masking(x, batch.uniform)
        generator, logits = predict_targets(self.generator_head, self._generate(masked, where), x[where])  # L_MLM
        replaced = self.replace(x, where, logits, batch.uniform("sample", x.shape[1])[where])
        present = self.backbone.values.present(x)
        terms = discriminator_terms(self.head(self.backbone.tokens(replaced))[:, :, 0], replaced != x, present)
        loss = generator["loss"] + self.weight * terms["loss"]  # Sec. 2: weight 50
        parts = {"generator": generator["loss"].detach(), "discriminator": terms["loss"].detach()}
        return {"loss": loss, **parts, "discriminator_acc": terms["accuracy"], **metrics(generator)}

    def token_logits(self, x: Tensor, where: Tensor) -> Tensor:
        """Those of the generator."""
        out: Tensor = self.generator_head(self._generate(x, where))
        return out

    def _generate(self, x: Tensor, where: Tensor) -> Tensor:
        """Features (n, d) of the generator at the hidden positions."""
        rows, layout = self.backbone.embed(x)  # (M, D)
        out: Tensor = self.generator(rows, layout)[layout.rows(where)]
        return out

    @torch.no_grad()
    def replace(self, x: Tensor, where: Tensor, logits: Tensor, uniform: Tensor) -> Tensor:
        """x (B, L) with tokens drawn from the softmax of logits (n, V) at the hidden positions; uniform: (n,) in [0, 1)."""
        logits = logits.masked_fill(~self.masking.is_content, -torch.inf)
        return x.masked_scatter(where, sample_categories(logits, uniform))

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        x = batch.views[0]
        masked, where = self.masking(x, batch.uniform)
        drawn = self.replace(x, where, self.token_logits(masked, where), batch.uniform("sample", x.shape[1])[where])
        return {"replaced": {"source": x, "masked": masked, "replaced": drawn}}

    def details(self) -> dict[str, str]:
        return {"generator": f"{len(self.generator.layers)} blocks of width {self.generator.width}"}


class Generator(nn.Module):
    """A narrower transformer on the embeddings of the backbone: rows (M, D) -> (M, d)."""

    def __init__(self, backbone: Any, ratio: float):
        super().__init__()
        if not hasattr(backbone, "embed"):
            raise ValueError("electra shares the embeddings of a backbone of BERT's layout: backbone=bert_tiny")
        if not 0 < ratio <= 1:
            raise ValueError(f"generator_ratio must be above 0 and at most 1, got {ratio}")
        sizes = backbone.sizes
        heads = max(1, round(sizes.heads * ratio))
        self.width = max(1, round(sizes.width * ratio / heads)) * heads
        self.project = nn.Linear(sizes.width, self.width)
        hidden = max(1, round(sizes.hidden * ratio))
        self.layers = nn.ModuleList(Layer(self.width, heads, hidden, sizes.dropout) for _ in range(sizes.depth))
        self.apply(init_bert)

    def forward(self, rows: Tensor, layout: TokenLayout) -> Tensor:
        rows = self.project(rows)
        for layer in self.layers:
            rows = layer(rows, layout)
        return rows


@full_precision
def discriminator_terms(logits: Tensor, replaced: Tensor, present: Tensor) -> dict[str, Tensor]:
    """Binary cross-entropy of logits (B, L) and whether a token was replaced (L_Disc), and the accuracy, over the present tokens of
    the global batch."""
    where = present.to(logits.dtype)
    count = all_reduce_mean(where.sum()).clamp(min=1)
    each = F.binary_cross_entropy_with_logits(logits, replaced.to(logits.dtype), reduction="none")
    correct = ((logits.detach() > 0) == replaced).to(logits.dtype)
    return {"loss": (each * where).sum() / count, "accuracy": (correct * where).sum() / count}
