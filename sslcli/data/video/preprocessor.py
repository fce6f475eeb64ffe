"""The preprocessor of clips: arrays and pictures to uint8 (C, T, S, S)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from sslcli.config import typecheck
from sslcli.data.dataset import Preprocessor
from sslcli.errors import DataError
from sslcli.nn.values import Continuous, Values
from sslcli.nn.values_json import values_from_json

MOST_FPS = 1_000


@dataclass(frozen=True)
class FramesPreprocessor(Preprocessor):
    """shape: (C, T, H, W) of a view. values: mean and standard deviation of each channel, for values in 0..1.
    fps: the frames per second that are taken of videos, None for all."""

    kind: ClassVar[str] = "frames"
    shape: tuple[int, ...]
    values: Values
    fps: float | None = None

    @classmethod
    def of(cls, shape: tuple[int, ...], values: Values, details: Mapping[str, Any]) -> Self:
        return cls(tuple(shape), values)

    def to_json(self) -> dict[str, Any]:
        fps = {} if self.fps is None else {"fps": self.fps}
        return {"shape": list(self.shape), "values": self.values.to_json(), **fps}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        shape, values, fps = (content.get(key) for key in ("shape", "values", "fps"))
        if not typecheck.matches_type(shape, list[int]) or len(shape or ()) != 4 or not isinstance(values, dict):
            raise ValueError("expected the shape of a clip, four integers, and values")
        if fps is not None and (isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= MOST_FPS):
            raise ValueError(f"expected frames per second up to {MOST_FPS:,}")
        out = cls(tuple(shape or ()), values_from_json(values), fps)
        if not (isinstance(out.values, Continuous) and out.values.fits(out.shape)):
            raise ValueError(f"these values are not those of clips {out.shape}")
        return out

    def encode(self, samples: Any) -> Tensor:
        """Clips (N, C, T, H, W) uint8.

        `samples`: uint8 (N, C, T, H, W), or (N, T, H, W) of one channel, or a list of such clips without N. DataError for
        another type or shape."""
        raw = samples if isinstance(samples, Tensor | np.ndarray) else [np.asarray(sample) for sample in samples]
        x = torch.as_tensor(np.asarray(raw))
        if x.dim() == 4 and self.shape[0] == 1:
            x = x[:, None]
        if x.dtype != torch.uint8 or tuple(x.shape[1:]) != self.shape:
            raise DataError(f"expected uint8 clips of shape {self.shape}, got {x.dtype} {tuple(x.shape[1:])}")
        return x

    def with_values(self, values: Values) -> Self:
        return replace(self, values=values)

    def decode(self, raw: Tensor) -> list[np.ndarray]:
        """(N, C, T, H, W) uint8 to arrays (T, H, W, C) uint8."""
        return [clip.permute(1, 2, 3, 0).cpu().numpy() for clip in raw]
