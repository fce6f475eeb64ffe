"""Mean and standard deviation of the bands of log-mel spectrograms."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.data.audio.clips import FULL_SCALE, Clip
from sslcli.data.audio.mel import LogMel, MelSettings
from sslcli.data.dataset import Source
from sslcli.errors import BadSample
from sslcli.rng import derive, order

CLIPS = 2048  # more are sampled
SECONDS = 30  # of the middle of a longer clip
LEAST_STD = 1e-3


def band_statistics(source: Source, settings: MelSettings) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and the standard deviation of each band over the frames of training clips, of a fixed sample of at
    most 2,048. Clips are not padded: silence that is added to short ones does not count."""
    log_mel = LogMel(settings)
    count = 0
    total, squares = torch.zeros(2, settings.bands, dtype=torch.float64)
    for i in order(derive(0, "statistics"), 0, len(source))[:CLIPS].sort().values.tolist():
        if i in source.bad:
            continue
        try:
            x = log_mel(wave(middle(source.read(i), SECONDS * settings.rate))[None])[0].double()
        except BadSample:
            continue  # counted when samples are loaded
        count += x.shape[1]
        total += x.sum(dim=1)
        squares += x.square().sum(dim=1)
    mean = total / max(1, count)
    std = (squares / max(1, count) - mean.square()).clamp(min=0).sqrt().clamp(min=LEAST_STD)
    return tuple(mean.tolist()), tuple(std.tolist())


def middle(clip: Clip, most: int) -> Tensor:
    """At most `most` samples of the middle of a clip, int16."""
    start = max(0, len(clip) - most) // 2
    return clip[start : start + most]


def wave(clip: Tensor) -> Tensor:
    """int16 to float32 in -1..1."""
    return clip.to(torch.float32) / FULL_SCALE
