"""A multilayer perceptron on the flattened sample."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn

from sslcli.backbones.base import Backbone
from sslcli.errors import RequestError
from sslcli.nn.columns import ColumnVector
from sslcli.nn.values import Columns, Values


class MLP(Backbone):
    """`depth` layers of Linear-BatchNorm-ReLU of `width`; `dim` is `width`. Missing values (NaN) are replaced by 0.

    Of rows of a table, each category is embedded in 8 numbers, and missing numbers have an indicator (`ColumnVector`)."""

    accepts: ClassVar = {"continuous": (2, 3), "columns": (1,)}

    def __init__(self, input_shape: tuple[int, ...], width: int = 256, depth: int = 2, values: Values | None = None):
        super().__init__(input_shape, values)
        if min(width, depth) < 1:
            raise RequestError(f"backbone.width={width} and backbone.depth={depth} must be at least 1")
        layers: list[nn.Module] = []
        before = math.prod(input_shape)
        self.embed = ColumnVector(self.values) if isinstance(self.values, Columns) else None
        if self.embed is not None:
            before = self.embed.width
        for _ in range(depth):
            layers += [nn.Linear(before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
            before = width
        self.layers = nn.Sequential(*layers)
        self.dim = width

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1).nan_to_num() if self.embed is None else self.embed(x))
