"""Triton kernels of image views on a GPU. triton_views.py launches them; import this file only where triton is installed.

The arithmetic is that of the tensor code (resample.py, color.py), in the same order and precision: sums over pixels are sums of
integers, divisions are rounded correctly, and no product is fused with a sum (`enable_fp_fusion=False` at the launch). So the views
have the same bits.

Shapes: B samples, C channels, (H, W) the size of a sample, (h, w) that of a view. With 3 channels an element of a tile is a pixel,
held as three values; with another number it is one value of one channel, and the tiles run over the C * h * w values.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sslcli.views.images.triton_functions import (
    CONTRAST,
    EXACT_32,
    EXACT_64,
    apply_step,
    bell,
    brightness_sum,
    load,
    mirrored,
    rint,
    tap_count,
    unit,
)

# what a launch reads
WHOLE = tl.constexpr(0)  # uint8 samples, as they are
CROP = tl.constexpr(1)  # uint8 samples, resampled
FLOAT = tl.constexpr(2)  # float32 views
BLUR = tl.constexpr(3)  # float32 views whose rows are blurred; the columns are blurred as they are read

LEVEL = tl.constexpr(1 / 255)
WEIGHT = tl.constexpr(2.0**12)  # the sum of the weights of a filter
MIDDLE = tl.constexpr(2.0**-9)  # resample.py: from the product with the columns to the one with the rows
RESAMPLED = tl.constexpr(2.0**-15 / 255)
BLUR_ROWS, BLUR_COLUMNS = tl.constexpr(2.0**-12), tl.constexpr(2.0**-24)

# integer arguments: one compilation for all sizes, so that what was compared with the tensor code is what runs
VIEWS_SIZES = (
    *("channels", "height", "width", "out_height", "out_width"),
    *("taps", "tiles", "codes", "count", "steps"),
)


# ------------------------------------------------------------------------------------------------ weights of a crop


@triton.jit(do_not_specialize=("out_height", "out_width", "taps"))
def weights_kernel(
    region, first, weight, out_height, out_width, taps, RADIUS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """`resample.weights` of both axes, the h rows before the w columns. Program (sample, block of output rows and columns).

    region: (B, 4) float64, top, left, height, width. first: (B, h + w + 2) int32, the first pixel that an output row or column
    reads, and at the end how many a row and a column read. weight: (B, h + w, taps) float32."""
    sample = tl.program_id(0).to(tl.int64)
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = tl.minimum(index, out_height + out_width - 1)
    is_row = at < out_height
    out = tl.where(is_row, out_height, out_width)
    start = tl.load(region + 4 * sample + tl.where(is_row, 0, 1))
    length = tl.load(region + 4 * sample + tl.where(is_row, 2, 3))
    rows = tap_count(tl.load(region + 4 * sample + 2), out_height, RADIUS)
    columns = tap_count(tl.load(region + 4 * sample + 3), out_width, RADIUS)
    count = tl.maximum(rows, columns)

    scale = length / out
    widen = tl.maximum(scale, 1.0)
    end = start + length
    center = (tl.where(is_row, at, at - out_height).to(tl.float64) + 0.5) * scale + start
    low = tl.maximum(tl.floor(center - RADIUS * widen + 0.5), start)

    total = tl.zeros([BLOCK], tl.float64)
    for t in range(count):
        total += bell(low + t, center, widen, end, RADIUS)
    rest = tl.zeros([BLOCK], tl.float64) + WEIGHT
    largest = tl.zeros([BLOCK], tl.float64)
    which = tl.zeros([BLOCK], tl.int32)
    for t in range(count):
        rounded = rint(bell(low + t, center, widen, end, RADIUS) / total * WEIGHT, EXACT_64)
        rest -= rounded
        which = tl.where(rounded > largest, t, which)
        largest = tl.maximum(rounded, largest)

    lines = out_height + out_width
    first += sample * (lines + 2)
    weight += sample * lines * taps
    tl.store(first + at, low.to(tl.int32), mask=index == at)
    if tl.program_id(1) == 0:
        tl.store(first + lines, rows)
        tl.store(first + lines + 1, columns)
    for t in range(count):
        rounded = rint(bell(low + t, center, widen, end, RADIUS) / total * WEIGHT, EXACT_64)
        rounded += tl.where(which == t, rest, 0.0)  # so that the sum is exact
        tl.store(weight + (at * taps + t), rounded.to(tl.float32), mask=index == at)


# ------------------------------------------------------------------------------------------------ blur of the rows


@triton.jit(do_not_specialize=("values", "width", "taps", "tiles"))
def blur_rows_kernel(source, out, kernel, mask, values, width, taps, tiles, BLOCK: tl.constexpr):
    """First half of `resample.blur`: rows in whole multiples of 2**-12, where `mask` (B,) is set; a copy of the others.

    source, out: (B, values) float32, rows of `width`. kernel: (B, taps) float32."""
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    index = (tl.program_id(0) % tiles) * BLOCK + tl.arange(0, BLOCK)
    at = tl.minimum(index, values - 1)
    source += sample * values
    if tl.load(mask + sample) != 0:
        column = at % width
        x = tl.zeros([BLOCK], tl.float32)
        for t in range(taps):
            w = tl.load(kernel + sample * taps + t)
            if w != 0:
                neighbor = tl.load(source + (at - column) + mirrored(column + t - taps // 2, width))
                x += rint(neighbor * 4096.0, EXACT_32) * w
        x = rint(x * BLUR_ROWS, EXACT_32)
    else:
        x = tl.load(source + at)
    tl.store(out + sample * values + index, x, mask=index < values)


# ------------------------------------------------------------------------------------------------ views


@triton.jit
def resample(
    source, first, weight, sample, row, column, plane, height, width, out_height, out_width, taps,
    COLOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`resample.crop_resize` at output pixels (row, column) of one sample, which begins at `source`. plane: where the values of the
    element's channel begin."""
    lines = out_height + out_width
    first += sample * (lines + 2)
    weight += sample * lines * taps
    rows = tl.load(first + lines)
    columns = tl.load(first + lines + 1)
    top = tl.load(first + row)
    left = tl.load(first + (out_height + column))
    row_weight = row * taps
    column_weight = (out_height + column) * taps
    r = tl.zeros([BLOCK], tl.float32)
    g = r
    b = r
    for i in range(rows):
        begin = plane + tl.minimum(top + i, height - 1) * width  # pixels after the last one have weight 0
        along_r = tl.zeros([BLOCK], tl.float32)
        along_g = along_r
        along_b = along_r
        for j in range(columns):
            w = tl.load(weight + (column_weight + j))
            x_r, x_g, x_b = load(source, begin + tl.minimum(left + j, width - 1), height * width, COLOR)
            along_r += x_r * w
            along_g += x_g * w
            along_b += x_b * w
        w = tl.load(weight + (row_weight + i))
        r += rint(along_r * MIDDLE, EXACT_32) * w
        g += rint(along_g * MIDDLE, EXACT_32) * w
        b += rint(along_b * MIDDLE, EXACT_32) * w
    return unit(r * RESAMPLED), unit(g * RESAMPLED), unit(b * RESAMPLED)


@triton.jit
def blur_columns(
    source, kernel, mask, sample, row, column, plane, height, width, taps, COLOR: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Second half of `resample.blur` at pixels (row, column) of one sample, which begins at `source`. plane: see `resample`."""
    r, g, b = load(source, plane + row * width + column, height * width, COLOR)
    if tl.load(mask + sample) != 0:
        r = tl.zeros([BLOCK], tl.float32)
        g = r
        b = r
        for t in range(taps):
            w = tl.load(kernel + sample * taps + t)
            if w != 0:
                at = plane + mirrored(row + t - taps // 2, height) * width + column
                x_r, x_g, x_b = load(source, at, height * width, COLOR)
                r += x_r * w
                g += x_g * w
                b += x_b * w
        r *= BLUR_COLUMNS
        g *= BLUR_COLUMNS
        b *= BLUR_COLUMNS
    return r, g, b


@triton.jit(do_not_specialize=VIEWS_SIZES)
def views_kernel(
    source, out, first, weight, kernel, blurred, values, mask, flips, shift, factor, sums,
    channels, height, width, out_height, out_width, taps, tiles, codes, count, steps,
    SOURCE: tl.constexpr, COLOR: tl.constexpr, FLIPS: tl.constexpr, MEASURE: tl.constexpr,
    NORMALIZE: tl.constexpr, TILES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Read samples, apply `count` steps, normalize and write. Program sample * tiles + tile.

    source: (B, C, H, W) uint8, or (B, C, h, w) float32. out: (B, C, h, w) of any type. first, weight, taps: see `weights_kernel`.
    kernel, blurred, taps: see `blur_rows_kernel`. values, mask: (B, steps), float32 and uint8. flips: (B, 2) uint8, upside down and
    mirrored. shift, factor: (C,) float32. sums: (B, tiles) int64, see MEASURE. codes: 4 bits per step, the first in the lowest.

    MEASURE: write `brightness_sum` into `sums` instead of a view. TILES: the smallest power of two of at least `tiles`; with 1, the
    mean for the contrast is taken in place, else from `sums`."""
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    plane = out_height * out_width
    size = plane if COLOR else plane * channels  # elements of a sample
    index = tile * BLOCK + tl.arange(0, BLOCK)
    valid = index < size
    at = tl.minimum(index, size - 1)
    channel = at // plane  # 0 with 3 channels
    at -= channel * plane
    row = at // out_width
    column = at - row * out_width
    if FLIPS:
        row = tl.where(tl.load(flips + 2 * sample) != 0, out_height - 1 - row, row)
        column = tl.where(tl.load(flips + 2 * sample + 1) != 0, out_width - 1 - column, column)

    source += sample * channels * height * width
    begin = channel * (height * width)
    if SOURCE == CROP:
        r, g, b = resample(
            source, first, weight, sample, row, column, begin, height, width, out_height, out_width, taps, COLOR, BLOCK
        )  # fmt: skip
    elif SOURCE == BLUR:
        r, g, b = blur_columns(source, kernel, blurred, sample, row, column, begin, height, width, taps, COLOR, BLOCK)
    else:
        r, g, b = load(source, begin + row * width + column, plane, COLOR)
        if SOURCE == WHOLE:
            r, g, b = r * LEVEL, g * LEVEL, b * LEVEL

    mean = 0.0
    for step in range(count):
        if tl.load(mask + sample * steps + step) != 0:
            code = (codes >> (4 * step)) & 15
            if code == CONTRAST:
                if TILES == 1:
                    total = brightness_sum(r, g, b, valid, COLOR)
                else:
                    parts = tl.arange(0, TILES)
                    total = tl.sum(tl.load(sums + sample * tiles + parts, mask=parts < tiles, other=0), 0)
                mean = (total.to(tl.float64) * 0.0000152587890625 / size).to(tl.float32)  # times 2**-16
            value = tl.load(values + sample * steps + step)
            r, g, b = apply_step(code, value, mean, r, g, b, COLOR)

    if MEASURE:
        tl.store(sums + sample * tiles + tile, brightness_sum(r, g, b, valid, COLOR))
    else:
        out += sample * channels * plane
        if COLOR:
            if NORMALIZE:
                r = (r + tl.load(shift)) * tl.load(factor)
                g = (g + tl.load(shift + 1)) * tl.load(factor + 1)
                b = (b + tl.load(shift + 2)) * tl.load(factor + 2)
            tl.store(out + index, r.to(out.dtype.element_ty), mask=valid)
            tl.store(out + plane + index, g.to(out.dtype.element_ty), mask=valid)
            tl.store(out + 2 * plane + index, b.to(out.dtype.element_ty), mask=valid)
        else:
            if NORMALIZE:
                r = (r + tl.load(shift + channel)) * tl.load(factor + channel)
            tl.store(out + index, r.to(out.dtype.element_ty), mask=valid)
