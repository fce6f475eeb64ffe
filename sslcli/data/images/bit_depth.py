"""Scale images of more than 8 bits per value to bytes, with one value range for all splits of a data set.

`dataset.range` is one of

- `auto`: the nominal range (0..255, 0..1023, 0..4095, 0..16383 or 0..65535 for integers, 0..1 or 0..255 for floats)
  where the training values cover a quarter of it or more; otherwise the 0.1 and 99.9 percentiles of the training values.
  One value in a thousand may be outside, so that hot pixels have no influence, and an isolated extreme value (-9999, 65535)
  is taken as a code for missing.
- `[lo, hi]`: this range.
- `minmax`, `percentile`: the extremes, or the 1st and 99th percentile, of the training values.
- `image_minmax`, `image_percentile`: the same for each image separately; differences in brightness between images are lost.
- `null`: the rule of runs older than `auto`: each image separately, see `to_bytes`.

Values outside the range are clipped. Images of bytes are not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sslcli.console import escape
from sslcli.errors import DataError, RequestError

RULES = ("auto", "minmax", "percentile", "image_minmax", "image_percentile")
DEPTHS = (8, 10, 12, 14, 16)  # bits per value of cameras, microscopes and scanners
TAIL = 0.1  # percent of the values on each side that are ignored
VALUES_PER_IMAGE = 4096  # sampled of one image


class BadValues(DataError):
    """Pixel values that cannot be scaled to bytes; the message is the reason."""


def check_range(value: object) -> None:
    """Raises RequestError unless `dataset.range` is null, one of `RULES` or two increasing numbers."""
    if value is None or value in RULES:
        return
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        low, high = value
        if all(isinstance(v, (int, float)) and np.isfinite(v) for v in value) and low < high:
            return
    raise RequestError(
        f"dataset.range: expected two increasing numbers or one of {', '.join(RULES)}, got {escape(str(value))}",
        "dataset.range=[0,4095]",
    )


@dataclass(frozen=True)
class Values:
    """The extremes of a set of pixel values, and a sample of them."""

    low: float
    high: float
    sample: np.ndarray  # float64
    integer: bool  # whether the dtype is an integer type

    @classmethod
    def of(cls, v: np.ndarray) -> Values | None:
        """The values of one image; None where no value is finite."""
        flat = v.reshape(-1)
        if flat.dtype.kind == "f":
            flat = flat[np.isfinite(flat)]
        if not flat.size:
            return None
        sample = flat
        if flat.size > VALUES_PER_IMAGE:
            sample = flat[np.random.default_rng(0).integers(0, flat.size, VALUES_PER_IMAGE)]
        return cls(float(flat.min()), float(flat.max()), sample.astype(np.float64), flat.dtype.kind != "f")

    @classmethod
    def pooled(cls, parts: Sequence[Values]) -> Values:
        return cls(
            min(p.low for p in parts),
            max(p.high for p in parts),
            np.concatenate([p.sample for p in parts]),
            all(p.integer for p in parts),
        )

    def without_missing_code(self) -> Values:
        """Without the lowest or highest value where it is farther from all others than these are from each other, and
        frequent: a code for missing values."""
        sample = self.sample
        for sign in (1, -1):
            end = float((sign * sample).min()) * sign
            rest = sample[sample != end]
            if rest.size and sample.size - rest.size > TAIL / 100 * sample.size:
                low, high = np.percentile(rest, [TAIL, 100 - TAIL])
                if min(abs(rest.min() - end), abs(rest.max() - end)) > high - low > 0:
                    sample = rest
        if sample is self.sample:
            return self
        return Values(float(sample.min()), float(sample.max()), sample, self.integer)

    def percentiles(self, tail: float) -> tuple[float, float]:
        low, high = np.percentile(self.sample, [tail, 100 - tail])
        return float(low), float(high)


def nominal_range(low: float, high: float, integer: bool) -> tuple[float, float] | None:
    """The range in which values between `low` and `high` are commonly stored, or None."""
    if low < 0:
        return None
    if integer:
        depth = next((2.0**b - 1 for b in DEPTHS if high < 2**b), None)
        return None if depth is None else (0.0, depth)
    return (0.0, 1.0) if high <= 1 else (0.0, 255.0) if 16 < high <= 255 else None


def fit_range(rule: object, values: Values) -> tuple[float, float, str]:
    """(low, high, description) by the rule `auto`, `minmax` or `percentile`."""
    used = values.without_missing_code() if rule == "auto" else values
    excluded = ""
    if used is not values:
        excluded = f"; without the isolated value {values.low if values.low < used.low else values.high:g}"
    values = used
    low, high = values.percentiles(TAIL)
    if rule == "minmax":
        how = "the extremes"
        narrow = high - low < (values.high - values.low) / 10
        if narrow:
            how += f"; 99.8 % are in {low:g}..{high:g}: dataset.range=percentile resolves them better"
        low, high = values.low, values.high
    elif rule == "percentile":
        low, high = values.percentiles(1)
        how = "the 1st and 99th percentile"
    else:
        common = nominal_range(min(low, max(values.low, 0.0)), high, values.integer)
        if common is not None and high - low >= (common[1] - common[0]) / 4:
            low, high = common
            how = "the nominal range"
        else:
            how = f"the {TAIL:g} and {100 - TAIL:g} percentiles"
    if high <= low:
        low, high = values.low, max(values.high, values.low + 1)
        how = "nearly all values are equal"
    low, high = (float(f"{v:.6g}") for v in (low, high))  # the digits that are reported
    return low, high, how + excluded


def to_bytes(values: np.ndarray, value_range: object = None) -> np.ndarray:
    """Scale the values of one image to uint8; non-finite values become its minimum. Raises BadValues.

    `value_range`: two numbers, or `image_minmax` or `image_percentile` (`minmax` and `percentile` in old packs) of this image.
    `auto`, where no sampled image needed a range: 0..65535 for integers. None: as `auto`; floats in 0..1 or 0..255 are
    scaled by that range, and everything else by the extremes of the image.
    """
    v = values.astype(np.float64)
    finite = np.isfinite(v)
    if not finite.any():
        raise BadValues("no finite pixel value")
    low, high = float(v[finite].min()), float(v[finite].max())
    v = np.where(finite, v, low)
    if isinstance(value_range, (list, tuple)):
        low, high = float(value_range[0]), float(value_range[1])
    elif value_range in ("percentile", "image_percentile"):
        low, high = (float(p) for p in np.percentile(v[finite], [1, 99]))
    elif value_range in ("minmax", "image_minmax"):
        pass
    elif values.dtype.kind != "f" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    elif value_range == "auto":
        raise BadValues(f"values {low:g}..{high:g} in a data set of 8-bit images (set dataset.range=[lo,hi])")
    elif values.dtype.kind == "f" and low >= 0 and high <= 255:
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    if high <= low:
        return np.zeros(v.shape, np.uint8)
    return np.rint((v - low).clip(0, high - low) * (255.0 / (high - low))).astype(np.uint8)
