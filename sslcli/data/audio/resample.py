"""Conversion between sampling rates by a windowed sinc, of any part of a recording without reading the rest.

Smith, "Digital Audio Resampling", CCRMA, Stanford University (https://ccrma.stanford.edu/~jos/resample/).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

ZEROS = 32  # zero crossings of the sinc on each side
ROLLOFF = 0.945  # of the lower Nyquist frequency: where the response is one half
BETA = 10.0  # of the Kaiser window: what is beyond the Nyquist frequency is weaker by about 100 dB


def resampled_length(length: int, source: int, rate: int) -> int:
    """The number of samples at `rate` of a clip of `length` samples at the rate `source`."""
    return -(-length * rate // source)


@functools.lru_cache(maxsize=8)
def sinc_filter(up: int, down: int) -> np.ndarray:
    """(2 H + 1,) float32: the low-pass filter between the rates `down` and `up`, at `up` times the rate of the
    source."""
    cutoff = ROLLOFF / max(up, down)  # of the Nyquist frequency of the filter's own rate
    half = math.ceil(ZEROS / cutoff)
    at = np.arange(-half, half + 1, dtype=np.float64)
    out = cutoff * np.sinc(cutoff * at) * np.kaiser(2 * half + 1, BETA)
    return (out * (up / out.sum())).astype(np.float32)


def resample(
    read: Callable[[int, int], np.ndarray], length: int, source: int, rate: int, start: int, count: int
) -> np.ndarray:
    """Samples start..start + count - 1, (count,) float32, at `rate`, of a recording of `length` samples at the rate
    `source`; the same numbers for any part. `read(start, count)`: its samples (count,) float32. Beyond its ends
    there is silence."""
    if source == rate:
        return read(start, count)
    from scipy.signal import upfirdn

    common = math.gcd(source, rate)
    up, down = rate // common, source // common
    h = sinc_filter(up, down)
    half = len(h) // 2
    margin = half // up + 1  # samples of the source on each side that one output depends on
    first = start * down // up - margin  # of the source
    last = (start + count - 1) * down // up + margin + 1
    low, high = max(0, first), min(length, last)
    x = np.zeros(last - first, np.float32)
    if high > low:
        x[low - first : high - first] = read(low, high - low)
    # output m is the sum over i of h[m down - i up + half] x[i]; upfirdn gives its multiples of `down` from 0
    lead = start * down - first * up + half
    pad = -lead % down
    y = upfirdn(np.concatenate([np.zeros(pad, np.float32), h]), x, up, down)
    begin = (lead + pad) // down
    out: np.ndarray = y[begin : begin + count].astype(np.float32, copy=False)
    return out
