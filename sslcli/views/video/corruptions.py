"""Corruptions of clips: functions of clips (B, C, T, H, W) in 0..1, a severity 0..4 and a generator for each clip.

Those of images, the same in all frames except for noise, and frames that are frozen or black. See `corruption.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.views.corruption import Corruption, Generators, uniform
from sslcli.views.images import corruptions as images

SHARES = (0.1, 0.2, 0.3, 0.4, 0.6)  # of the frames
PIXELS = (
    "gaussian_noise",
    "impulse_noise",
    "gaussian_blur",
    "motion_blur",
    "fog",
    "brightness",
    "contrast",
    "pixelate",
)
MOVES = ("rotation", "translation")


def of_frames(corruption: Corruption) -> Corruption:
    """A corruption of images with any number of channels on all frames together."""

    def corrupt(x: Tensor, severity: int, generators: Generators) -> Tensor:
        return corruption(x.flatten(1, 2), severity, generators).unflatten(1, x.shape[1:3])

    return corrupt


def frozen_frames(x: Tensor, s: int, generators: Generators) -> Tensor:
    """10 .. 60 % of the frames, never the first, replaced by the last one before them that is not."""
    lost = uniform(x, generators, x.shape[2]) < SHARES[s]
    lost[:, 0] = False
    frames = torch.arange(x.shape[2])
    last = torch.where(lost, 0, frames).cummax(dim=1).values
    return x.gather(2, last[:, None, :, None, None].expand_as(x))


def black_frames(x: Tensor, s: int, generators: Generators) -> Tensor:
    """10 .. 60 % of the frames black."""
    lost = uniform(x, generators, x.shape[2]) < SHARES[s]
    return x.masked_fill(lost[:, None, :, None, None], 0.0)


CORRUPTIONS: dict[str, Corruption] = {
    **{name: of_frames(images.CORRUPTIONS[name]) for name in (*PIXELS, *MOVES)},
    "frozen_frames": frozen_frames,
    "black_frames": black_frames,
}
