"""Convert series to the inputs of the encoder in this folder. Requires NumPy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np


class Preprocessor:
    """shape: (C, T) of an input, channels and steps. mean, std: (C, 1), of the training data. scale: sample, where each series is
    standardized by itself, else train. channels: their names, where the training data had names."""

    def __init__(self, folder: str | Path = Path(__file__).parent / "preprocessor"):
        about = json.loads(Path(folder, "preprocessor.json").read_text(encoding="utf-8"))
        self.shape: tuple[int, ...] = tuple(about["shape"])
        self.mean, self.std = (np.reshape(np.float32(about["values"][key]), (-1, 1)) for key in ("mean", "std"))
        self.scale: str = about.get("scale", "train")
        self.channels: list[str] = about.get("channels", [])

    def encode(self, series: Iterable[np.ndarray]) -> np.ndarray:
        """(n, C, T) float32. series: numbers (C, T), or (T,) of one channel, NaN where a value is missing. Shorter ones are padded
        with NaN."""
        return np.stack([self.encode_one(np.asarray(one, np.float32)) for one in series])

    def encode_one(self, series: np.ndarray) -> np.ndarray:
        channels, steps = self.shape
        series = series[None] if series.ndim == 1 else series
        if series.ndim != 2 or len(series) != channels or not 1 <= series.shape[1] <= steps:
            raise ValueError(
                f"expected {channels} channels of at most {steps} steps, got {series.shape}: see `windows`"
            )
        x = np.full((channels, steps), np.nan, np.float32)
        x[:, : series.shape[1]] = series
        x = standardize(x) if self.scale == "sample" else x
        return ((x - self.mean) * (1 / self.std)).astype(np.float32)

    def windows(self, recording: np.ndarray) -> list[np.ndarray]:
        """Consecutive windows (C, T) of a long recording (C, t); a rest of at least half a window is one, too."""
        t, steps = recording.shape[1], self.shape[1]
        starts = list(range(0, max(1, t - steps + 1), steps))
        if t - starts[-1] - steps >= (steps + 1) // 2:
            starts.append(starts[-1] + steps)
        return [recording[:, start : start + steps] for start in starts]


def standardize(x: np.ndarray) -> np.ndarray:
    """(C, T) with zero mean and unit standard deviation in each channel. A constant channel becomes 0."""
    known = ~np.isnan(x)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    mean = np.where(known, x, 0).sum(axis=1, keepdims=True, dtype=np.float64) / count
    centered = x - mean.astype(np.float32)
    variance = np.square(np.where(known, centered, 0)).sum(axis=1, keepdims=True, dtype=np.float64) / count
    std = np.sqrt(variance).astype(np.float32)
    largest = np.abs(np.where(known, x, 0)).max(axis=1, keepdims=True)
    varies = std > 1e-6 * largest
    return np.where(varies, centered / np.where(varies, std, 1), np.where(known, 0, np.nan))
