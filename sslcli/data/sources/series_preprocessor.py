"""The preprocessor of series: numbers to float32, of the channels and the length that the encoder takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from sslcli.config import typecheck
from sslcli.console import escape
from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.recordings.times import StepRange
from sslcli.data.timeline import standardize_samples
from sslcli.errors import DataError, RequestError, listing
from sslcli.nn.values import Continuous, Values
from sslcli.nn.values_json import values_from_json

COLUMNS = ("id", "time")


@dataclass(frozen=True)
class SeriesPreprocessor(Preprocessor):
    """Series of one length.

    shape: (C, T), channels and steps. values: mean and standard deviation of each channel. scale: sample, where each sample is
    standardized by itself, else train. channels: their names, where the training data were a table. step: the time between two
    steps of the training data, where they have times. id, time: the columns of recordings and of times of a long table, where
    dataset.id and dataset.time named them."""

    kind: ClassVar[str] = "series"
    shape: tuple[int, ...]
    values: Values
    scale: str = "train"
    channels: tuple[str, ...] = ()
    step: StepRange | None = None
    id: str = ""
    time: str = ""

    @classmethod
    def of(cls, shape: tuple[int, ...], values: Values, details: Mapping[str, Any]) -> Self:
        scale = "sample" if details.get("scale") == "sample" else "train"
        step = StepRange.from_json(details.get("step"))
        columns = (str(details.get(key, "")) for key in COLUMNS)
        return cls(tuple(shape), values, scale, tuple(details.get("channels", ())), step, *columns)

    def to_json(self) -> dict[str, Any]:
        own: dict[str, Any] = {"scale": self.scale} if self.scale != "train" else {}
        own |= {"channels": list(self.channels)} if self.channels else {}
        own |= {"step": self.step.to_json()} if self.step is not None else {}
        return {"shape": list(self.shape), "values": self.values.to_json(), **own, **self._columns()}

    def _columns(self) -> dict[str, str]:
        return {key: name for key in COLUMNS if (name := getattr(self, key))}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        shape, values = content.get("shape"), content.get("values")
        if not typecheck.matches_type(shape, list[int]) or len(shape or ()) != 2 or not isinstance(values, dict):
            raise ValueError("expected the shape of a series, two integers, and values")
        scale = content.get("scale", "train")
        if scale not in ("train", "sample"):
            raise ValueError("expected the scale train or sample")
        channels = content.get("channels", [])
        if not typecheck.matches_type(channels, list[str]) or len(channels) not in (0, (shape or [0])[0]):
            raise ValueError("expected the names of all channels")
        out = cls(
            tuple(shape or ()),
            values_from_json(values),
            scale,
            tuple(channels),
            StepRange.from_json(content.get("step")),
            *(str(content.get(key, "")) for key in COLUMNS),
        )
        if not (isinstance(out.values, Continuous) and out.values.fits(out.shape)):
            raise ValueError(f"these values are not those of series {out.shape}")
        return out

    def encode(self, samples: Any) -> Tensor:
        """(N, C, T) float32 of numbers (N, C, T), or (N, T) for one channel. DataError for another shape."""
        x = torch.as_tensor(np.asarray(samples), dtype=torch.float32)
        x = x[:, None] if x.ndim == 2 else x
        if x.ndim != 3 or tuple(x.shape[1:]) != self.shape:
            raise DataError(f"expected series (N, {self.shape[0]}, {self.shape[1]}), got {tuple(x.shape)}")
        return standardize_samples(x) if self.scale == "sample" else x

    def adapt(self, dataset: Dataset, notes: list[str]) -> Dataset:
        given = "sample" if dataset.details.get("scale") == "sample" else "train"
        if given != self.scale:
            raise RequestError(
                f"this encoder takes series with dataset.scale={self.scale}; those of {dataset.name} have {given}",
                f"dataset.scale={self.scale}",
            )
        names = tuple(dataset.details.get("channels", ()))
        if names and self.channels and names != self.channels:
            raise RequestError(
                f"this encoder takes the channels {listing(map(escape, self.channels), 8)}; those of {dataset.name} are "
                f"{listing(map(escape, names), 8)}",
                f"dataset.channels=[{','.join(self.channels)}]",
            )
        step = StepRange.from_json(dataset.details.get("step"))
        if step is not None and self.step is not None and step.differs(self.step):
            text = f"warning: time between two steps: {step}; that of the data which the encoder was trained on: {self.step}"
            notes += [f"{text}; resample the recordings"] if not any(note.startswith(text) for note in notes) else []
        own = {key: value for key, value in dataset.details.items() if key not in ("step", *COLUMNS)}
        own |= {"step": self.step.to_json()} if self.step is not None else {}  # none in runs of earlier versions
        own |= self._columns()  # neither
        return super().adapt(replace(dataset, details=own), notes)

    def decode(self, raw: Tensor) -> list[np.ndarray]:
        """(N, C, T) to arrays (C, T) float32."""
        return [series.cpu().numpy() for series in raw]
