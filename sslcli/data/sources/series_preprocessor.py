"""The preprocessor of series: numbers to float32, of the channels and the length that the encoder takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from sslcli.config import typecheck
from sslcli.data.dataset import Preprocessor
from sslcli.errors import DataError
from sslcli.nn.values import Continuous, Values, values_from_json


@dataclass(frozen=True)
class SeriesPreprocessor(Preprocessor):
    """Series of one length.

    shape: (C, T), channels and steps. values: mean and standard deviation of each channel."""

    kind: ClassVar[str] = "series"
    shape: tuple[int, ...]
    values: Values

    @classmethod
    def of(cls, shape: tuple[int, ...], values: Values, details: Mapping[str, Any]) -> Self:
        return cls(tuple(shape), values)

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "values": self.values.to_json()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        shape, values = content.get("shape"), content.get("values")
        if not typecheck.matches_type(shape, list[int]) or len(shape or ()) != 2 or not isinstance(values, dict):
            raise ValueError("expected the shape of a series, two integers, and values")
        out = cls(tuple(shape or ()), values_from_json(values))
        if not (isinstance(out.values, Continuous) and out.values.fits(out.shape)):
            raise ValueError(f"these values are not those of series {out.shape}")
        return out

    def encode(self, samples: Any) -> Tensor:
        """(N, C, T) float32 of numbers (N, C, T), or (N, T) for one channel. DataError for another shape."""
        x = torch.as_tensor(np.asarray(samples), dtype=torch.float32)
        x = x[:, None] if x.ndim == 2 else x
        if x.ndim != 3 or tuple(x.shape[1:]) != self.shape:
            raise DataError(f"expected series (N, {self.shape[0]}, {self.shape[1]}), got {tuple(x.shape)}")
        return x

    def decode(self, raw: Tensor) -> list[np.ndarray]:
        """(N, C, T) to arrays (C, T) float32."""
        return [series.cpu().numpy() for series in raw]
