"""Training in bfloat16 on a processor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

DILATION = {F.conv1d: 5, F.conv2d: 5, F.conv3d: 5}  # -> its place among the arguments
DILATION |= {F.conv_transpose1d: 7, F.conv_transpose2d: 7, F.conv_transpose3d: 7}
TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class Autocast(TorchFunctionMode):
    """Autocast to bfloat16, except for convolutions whose kernel is larger than their input along an axis (than their output, if
    transposed), which are computed in float32.

    oneDNN leaves parts of the gradient of such a kernel as they were in memory: not finite, or any numbers (torch 2.15 on a processor
    with AVX512-BF16, in one to three dimensions). In float32 they are right."""

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
        out = func(*args, **(kwargs or {}))
        if func in DILATION and torch.is_autocast_enabled("cpu") and exceeds(func, out, args, kwargs or {}):
            with torch.autocast("cpu", enabled=False):
                args = [x.float() if isinstance(x, Tensor) else x for x in args]
                kwargs = {k: v.float() if isinstance(v, Tensor) else v for k, v in (kwargs or {}).items()}
                return func(*args, **kwargs)
        return out


def exceeds(func: Any, out: Tensor, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the kernel of a convolution is larger than its input along an axis; than its output, if transposed."""
    x, weight = (kwargs[key] if key in kwargs else args[i] for i, key in enumerate(("input", "weight")))
    place, kernel = DILATION[func], weight.shape[2:]
    dilation = kwargs.get("dilation", args[place] if len(args) > place else 1)
    steps = list(dilation) if isinstance(dilation, list | tuple) else [dilation]
    steps *= len(kernel) if len(steps) == 1 else 1
    sizes = (out if func in TRANSPOSED else x).shape[-len(kernel) :]
    return any((k - 1) * step >= n for k, step, n in zip(kernel, steps, sizes, strict=True))
