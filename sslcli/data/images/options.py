"""Settings that all data sets of image files share, and the checks of their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sslcli.data.folders.split_folders import check_splits
from sslcli.data.images.bit_depth import check_range
from sslcli.data.subset import check_pretrain_on
from sslcli.errors import RequestError

MAX_SIZE = 224  # default of dataset.max_size, the largest automatic side of a view


def check_size(image_size: int | None, key: str = "image_size") -> int | None:
    """`dataset.image_size`, or a RequestError where it is out of range."""
    if image_size is not None and not 4 <= image_size <= 4096:
        raise RequestError(f"dataset.{key}: expected an integer in 4..4096, got {image_size}", f"dataset.{key}=224")
    return image_size


def check_resident(resident: bool | str) -> None:
    if resident not in ("auto", True, False):
        raise RequestError(f"dataset.resident: expected auto, true or false, got {resident}", "dataset.resident=auto")


def check_cache(cache: int | None, resident: bool | str) -> None:
    """`dataset.cache`, the side of the images in memory. RequestError where it is out of range, or images are not to be there."""
    check_size(cache, "cache")
    if cache is not None and resident is False:
        raise RequestError(
            f"dataset.cache={cache} keeps images in memory, which dataset.resident=false forbids",
            "dataset.resident=auto",
        )


def check_bad_fraction(fraction: float) -> None:
    if not 0 <= fraction <= 1:
        raise RequestError(
            f"dataset.max_bad_fraction: expected a number in 0..1, got {fraction}", "dataset.max_bad_fraction=0.01"
        )


@dataclass(frozen=True)
class ImageOptions:
    """The settings of `image_folder` and `tar`. Raises RequestError for invalid values."""

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
    cache: int | None = None

    def __post_init__(self) -> None:
        check_size(self.image_size)
        check_size(self.max_size, "max_size")
        check_splits(self.splits)
        check_pretrain_on(self.pretrain_on)
        check_range(self.range)
        check_resident(self.resident)
        check_cache(self.cache, self.resident)
        check_bad_fraction(self.max_bad_fraction)
        if self.channels not in ("auto", 1, 3, 4):
            raise RequestError(
                f"dataset.channels: expected auto, 1, 3 or 4, got {self.channels}", "dataset.channels=auto"
            )
        if self.max_pixels < 1:
            raise RequestError(
                f"dataset.max_pixels: expected an integer of at least 1, got {self.max_pixels}",
                "dataset.max_pixels=64000000",
            )
