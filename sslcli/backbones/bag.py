"""The mean of the embeddings of tokens, then a multilayer perceptron."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.backbones.base import Backbone
from sslcli.errors import RequestError
from sslcli.nn.values import Tokens, Values


class Bag(Backbone):
    """Joulin et al., "Bag of Tricks for Efficient Text Classification" (fastText), EACL 2017, arXiv:1607.01759, with `depth`
    layers of Linear-BatchNorm-ReLU after the mean; `dim` is `width`. Class token, separators and padding do not count.
    Deviations: no n-grams; the paper has no hidden layer."""

    accepts: ClassVar = {"tokens": (1,)}
    values: Tokens

    def __init__(self, input_shape: tuple[int, ...], width: int = 256, depth: int = 1, values: Values | None = None):
        super().__init__(input_shape, values)
        if min(width, depth) < 1:
            raise RequestError(f"backbone.width={width} and backbone.depth={depth} must be at least 1")
        self.embed = nn.Embedding(self.values.size, width, padding_idx=self.values.pad)
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.dim = width

    @property
    def token_embedding(self) -> nn.Embedding:
        """The embedding of tokens, which decoders share."""
        return self.embed

    def forward(self, x: Tensor) -> Tensor:
        ids = x
        for mark in (self.values.start, self.values.separator):
            ids = ids if mark is None else ids.masked_fill(ids == mark, self.values.pad)
        mean = F.embedding_bag(ids, self.embed.weight, mode="mean", padding_idx=self.values.pad)  # 0 for an empty text
        return self.layers(mean)
