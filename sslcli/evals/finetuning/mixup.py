"""Mixup and CutMix: convex combinations or patches of two samples, with mixed labels.

mixup: Zhang, Cisse, Dauphin & Lopez-Paz, ICLR 2018, arXiv:1710.09412, Sec. 2: x = l x_i + (1 - l) x_j, y likewise, with
l from Beta(alpha, alpha). CutMix: Yun et al., ICCV 2019, arXiv:1905.04899, Sec. 3.1: a box of x_j pasted into x_i,
whose sides are sqrt(1 - l) of the image's; labels by the area that is left after the box is cut off at the border.
One l a batch, and the partner of a sample is the one before it in the batch, as in torchvision. Of a series CutMix
pastes a stretch of 1 - l of its length.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.rng import derive


def mix_batch(x: Tensor, y: Tensor, classes: int, mixup: float, cutmix: float, seed: int) -> tuple[Tensor, Tensor]:
    """A batch (B, ...) and its targets (B, classes), mixed or as they are. `seed` decides all that is drawn.

    `mixup`, `cutmix`: their alpha, 0 is off; where both are on, each batch has one or the other with even chances.
    """
    targets = F.one_hot(y, classes).to(torch.float32)
    if mixup == 0 and cutmix == 0:
        return x, targets
    draws = np.random.default_rng(derive(seed, "mix"))
    cut = cutmix > 0 and (mixup == 0 or draws.random() < 0.5)
    alpha = cutmix if cut else mixup
    share = float(draws.beta(alpha, alpha))
    if not cut:
        return blend(x, share), blend(targets, share)
    size = x.shape[2:]
    box = cut_box(size, share, draws.random(len(size)).tolist())
    x, share = paste(x, box)
    return x, blend(targets, share)


def blend(x: Tensor, share: float) -> Tensor:
    """`share` of each row and the rest of the row before it."""
    return x.mul(share).add_(x.roll(1, 0), alpha=1 - share)


def cut_box(size: tuple[int, ...], share: float, center: list[float]) -> tuple[slice, ...]:
    """A box of 1 - `share` of the volume around `center` (each in 0..1), cut off at the border: a slice an axis."""
    half = 0.5 * (1 - share) ** (1 / len(size))
    box = []
    for side, place in zip(size, center, strict=True):
        middle, reach = int(place * side), int(half * side)
        box.append(slice(max(middle - reach, 0), min(middle + reach, side)))
    return tuple(box)


def paste(x: Tensor, box: tuple[slice, ...]) -> tuple[Tensor, float]:
    """The batch with the box of each row's predecessor, and the share of the own that is left."""
    out = x.clone()
    where = (slice(None), slice(None), *box)
    out[where] = x.roll(1, 0)[where]
    cut = np.prod([s.stop - s.start for s in box]) / np.prod(x.shape[2:])
    return out, 1.0 - float(cut)
