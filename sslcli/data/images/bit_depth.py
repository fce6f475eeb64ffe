"""Values of more than 8 bits as bytes: which of them become 0 and 255, one range for all parts of a data set.

`dataset.range` is one of

- `auto`: the usual range of such values (0..255, 0..1023, 0..4095, 0..16383 or 0..65535 of whole numbers, 0..1 or 0..255
  of floats) where the training values fill a quarter of it or more; otherwise the 0.1 and 99.9 percentiles of the training
  values. One value in a thousand may lie outside, so that a few hot pixels do not decide, and a value apart from all
  others (-9999, 65535) is taken as the sign for a missing one.
- `[lo, hi]`: these.
- `minmax`, `percentile`: the extremes, or the 1st and 99th percentile, of the training values.
- `image_minmax`, `image_percentile`: the same of each image by itself. What images differ in by brightness is lost.
- `null`: the rule of runs made before there was `auto`: each image by itself, see `to_bytes`.

Values outside the range are clipped. Bytes stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslcli.data.notify import shown
from sslcli.errors import DataError, RequestError

RULES = ("auto", "minmax", "percentile", "image_minmax", "image_percentile")
DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras, microscopes and scanners
TAIL = 0.1  # per cent of the values on each side that do not decide the range
VALUES_PER_IMAGE = 4096  # values of one image that are looked at


class BadValues(DataError):
    """Pixels that cannot become bytes; the message is the reason."""


def check_range(value: Any) -> None:
    """`dataset.range` as given: null, a name or two rising numbers; else a RequestError."""
    if value is None or value in RULES:
        return
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        low, high = value
        if all(isinstance(v, (int, float)) and np.isfinite(v) for v in value) and low < high:
            return
    raise RequestError(
        f"dataset.range={shown(str(value))} is no range of values",
        f"two rising numbers, such as dataset.range=[0,4095], or one of {', '.join(RULES)}",
    )


@dataclass(frozen=True)
class Values:
    """What is known of some values: their extremes, and a sample of them."""

    low: float
    high: float
    some: np.ndarray  # float64
    whole: bool  # of an integer type

    @classmethod
    def of(cls, v: np.ndarray) -> Values | None:
        """Of one image; None where no value is finite."""
        flat = v.reshape(-1)
        if flat.dtype.kind == "f":
            flat = flat[np.isfinite(flat)]
        if not flat.size:
            return None
        chosen = (
            flat
            if flat.size <= VALUES_PER_IMAGE
            else flat[np.random.default_rng(0).integers(0, flat.size, VALUES_PER_IMAGE)]
        )
        return cls(float(flat.min()), float(flat.max()), chosen.astype(np.float64), flat.dtype.kind != "f")

    @classmethod
    def pooled(cls, parts: Sequence[Values]) -> Values:
        return cls(
            min(p.low for p in parts),
            max(p.high for p in parts),
            np.concatenate([p.some for p in parts]),
            all(p.whole for p in parts),
        )

    def without_apart(self) -> Values:
        """Without the lowest or highest value where it is farther from all others than these are from each other, and so
        frequent that it is no accident."""
        some = self.some
        for sign in (1, -1):
            end = float((sign * some).min()) * sign
            rest = some[some != end]
            if rest.size and some.size - rest.size > TAIL / 100 * some.size:
                low, high = np.percentile(rest, [TAIL, 100 - TAIL])
                if min(abs(rest.min() - end), abs(rest.max() - end)) > high - low > 0:
                    some = rest
        return Values(float(some.min()), float(some.max()), some, self.whole) if some is not self.some else self

    def percentiles(self, tail: float) -> tuple[float, float]:
        low, high = np.percentile(self.some, [tail, 100 - tail])
        return float(low), float(high)


def nominal_range(low: float, high: float, whole: bool) -> tuple[float, float] | None:
    """The range that values of this kind are commonly stored in, or None."""
    if low < 0:
        return None
    if whole:
        depth = next((2.0**b - 1 for b in DEPTHS if high < 2**b), None)
        return None if depth is None else (0.0, depth)
    return (0.0, 1.0) if high <= 1 else (0.0, 255.0) if 16 < high <= 255 else None


def fit_range(wish: Any, values: Values) -> tuple[float, float, str]:
    """The range for the wish `auto`, `minmax` or `percentile`, and how it was found."""
    apart = values.without_apart() if wish == "auto" else values
    beside = (
        ""
        if apart is values
        else f"; without {values.low if values.low < apart.low else values.high:g}, which lies apart"
    )
    values = apart
    low, high = values.percentiles(TAIL)
    if wish == "minmax":
        how = "the extremes"
        narrow = high - low < (values.high - values.low) / 10
        if narrow:
            how += f"; 99.8 % lie in {low:g}..{high:g}: dataset.range=percentile keeps them apart"
        low, high = values.low, values.high
    elif wish == "percentile":
        low, high = values.percentiles(1)
        how = "the 1st and 99th percentile"
    else:
        common = nominal_range(min(low, max(values.low, 0.0)), high, values.whole)
        if common is not None and high - low >= (common[1] - common[0]) / 4:
            low, high = common
            how = "the usual range of such values"
        else:
            how = f"the {TAIL:g} and {100 - TAIL:g} percentiles"
    if high <= low:
        low, high = values.low, max(values.high, values.low + 1)
        how = "nearly all are the same"
    low, high = (float(f"{v:.6g}") for v in (low, high))  # the digits that are said
    return low, high, how + beside


def to_bytes(values: np.ndarray, value_range: Any = None) -> np.ndarray:
    """Deep values of one image to uint8; values that are not finite become its lowest. Raises BadValues.

    `value_range`: two numbers; `image_minmax` or `image_percentile` (`minmax` and `percentile` in old packs): of this image.
    `auto` where no range was found, as no image that was looked at needs one: 0..65535 of whole numbers. None: as `auto`,
    and floats in 0..1 or 0..255 are taken as that, everything else by its own extremes.
    """
    v = values.astype(np.float64)
    finite = np.isfinite(v)
    if not finite.any():
        raise BadValues("no finite pixel")
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
        raise BadValues(f"values {low:g}..{high:g} among images of bytes (dataset.range=[lo,hi] says how to read them)")
    elif values.dtype.kind == "f" and low >= 0 and high <= 255:
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    if high <= low:
        return np.zeros(v.shape, np.uint8)
    return np.rint((v - low).clip(0, high - low) * (255.0 / (high - low))).astype(np.uint8)
