"""The preprocessor of images: files, Pillow images or arrays to uint8, and the conversion of other data to its channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sslcli.config import typecheck
from sslcli.data.dataset import ArraySource, Dataset, ListSource, Preprocessor, Source
from sslcli.data.images.encoded import Decoder
from sslcli.data.preprocess import EACH_IMAGE
from sslcli.errors import DataError, RequestError
from sslcli.nn.values import Continuous, Values
from sslcli.nn.values_json import values_from_json

Range = list[float] | str | None
IMAGES = ("image", "pairs")  # modalities whose samples are images


@dataclass(frozen=True)
class ImagePreprocessor(Preprocessor):
    """Decodes images to uint8.

    shape: (C, S, S), of a view. values: mean and standard deviation of each channel, for values in 0..1.
    range: the values of images of more than 8 bits that become 0 and 255, the name of a rule, or None.
    """

    kind: ClassVar[str] = "image"
    shape: tuple[int, ...]
    values: Values
    range: Range = None

    @classmethod
    def of(cls, shape: tuple[int, ...], values: Values, details: Mapping[str, Any]) -> Self:
        return cls(tuple(shape), values, details.get("range"))

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "values": self.values.to_json(), "range": self.range}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        shape, values, limits = content.get("shape"), content.get("values"), content.get("range")
        if not typecheck.matches_type(shape, list[int]) or len(shape or ()) != 3 or not isinstance(values, dict):
            raise ValueError("expected the shape of an image, three integers, and values")
        if not typecheck.matches_type(limits, list[float] | str | None):
            raise ValueError("expected a range of two numbers, a name or null")
        out = cls(tuple(shape or ()), values_from_json(values), limits)
        if not (isinstance(out.values, Continuous) and out.values.fits(out.shape)):
            raise ValueError(f"these values are not those of images {out.shape}")
        return out

    def encode(self, samples: Any) -> list[Any]:
        """Images (H, W) or (H, W, C) uint8 of any sizes.

        `samples`: uint8 (N, C, H, W), (N, H, W, C) or (N, H, W), or a list of paths, Pillow images or uint8 arrays (H, W, C),
        (C, H, W) or (H, W). Pillow images are converted as their files are.
        DataError for another type or number of channels, or a file that cannot be decoded."""
        channels = self.shape[0]
        if isinstance(samples, Tensor | np.ndarray):
            images: list[Any] = list(_as_last_axis(np.asarray(samples), channels))
        else:
            images = [self._load(sample) for sample in samples]
        for image in images:
            self._check(image.shape[2] if image.ndim == 3 else 1, image)
        return images

    def _check(self, channels: int, image: np.ndarray) -> None:
        if channels != self.shape[0] or image.dtype != np.uint8:
            raise DataError(
                f"expected uint8 images of {self.shape[0]} channel(s), got {image.dtype} {tuple(image.shape)}"
            )

    @property
    def decoder(self) -> Decoder:
        """Of files. Large ones are decoded at a fraction of their size, of at least two views (`sources/image_dataset.py`)."""
        limits = None if self.range == EACH_IMAGE else self.range
        return Decoder(self.shape[0], 2 * self.shape[-1], limits)

    def source(self, samples: Any) -> Source:
        """An array is in memory; of a list, each image is decoded when it is asked for."""
        if isinstance(samples, Tensor | np.ndarray):
            images = _as_last_axis(np.asarray(samples), self.shape[0])
            self._check(images.shape[3], images)
            return ArraySource(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))))
        source = ListSource(samples, lambda sample: self.encode([sample])[0])
        if all(isinstance(sample, str | Path) for sample in samples):
            source.names = list(map(str, samples))
        return source

    def _load(self, sample: Any) -> np.ndarray:
        if isinstance(sample, str | Path):
            return np.asarray(self.decoder(str(sample)))
        if isinstance(sample, Image.Image):
            return np.asarray(self.decoder.convert(sample))
        if isinstance(sample, Tensor | np.ndarray):
            return _as_last_axis(np.asarray(sample)[None], self.shape[0])[0]
        raise DataError(f"expected paths, Pillow images or uint8 arrays, got {type(sample).__name__}")

    def decode(self, raw: Tensor) -> list[np.ndarray]:
        """(N, C, H, W) uint8 to arrays (H, W, C) uint8."""
        return [image.permute(1, 2, 0).cpu().numpy() for image in raw]

    def configure(self, node: dict[str, Any], same_data: bool = False) -> dict[str, Any]:
        """The image size and the range of values, where the data set has them and none is given; for the data it was fitted on
        the channels, too."""
        node = {**node}
        if node.get("image_size", 0) is None:
            node["image_size"] = self.shape[-1]
        if same_data and node.get("channels") == "auto":
            node["channels"] = self.shape[0]
        if self.range == EACH_IMAGE:
            return with_range_of_each_image(node)
        if self.range is not None and isinstance(node.get("range"), str):
            node["range"] = self.range
        return node

    def size_hint(self, shape: tuple[int, ...]) -> str | None:
        return f"dataset.image_size={self.shape[-1]}" if len(shape) == 3 and shape[0] == self.shape[0] else None

    def adapt(self, dataset: Dataset, notes: list[str]) -> Dataset:
        """Converted to the channels that the encoder takes, 1 or 3, and normalized as it was trained."""
        from sslcli.data.images.channels import convert_channels

        wanted, name = self.shape[0], dataset.name
        if dataset.modality in IMAGES and {dataset.shape[0], wanted} == {1, 3}:
            how = (
                "gray, repeated to three channels"
                if wanted == 3
                else "in color, reduced to its luminance (ITU-R BT.601)"
            )
            notes.append(f"{name} is {how}, as the encoder takes it")
            dataset = convert_channels(dataset, wanted)
        if dataset.shape != self.shape:
            raise RequestError(
                f"this encoder takes samples of shape {self.shape}; those of {name} have {dataset.shape}",
                self.size_hint(dataset.shape),
            )
        if self.range not in (None, EACH_IMAGE):
            here = dataset.details.get("range")
            if here is not None and here != self.range:
                notes.append(f"warning: values are scaled by the range {here}; the run was trained with {self.range}")
        if dataset.modality in IMAGES:  # captions are not read by an encoder of images
            dataset = replace(dataset, modality="image", preprocessor=None)
        return replace(dataset, values=self.values)

    def with_values(self, values: Values) -> Self:
        return replace(self, values=values)


def with_range_of_each_image(node: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run that recorded no range: the named ranges were those of each image."""
    if "range" not in node or "max_pixels" not in node:
        return node
    names = {"minmax": "image_minmax", "percentile": "image_percentile"}
    return {
        **node,
        "range": names.get(node["range"], node["range"]) if isinstance(node["range"], str) else node["range"],
    }


def _as_last_axis(array: np.ndarray, channels: int) -> np.ndarray:
    """(N, H, W, C) of a batch of images in any of the layouts. DataError for another type."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        raise DataError(
            f"expected uint8 images (N, C, H, W), (N, H, W, C) or (N, H, W), got {array.dtype} {tuple(array.shape)}",
            "scale values to 0..255 and convert them: (x * 255).round().astype('uint8')",
        )
    array = array[..., None] if array.ndim == 3 else array
    if array.shape[-1] != channels and array.shape[1] == channels:
        array = array.transpose(0, 2, 3, 1)
    return array
