"""Dynamic time warping between many pairs of series at once.

Sakoe & Chiba, "Dynamic programming algorithm optimization for spoken word recognition", IEEE Trans. ASSP 26, 1978: the smallest
sum of squared differences over monotone alignments of two series. Channels are aligned together (DTW_D of Shokoohi-Yekta et al.,
Data Mining and Knowledge Discovery 31, 2017).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 1 << 17  # values of one anti-diagonal of all pairs of a block


def dtw_distances(a: Tensor, a_steps: Tensor, b: Tensor, b_steps: Tensor, radius: int | None = None) -> Tensor:
    """Squared distances (m, n) float32 between series a (m, C, T) and b (n, C, S) without missing values, of `a_steps` (m,) and
    `b_steps` (n,) steps. `radius`: steps by which aligned steps may differ, beside the difference of both lengths; None for any."""
    out = torch.empty(len(a), len(b))
    by_length = b_steps.argsort(stable=True)
    columns = by_length.split(max(1, math.isqrt(BLOCK // max(1, int(b_steps.max())))))
    for cols in columns:
        size = max(1, BLOCK // (len(cols) * int(b_steps[cols].max())))
        for rows in a_steps.argsort(stable=True).split(size):
            out[rows[:, None], cols] = _block(a[rows], a_steps[rows], b[cols], b_steps[cols], radius)
    return out


def _block(a: Tensor, a_steps: Tensor, b: Tensor, b_steps: Tensor, radius: int | None) -> Tensor:
    """All pairs, anti-diagonal by anti-diagonal: cells (i, j) with i + j = k depend on those of k - 1 and k - 2 alone.

    A cell beyond the end of a shorter series is computed too, but no cell within depends on it."""
    height, width = int(a_steps.max()), int(b_steps.max())
    x = a[:, None, :, :height]  # (r, 1, C, height)
    reverse = b[None, :, :, :width].flip(3)  # (1, n, C, width): step j is at width - 1 - j
    ends = a_steps[:, None] + b_steps - 2  # (r, n): the anti-diagonal of the last cell
    finished = set(ends.unique().tolist())
    difference = (a_steps[:, None] - b_steps).abs()
    band = None if radius is None else radius + difference
    widest = height + width if band is None else int(band.max())
    uneven = band is not None and int(band.min()) < widest
    out = torch.empty(len(a), len(b))
    # at i + 1 of each buffer: the cost of the best alignment that ends in (i, k - i); three anti-diagonals take turns
    buffers = [torch.full((len(a), len(b), height + 2), math.inf) for _ in range(3)]
    for k in range(max(finished) + 1):
        here, last, second = (buffers[(k - age) % 3] for age in range(3))
        low = max(0, k - width + 1, (k - widest + 1) // 2)
        high = min(height - 1, k, (k + widest) // 2)
        first = width - 1 - k
        costs = torch.sub(x[..., low : high + 1], reverse[..., first + low : first + high + 1]).square_().sum(dim=2)
        if uneven:
            assert band is not None
            steps = torch.arange(low, high + 1)
            costs.masked_fill_((2 * steps - k).abs() > band[..., None], math.inf)
        if k:
            best = torch.minimum(last[..., low : high + 1], last[..., low + 1 : high + 2])
            costs += torch.minimum(best, second[..., low : high + 1], out=best)
        here[..., low + 1 : high + 2] = costs
        here[..., low] = here[..., high + 2] = math.inf
        if k in finished:
            row, column = torch.nonzero(ends == k, as_tuple=True)
            out[row, column] = here[row, column, a_steps[row]]
    return out
