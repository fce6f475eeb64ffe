"""Full-precision losses under autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def _upcast(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: compute a loss in float32 (float64 stays) under any autocast.

    Exponentials and sums over a batch lose too much in bfloat16, and the matrix products of a loss are small beside the
    network's. The first positional argument that is a tensor determines the device; a method's `self` is none.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        first = next((a for a in args if isinstance(a, Tensor)), None)
        assert first is not None, "a positional argument of a loss is a tensor"
        with torch.autocast(first.device.type, enabled=False):
            full: Any = function
            return full(*map(_upcast, args), **{k: _upcast(v) for k, v in kwargs.items()})

    return wrapped
