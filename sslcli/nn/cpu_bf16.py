"""Training in bfloat16 on a processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

NAMES = ("input", "weight", "bias", "stride", "padding")
TRANSPOSED: tuple[Any, ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
NAMES_OF: dict[Any, tuple[str, ...]] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), (*NAMES, "dilation", "groups")),
    **dict.fromkeys(TRANSPOSED, (*NAMES, "output_padding", "groups", "dilation")),
}


class Autocast(TorchFunctionMode):
    """Autocast to bfloat16, except for some convolutions, which are computed in float32:

    - Those whose kernel is larger than their input along an axis (than their output, if transposed). oneDNN leaves parts of the
      gradient of such a kernel as they were in memory: not finite, or any numbers (torch 2.15 on a processor with AVX512-BF16, in
      one to three dimensions).
    - Depthwise convolutions of images with a stride or a kernel above 3, whose gradient takes 1.5 to 12 times as long in bfloat16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.autocast = torch.autocast("cpu", dtype=torch.bfloat16)

    def __enter__(self) -> Any:
        self.autocast.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.autocast.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in NAMES_OF or not torch.is_autocast_enabled("cpu"):
            return func(*args, **kwargs)
        given = dict(zip(NAMES_OF[func], args, strict=False)) | kwargs
        out = None if is_slow(func, given) else func(**given)
        if out is not None and not exceeds(out if func in TRANSPOSED else given["input"], given):
            return out
        with torch.autocast("cpu", enabled=False):
            return func(**{name: x.float() if isinstance(x, Tensor) else x for name, x in given.items()})


def exceeds(smaller: Tensor, given: dict[str, Any]) -> bool:
    """Whether the kernel of a convolution is larger than `smaller`, its input or output, along an axis."""
    kernel = given["weight"].shape[2:]
    steps = each(given.get("dilation", 1), len(kernel))
    return any((k - 1) * step >= n for k, step, n in zip(kernel, steps, smaller.shape[-len(kernel) :], strict=True))


def is_slow(func: Any, given: dict[str, Any]) -> bool:
    """Whether a convolution is slower in bfloat16: depthwise, of images, with a stride or a kernel above 3."""
    if func is not F.conv2d or given.get("groups", 1) == 1 or given["weight"].shape[1] > 1:
        return False
    return max(given["weight"].shape[2:]) > 3 or max(each(given.get("stride", 1), 2)) > 1


def each(value: int | Sequence[int], axes: int) -> list[int]:
    """One number for each axis."""
    values = [value] if isinstance(value, int) else list(value)
    return values * (axes if len(values) == 1 else 1)
