"""A `Dataset` of labeled images that are in memory."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.images.options import check_size
from sslcli.data.public import urls
from sslcli.data.stats import image_stats
from sslcli.nn.values import Continuous


def labeled_images(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: Iterable[str],
    image_size: int | None,
    fingerprint: str,
    notes: list[str] | None = None,
    dark: bool = False,
) -> Dataset:
    """A `Dataset` of (images, labels) pairs in memory.

    `dark`: the images have a black background. The mean is then 0, so that the zero padding of convolutions is background
    and adds no gray frame (digits, SimSiam, 500 steps, 1 and 10 labels per class: .843 and .946, against .789 and .920 with
    the mean subtracted).
    """
    source = ArraySource(*train)
    mean, std = urls.STATS.get(fingerprint) or image_stats(source)
    if dark:
        mean = (0.0,) * len(mean)
    side = check_size(image_size) or min(train[0].shape[-2:])
    return Dataset(
        name=name,
        modality="image",
        shape=(train[0].shape[1], side, side),
        train=source,
        test=ArraySource(*test) if len(test[0]) else None,
        classes=tuple(classes),
        values=Continuous(mean, std),
        fingerprint=fingerprint,
        notes=notes or [],
    )
