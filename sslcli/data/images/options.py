"""Settings that all data sets of image files share, and the checks of their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sslcli.data.folders.split_folders import check_splits
from sslcli.data.images.bit_depth import check_range
from sslcli.data.subset import check_pretrain_on
from sslcli.errors import RequestError

MAX_SIZE = 224  # side of a view of a user's images, where neither it nor another limit is asked for


def check_size(image_size: int | None, key: str = "image_size") -> int | None:
    """`dataset.image_size` as given, or a RequestError."""
    if image_size is not None and not 4 <= image_size <= 4096:
        raise RequestError(f"dataset.{key} is {image_size}, but must lie in 4..4096", f"dataset.{key}=224")
    return image_size


@dataclass(frozen=True)
class ImageOptions:
    """The settings of `image_folder`, whatever holds the images. RequestError for impossible ones."""

    name: str
    image_size: int | None
    channels: int | str
    label: str | None
    holdout: float | str
    split_seed: int
    resident: bool | str
    range: Any
    max_bad_fraction: float
    max_pixels: int
    splits: Any
    pretrain_on: str
    max_size: int = MAX_SIZE

    def __post_init__(self) -> None:
        check_size(self.image_size)
        check_size(self.max_size, "max_size")
        check_splits(self.splits)
        check_pretrain_on(self.pretrain_on)
        _check_values(self.channels, self.resident, self.max_bad_fraction, self.max_pixels, self.range)


def _check_values(channels: Any, resident: Any, max_bad_fraction: float, max_pixels: int, value_range: Any) -> None:
    if channels not in ("auto", 1, 3, 4):
        raise RequestError(f"dataset.channels is {channels}, but must be auto, 1, 3 or 4", "dataset.channels=auto")
    if resident not in ("auto", True, False):
        raise RequestError(f"dataset.resident is {resident}, but must be auto, true or false", "dataset.resident=auto")
    if not 0 <= max_bad_fraction <= 1:
        raise RequestError(f"dataset.max_bad_fraction is {max_bad_fraction}, but must lie in 0..1")
    if max_pixels < 1:
        raise RequestError(f"dataset.max_pixels is {max_pixels}, but must be at least 1", "dataset.max_pixels=64000000")
    check_range(value_range)
