"""The preprocessor of audio: files or waves to clips at one rate, the settings of the spectrogram, and its
normalization."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from sslcli.config import typecheck
from sslcli.data.audio.clips import FULL_SCALE, Decoder, join_clips, to_int16
from sslcli.data.audio.mel import MelSettings
from sslcli.data.dataset import ArraySource, Dataset, Preprocessor, Source
from sslcli.errors import BadSample, DataError, RequestError
from sslcli.nn.values import Continuous, Values

CHANNELS = ("mean", "first")
MAX_FRAMES = 100_000


@dataclass(frozen=True)
class AudioPreprocessor(Preprocessor):
    """Decodes audio to one channel of int16 samples at one rate; a view is a log-mel spectrogram (1, bands, frames).

    mel: the settings of the spectrogram. frames: of a view. channels: `mean` of all, or the `first`. mean, std: of
    each band, of the frames of training clips, before normalization. pads: whether the silence after a clip is padding to
    networks over frames; it was content in earlier versions, whose runs lack the key."""

    kind: ClassVar[str] = "audio"
    mel: MelSettings
    frames: int
    channels: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pads: bool = True

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (1, self.mel.bands, self.frames)

    @property
    def values(self) -> Values:  # type: ignore[override]
        """Normalized by band already."""
        floor = self.mel.log_floor
        silence = tuple((floor - m) / s for m, s in zip(self.mean, self.std, strict=True))
        return Continuous((0.0,), (1.0,), silence=silence if self.pads else ())

    @property
    def decoder(self) -> Decoder:
        return Decoder(self.mel.rate, self.channels)

    def to_json(self) -> dict[str, Any]:
        scale = {"mean": list(self.mean), "std": list(self.std)} | ({"pads": True} if self.pads else {})
        return {"mel": self.mel.to_json(), "frames": self.frames, "channels": self.channels, **scale}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        mel, frames = MelSettings.from_json(content.get("mel")), content.get("frames")
        if not typecheck.matches_type(frames, int) or not 1 <= (frames or 0) <= MAX_FRAMES:
            raise ValueError(f"frames: expected an integer from 1 to {MAX_FRAMES:,}")
        if content.get("channels") not in CHANNELS:
            raise ValueError(f"channels: expected {' or '.join(CHANNELS)}")
        mean, std = content.get("mean"), content.get("std")
        for name, values in (("mean", mean), ("std", std)):
            if not typecheck.matches_type(values, list[float]) or len(values or ()) != mel.bands:
                raise ValueError(f"{name}: expected {mel.bands} numbers, one for each band")
        mean, std = tuple(map(float, mean or ())), tuple(map(float, std or ()))
        if not all(map(math.isfinite, (*mean, *std))) or not all(s > 0 for s in std):
            raise ValueError("mean, std: expected finite numbers, and a positive std")
        pads = content.get("pads", False)
        if not isinstance(pads, bool):
            raise ValueError("pads: expected true or false")
        return cls(mel, int(frames or 0), str(content["channels"]), mean, std, pads)

    def encode(self, samples: Any) -> list[Tensor]:
        """Clips (n,) int16 of any lengths.

        `samples`: a list of paths of audio files, or of waves at the rate of the preprocessor, (n,) or (n,
        channels), int16 or floats in -1..1.
        DataError for anything else, and for a file that cannot be read."""
        if isinstance(samples, str | os.PathLike):
            samples = [samples]
        return [self._encode(sample) for sample in samples]

    def _encode(self, sample: Any) -> Tensor:
        if isinstance(sample, str | os.PathLike):
            try:
                return self.decoder.whole(os.fspath(sample))
            except BadSample as error:
                raise DataError(f"{os.fspath(sample)}: {error.message}") from None
        x = np.asarray(sample)
        if x.ndim not in (1, 2) or not x.size or x.dtype not in (np.int16, np.float32, np.float64):
            raise DataError(
                f"expected waves (n,) or (n, channels), int16 or floats, got {x.dtype} {tuple(x.shape)}",
                f"at {self.mel.rate:,} samples per second, or the paths of files",
            )
        x = x[:, None] if x.ndim == 1 else x
        x = x.astype(np.float64) / (FULL_SCALE if x.dtype == np.int16 else 1)
        if not np.isfinite(x).all():
            raise DataError("expected finite samples")
        return to_int16(x[:, 0] if self.channels == "first" else x.mean(axis=1))

    def source(self, samples: Any) -> Source:
        source = ArraySource(join_clips(self.encode(samples)))
        if isinstance(samples, Sequence) and all(isinstance(sample, str | Path) for sample in samples):
            source.names = list(map(str, samples))
        return source

    def decode(self, raw: Tensor | Sequence[Tensor]) -> list[np.ndarray]:
        """Clips (n,) int16 to waves (n,) float32 in -1..1."""
        return [clip.cpu().numpy().astype(np.float32) / FULL_SCALE for clip in raw]

    def differences(self, other: Preprocessor) -> list[str]:
        if not isinstance(other, AudioPreprocessor):
            return super().differences(other)
        before, now = (
            {**asdict(p.mel), "frames": p.frames, "channels": p.channels, "pads": p.pads} for p in (self, other)
        )
        changed = [f"{key} was {before[key]}, is {now[key]}" for key in before if before[key] != now[key]]
        if not changed and (self.mean, self.std) != (other.mean, other.std):
            changed.append("the mean and standard deviation of the bands differ")
        return changed

    def adapt(self, dataset: Dataset, notes: list[str]) -> Dataset:
        """A data set of clips at the rate of this encoder, with its spectrograms. RequestError for others."""
        own = dataset.preprocessor
        if not isinstance(own, AudioPreprocessor) or own.decoder != self.decoder:
            raise RequestError(
                f"this encoder takes clips of {self.mel.rate:,} samples per second; those of {dataset.name} are others"
            )
        return replace(dataset, shape=self.shape, values=self.values, preprocessor=self)
