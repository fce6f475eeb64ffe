"""Device functions of the Triton kernels of image views (triton_kernels.py): filters, and steps on the colors of pixels.

Import this file only where triton is installed. The arithmetic is that of resample.py and color.py."""

from __future__ import annotations

import triton
import triton.language as tl

# codes of steps, in the order of native.COLOR_CODES
BRIGHTNESS = tl.constexpr(0)
CONTRAST = tl.constexpr(1)
SATURATION = tl.constexpr(2)
HUE = tl.constexpr(3)
GRAYSCALE = tl.constexpr(4)
SOLARIZE = tl.constexpr(5)
INTENSITY = tl.constexpr(6)

LUMA_R, LUMA_G, LUMA_B = tl.constexpr(0.2989), tl.constexpr(0.587), tl.constexpr(0.114)
THIRD, TWO_THIRDS = tl.constexpr(1 / 3), tl.constexpr(2 / 3)
EXACT_32, EXACT_64 = tl.constexpr(2.0**23), tl.constexpr(2.0**52)  # from here on all numbers of the type are integers


@triton.jit
def rint(x, EXACT: tl.constexpr):
    """Round to the nearest integer, ties to even. `EXACT`: `EXACT_32` for float32, `EXACT_64` for float64."""
    big = tl.where(x < 0, -EXACT, EXACT).to(x.dtype)
    return tl.where(tl.abs(x) < EXACT, (x + big) - big, x)


@triton.jit
def unit(x):
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def luma(r, g, b):
    return r * LUMA_R + g * LUMA_G + b * LUMA_B


@triton.jit
def mirrored(i, size):
    """Reflect positions outside 0..size-1 into the axis without repeating the edge, from any distance."""
    period = tl.maximum(2 * size - 2, 1)
    i = tl.abs(i) % period
    return tl.where(i < size, i, period - i)


@triton.jit
def tap_count(length, out, RADIUS: tl.constexpr):
    """Number of pixels under the filter of an output pixel, for a region of `length` pixels resized to `out`."""
    return tl.ceil(2 * RADIUS * tl.maximum(length / out, 1.0)).to(tl.int32)


@triton.jit
def bell(pixel, center, widen, end, RADIUS: tl.constexpr):
    """The filter at a pixel, rounded to multiples of 2**-30, times 2**30; 0 from `end` on."""
    d = tl.abs(pixel + 0.5 - center) / widen
    if RADIUS == 1:
        weight = tl.maximum(1 - d, 0.0)
    else:
        near = (d * 1.5 - 2.5) * d * d + 1
        far = ((d * -0.5 + 2.5) * d - 4) * d + 2
        weight = tl.where(d < 1, near, tl.where(d < 2, far, 0.0))
    return rint(tl.where(pixel < end, weight, 0.0) * 1073741824.0, EXACT_64)


@triton.jit
def load(source, at, plane, COLOR: tl.constexpr):
    """The values at an element: three channels `plane` apart, or one value three times."""
    r = tl.load(source + at).to(tl.float32)
    g = r
    b = r
    if COLOR:
        g = tl.load(source + plane + at).to(tl.float32)
        b = tl.load(source + 2 * plane + at).to(tl.float32)
    return r, g, b


@triton.jit
def wave(hue):
    return unit(tl.abs((hue - tl.floor(hue)) * 6.0 - 3.0) - 1.0)


@triton.jit
def jitter_hue(r, g, b, turn):
    """`color.jitter_hue`; `turn` has one full turn more, so that the hue is positive."""
    high = tl.maximum(tl.maximum(r, g), b)
    low = tl.minimum(tl.minimum(r, g), b)
    across = high - low
    sixth = tl.where(across == 0, 1.0, across * 6.0)
    red = high == r
    green = high == g
    apart = tl.where(red, g - b, tl.where(green, b - r, r - g))
    place = tl.where(red, 0.0, tl.where(green, THIRD, TWO_THIRDS))
    hue = (tl.math.div_rn(apart, sixth) + place) + turn
    return wave(hue) * across + low, wave(hue + TWO_THIRDS) * across + low, wave(hue + THIRD) * across + low


@triton.jit
def apply_step(code, value, mean, r, g, b, COLOR: tl.constexpr):
    """One step of the colors. `mean`: of the view, for the contrast."""
    if code == BRIGHTNESS:
        r, g, b = unit(r * value), unit(g * value), unit(b * value)
    elif code == CONTRAST:
        gray = mean * (1.0 - value)
        r, g, b = unit(r * value + gray), unit(g * value + gray), unit(b * value + gray)
    elif code == SOLARIZE:
        r, g, b = tl.where(r >= value, 1.0 - r, r), tl.where(g >= value, 1.0 - g, g), tl.where(b >= value, 1.0 - b, b)
    elif code == INTENSITY:
        r, g, b = r * value, g * value, b * value
    if COLOR:
        if code == SATURATION:
            own = luma(r, g, b) * (1.0 - value)
            r, g, b = unit(r * value + own), unit(g * value + own), unit(b * value + own)
        elif code == HUE:
            r, g, b = jitter_hue(r, g, b, value)
        elif code == GRAYSCALE:
            gray = luma(r, g, b)
            r, g, b = gray, gray, gray
    return r, g, b


@triton.jit
def brightness_sum(r, g, b, valid, COLOR: tl.constexpr):
    """Sum of the lumas of a tile (of the values, with other than 3 channels) in multiples of 2**-16, int64."""
    x = luma(r, g, b) if COLOR else r
    return tl.sum(tl.where(valid, rint(x * 65536.0, EXACT_32), 0.0).to(tl.int64), 0)
