"""Generated clips: pictures that move on a black canvas at constant speeds and bounce off its edges.

Srivastava, Mansimov & Salakhutdinov, "Unsupervised Learning of Video Representations using LSTMs", ICML 2015, arXiv:1502.04681
(Moving MNIST): two pictures of 28 x 28 on 64 x 64 pixels, a step of a tenth of the free space in a random direction, the larger
value where pictures overlap.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch.nn import functional as F

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.video.build import build_dataset
from sslcli.errors import RequestError

STEP = 0.1  # of the free space, per frame
SIDE = 28  # of a picture


def moving(
    name: str = "moving",
    of: str = "digits",
    samples: int = 2000,
    test_samples: int = 500,
    frames: int = 20,
    size: int = 64,
    objects: int = 2,
    path: str | None = None,
    download: bool = False,
) -> Dataset:
    """Clips (1, frames, size, size) of `objects` moving pictures each.

    `of`: the pictures: digits (scikit-learn's, enlarged to 28 x 28), mnist, fashion_mnist or kmnist, which are read from `path`, or
    the folder that the environment variable SSLCLI_DATA names.
    Test clips have test pictures. With one object, the class of a clip is that of its picture; otherwise clips have no labels.

    RequestError for values out of range."""
    from sslcli.data.public.digits import digits
    from sslcli.data.public.mnist import fashion_mnist, kmnist, mnist

    sources = {"mnist": mnist, "fashion_mnist": fashion_mnist, "kmnist": kmnist}
    if of != "digits" and of not in sources:
        raise RequestError(f"dataset.of={of}: expected digits, {', '.join(sources)}", "dataset.of=digits")
    for key, value, least in (
        ("samples", samples, 1),
        ("frames", frames, 2),
        ("size", size, 8),
        ("objects", objects, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise RequestError(
                f"dataset.{key}={value}: expected an integer of at least {least}", f"dataset.{key}={least}"
            )
    root = path or os.environ.get("SSLCLI_DATA", ".data")
    pictures = digits() if of == "digits" else sources[of](path=root, download=download)
    side = min(SIDE, size // 2)
    parts = {}
    for split, count in (("train", samples), ("test", test_samples)):
        source = pictures.train if split == "train" else pictures.test
        assert isinstance(source, ArraySource), source
        assert source.labels is not None
        x = F.interpolate(source.x.float(), side, mode="bilinear", antialias=True).clamp(0, 255).round().byte()
        chosen = np.random.Generator(np.random.PCG64([0 if split == "train" else 1, frames, size, objects]))
        which = chosen.integers(len(x), size=(count, objects))
        clips = animate(x[:, 0].numpy(), which, frames, size, chosen)
        labels = source.labels[torch.from_numpy(which[:, 0])] if objects == 1 else None
        parts[split] = ArraySource(torch.from_numpy(clips)[:, None], labels)
    return build_dataset(
        name,
        parts["train"],
        parts["test"],
        pictures.classes if objects == 1 else (),
        fingerprint(samples + test_samples, [parts[split].x.numpy().tobytes() for split in parts]),
        [
            f"{objects} moving pictures of {of} in each clip"
            if objects > 1
            else f"a moving picture of {of} in each clip"
        ],
        path=None if of == "digits" else pictures.path,
    )


def animate(pictures: np.ndarray, which: np.ndarray, frames: int, size: int, draw: np.random.Generator) -> np.ndarray:
    """Clips (n, frames, size, size) uint8 of the pictures (m, side, side) that `which` (n, objects) numbers."""
    n, objects = which.shape
    side = pictures.shape[1]
    out = np.zeros((n, frames, size, size), np.uint8)
    start, angle = draw.uniform(size=(n, objects, 2)), draw.uniform(0, 2 * np.pi, size=(n, objects))
    step = STEP * np.stack([np.sin(angle), np.cos(angle)], axis=2)
    corners = np.rint(positions(start, step, frames) * (size - side)).astype(np.int64)  # (n, objects, frames, 2)
    for i in range(n):
        for o in range(objects):
            picture = pictures[which[i, o]]
            for t, (top, left) in enumerate(corners[i, o].tolist()):
                part = out[i, t, top : top + side, left : left + side]
                np.maximum(part, picture, out=part)
    return out


def positions(start: np.ndarray, step: np.ndarray, frames: int) -> np.ndarray:
    """(..., frames, 2) in 0..1: from `start` (..., 2) at `step` (..., 2) a frame, reflected at 0 and 1."""
    straight = start[..., None, :] + step[..., None, :] * np.arange(frames)[:, None]
    folded: np.ndarray = np.abs((straight + 1) % 2 - 1)
    return folded
