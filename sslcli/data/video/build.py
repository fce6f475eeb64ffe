"""Data sets of clips in memory."""

from __future__ import annotations

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.stats import image_stats
from sslcli.data.video.preprocessor import FramesPreprocessor
from sslcli.nn.values import Continuous

DARK = 0.2  # a mean below which the background is taken for black


def build_dataset(
    name: str,
    train: ArraySource,
    test: ArraySource | None,
    classes: tuple[str, ...],
    print_of_contents: str,
    notes: list[str],
    fps: float | None = None,
    path: str | None = None,
    split: str = "",
) -> Dataset:
    """Clips (n, C, T, H, W) uint8, normalized by statistics of the training clips; those on a dark background are divided by the
    standard deviation alone, so that black is 0. `fps`: the frames per second that were chosen of videos."""
    mean, std = image_stats(train)
    if max(mean) < DARK:
        mean = tuple(0.0 for _ in mean)
    shape = tuple(train.x.shape[1:])
    values = Continuous(mean, std)
    return Dataset(
        name,
        modality="frames",
        shape=shape,
        train=train,
        test=test,
        classes=classes,
        values=values,
        preprocessor=FramesPreprocessor(shape, values, fps),
        fingerprint=print_of_contents,
        split=split,
        path=path,
        notes=notes,
    )
