"""Image views on a CUDA device by Triton kernels (triton_kernels.py): the bits of the tensor code in few launches.

Triton comes with torch's CUDA wheels; it is imported on first use only. It compiles the kernels then, in seconds, and caches them
in the user's folder. They are used only if their views of a few samples have the bits of the tensor code on this device;
without triton, or where the kernels cannot be compiled, the tensor code is used, and `sslcli doctor` reports it.

A recipe is divided into launches: crop, resize, flips and the steps on single pixels are one, up to the next operation on several
pixels. A blur is one launch more, and an operation without a kernel (`random_affine`, `noise`) runs as tensor code between two.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sslcli import console
from sslcli.errors import MachineError
from sslcli.views.images.native import COLOR_CODES, Resampling, Step
from sslcli.views.op import constant, parts

TensorCode = Callable[[Tensor, slice], Tensor]  # views (b, C, h, w) float32 of some samples of the batch -> the same
PixelStep = tuple[int, Tensor | None, Tensor | None]  # code, values (B or 1,), mask (B,) bool

CONTRAST = COLOR_CODES.index("contrast")
BLOCK = 1024  # elements of a tile, where a view has several
MAX_TILE = 2048  # elements of a view that is a single tile, at most
MIN_BLOCK = 128
AXIS_BLOCK = 64  # output rows and columns of a program that computes weights


@dataclass
class Launch:
    """One launch of `views_kernel`: the blur whose second half it reads through, flips, and steps on single pixels."""

    blur: tuple[Tensor, Tensor | None] | None = None  # kernel (B, taps), mask (B,) bool
    steps: list[PixelStep] = field(default_factory=list)
    upside_down: list[Tensor | None] = field(default_factory=list)  # masks (B,) bool; None: all samples
    mirror: list[Tensor | None] = field(default_factory=list)
    then: TensorCode | None = None  # follows the launch


def plan(items: Iterable[Step | TensorCode]) -> list[Launch]:
    """Divide the steps of a recipe into launches. A flip commutes with steps on single pixels and applies where a launch reads."""
    launches = [Launch()]
    for item in items:
        if callable(item):
            launches[-1].then = item
            launches.append(Launch())
            continue
        name, values, mask = item
        if name == "blur":
            assert values is not None
            launches.append(Launch(blur=(values, mask)))
        elif name == "mirror":
            launches[-1].mirror.append(mask)
        elif name == "upside_down":
            launches[-1].upside_down.append(mask)
        else:
            launches[-1].steps.append((COLOR_CODES.index(name), None if values is None else values[:, 0], mask))
    return launches


def run(
    raw: Tensor,
    out: Tensor,
    items: Iterable[Step | TensorCode],
    shift: Tensor,
    factor: Tensor,
    resampling: Resampling | None = None,
    kernels: Any = None,
) -> Tensor:
    """Compute raw (B, C, H, W) uint8 -> out (B, C, h, w), contiguous, float32, bfloat16 or float16, on one device.

    First `resampling` (None: the whole image, which has the size of `out`), then the items, then (x + shift) * factor, (C,)
    float32 each on the device. Nothing is waited for, so that the launches can be captured as a CUDA graph. `kernels`: the module
    triton_kernels.py, by default the installed one."""
    if not len(raw):
        return out
    if kernels is None:
        from sslcli.views.images import triton_kernels as kernels
    launches = plan(items)
    if resampling is not None and resampling.flip is not None:
        launches[0].mirror.append(resampling.flip)
    with torch.cuda.device(raw.device) if raw.device.type == "cuda" else contextlib.nullcontext():
        for part in parts(len(raw), math.prod(out.shape[1:]), raw.device) if len(launches) > 1 else [slice(None)]:
            x = raw[part].contiguous()
            for launch in launches:
                last = launch is launches[-1]
                to = out[part] if last else torch.empty(len(x), *out.shape[1:], device=x.device)
                crop = resampling if launch is launches[0] else None
                x = _make_views(kernels, x, to, launch, part, crop, (shift, factor) if last else None)
                if launch.then is not None:
                    x = launch.then(x, part).contiguous()
    return out


def _make_views(
    kernels: Any,
    x: Tensor,
    out: Tensor,
    launch: Launch,
    part: slice,
    crop: Resampling | None,
    normalization: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Apply a launch to x, the samples `part` of the batch: (B, C, H, W) uint8 or (B, C, h, w) float32 -> out (B, C, h, w)."""
    samples, channels, height, width = out.shape
    color = channels == 3
    unread = first = weight = kernel = blurred = flips = sums = x  # where a launch has no such argument
    taps, source = 1, kernels.WHOLE if x.dtype == torch.uint8 else kernels.FLOAT
    if crop is not None:
        source = kernels.CROP
        first, weight = crop_weights(kernels, crop.region[part].contiguous(), crop.radius, x.shape[2:], out.shape[2:])
        taps = weight.shape[2]
    elif launch.blur is not None:
        values, mask = launch.blur
        source, kernel, blurred = kernels.BLUR, values[part].contiguous(), _mask(mask, part, x)
        x, taps = blur_rows(kernels, x, kernel, blurred), kernel.shape[1]
    if launch.upside_down or launch.mirror:
        flips = torch.stack([_parity(masks, part, x) for masks in (launch.upside_down, launch.mirror)], 1)
    values, mask, codes = _step_tensors(launch.steps, part, x)
    shift, factor = normalization or (unread, unread)

    size = height * width if color else channels * height * width
    block = max(MIN_BLOCK, _power_of_two(size)) if size <= MAX_TILE else BLOCK
    tiles = -(-size // block)
    order = [code for code, _, _ in launch.steps]
    passes = [(False, len(order))]
    if tiles > 1 and CONTRAST in order:  # its mean is that of the whole view
        passes.insert(0, (True, order.index(CONTRAST)))
        sums = torch.empty(samples, tiles, dtype=torch.int64, device=x.device)
    for measure, count in passes:
        kernels.views_kernel[(samples * tiles,)](
            x, out, first, weight, kernel, blurred, values, mask, flips, shift, factor, sums,
            channels, x.shape[2], x.shape[3], height, width, taps, tiles, codes, count, max(1, len(order)),
            SOURCE=source.value, COLOR=color, FLIPS=flips is not unread, MEASURE=measure,
            NORMALIZE=normalization is not None, TILES=_power_of_two(tiles), BLOCK=block,
            num_warps=min(16, block // 128), enable_fp_fusion=False,
        )  # fmt: skip
    return out


def crop_weights(
    kernels: Any, region: Tensor, radius: int, size: Sequence[int], out: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The filter of a crop of samples of `size` (H, W) to `out` (h, w): `first` and `weight` of `weights_kernel`. region: (B, 4)
    float64."""
    taps = max(math.ceil(2 * radius * max(1.0, a / b)) for a, b in zip(size, out, strict=True))
    first = torch.empty(len(region), sum(out) + 2, dtype=torch.int32, device=region.device)
    weight = torch.empty(len(region), sum(out), taps, device=region.device)
    kernels.weights_kernel[(len(region), -(-sum(out) // AXIS_BLOCK))](
        region, first, weight, *out, taps, RADIUS=radius, BLOCK=AXIS_BLOCK, num_warps=1, enable_fp_fusion=False
    )
    return first, weight


def blur_rows(kernels: Any, x: Tensor, kernel: Tensor, mask: Tensor) -> Tensor:
    """The first half of a blur of x (B, C, h, w) float32; kernel: (B, taps), mask: (B,) uint8."""
    size = math.prod(x.shape[1:])
    out, tiles = torch.empty_like(x), -(-size // BLOCK)
    kernels.blur_rows_kernel[(len(x) * tiles,)](
        x, out, kernel, mask, size, x.shape[3], kernel.shape[1], tiles, BLOCK=BLOCK, enable_fp_fusion=False
    )
    return out


def _step_tensors(steps: Sequence[PixelStep], part: slice, like: Tensor) -> tuple[Tensor, Tensor, int]:
    """Values (B, steps) float32, mask (B, steps) uint8, and the codes of the steps, 4 bits each, the first in the lowest."""
    if not steps:
        return like, like, 0
    columns = [_column(values, part, like) for _, values, _ in steps]
    masks = [_mask(mask, part, like) for _, _, mask in steps]
    return torch.stack(columns, 1), torch.stack(masks, 1), sum(code << 4 * i for i, (code, _, _) in enumerate(steps))


def _column(values: Tensor | None, part: slice, like: Tensor) -> Tensor:
    """(B,) float32: the values of a step, of which there is one for all samples, or one for each; 0 without."""
    if values is None:
        return torch.zeros(len(like), device=like.device)
    if values.device != like.device:  # a constant of the recipe
        values = constant(tuple(values.tolist()), like.device)
    return (values.expand(len(like)) if len(values) == 1 else values[part]).to(torch.float32)


def _mask(mask: Tensor | None, part: slice, like: Tensor) -> Tensor:
    """(B,) uint8: 1 for the samples of a mask, or for all."""
    if mask is None:
        return torch.ones(len(like), dtype=torch.uint8, device=like.device)
    return mask[part].contiguous().view(torch.uint8)


def _parity(masks: Sequence[Tensor | None], part: slice, like: Tensor) -> Tensor:
    """(B,) uint8: 1 for the samples in an odd number of masks."""
    total = torch.zeros(len(like), dtype=torch.uint8, device=like.device)
    for mask in masks:
        total = total ^ _mask(mask, part, like)
    return total


def _power_of_two(n: int) -> int:
    """The smallest power of two of at least n."""
    return 1 << (n - 1).bit_length()


# ------------------------------------------------------------------------------------------------ whether they are used


class _Switch:
    enabled = True
    check: Callable[[torch.device], bool]  # whether the kernels have the bits of the tensor code on a device


def use_check(check: Callable[[torch.device], bool]) -> None:
    """Set the function that compares the kernels with the tensor code."""
    _Switch.check = check


def enable(setting: bool | str, device: torch.device) -> None:
    """Apply `device.native` to this process, for views on a CUDA device: auto, true (MachineError when unavailable) or false."""
    _Switch.enabled = setting is not False
    if setting is True and (reason := unavailable_reason(device)):
        raise MachineError(f"device.native=true, but {reason}", "device.native=auto uses the tensor code")
    if setting == "auto" and (reason := unavailable_reason(device)):
        console.say(f"image views use tensor code, slower on a GPU: {reason}")


def usable(device: torch.device) -> bool:
    """Whether image views on a CUDA device use the kernels."""
    return _Switch.enabled and unavailable_reason(device) is None


@functools.cache
def unavailable_reason(device: torch.device) -> str | None:
    """Why the kernels cannot be used on a CUDA device; None if they can. The first call compiles them and waits for the device."""
    try:
        if _Switch.check(device):
            return None
    except ImportError as e:
        return f"triton cannot be imported: {e}"
    except Exception as e:  # compilers, assemblers and drivers raise any kind
        message = (str(e).strip() or "no message").splitlines()[0]
        return f"the Triton kernels cannot be compiled: {type(e).__name__}: {message}"
    return "the views of the Triton kernels differ from those of the tensor code"
