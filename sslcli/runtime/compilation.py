"""torch.compile: avoid importing its compiler where nothing is compiled, and mark steps where something is.

torch's optimizers ask `torch._dynamo` to exclude some of their methods from compilation and import it for that: 1.4 s at the start
of a run, with sympy and a thousand modules. The two functions below avoid it on torch 2 by attributes of torch that they check
first; where these differ, torch's own behavior is left unchanged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch.optim import Optimizer

METHODS = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")  # that import it when first called
DISABLED = "__dynamo_disable"  # attribute in which torch._compile caches the excluded method


def skip_dynamo_import() -> None:
    """Create optimizers in this process without importing torch._dynamo."""
    for name in METHODS:
        plain = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if plain is not None and not hasattr(plain, DISABLED):
            setattr(plain, DISABLED, plain)


def unwrap_step(optimizer: Optimizer) -> Optimizer:
    """Replace `optimizer.step` by torch's function without the wrapper that inserts a graph break. Step hooks still work."""
    hooked: Any = type(optimizer).step
    guarded: Any = getattr(hooked, "__wrapped__", None) if getattr(hooked, "hooked", False) else None
    plain: Any = getattr(guarded, "__wrapped__", None)
    is_known = plain is not None and guarded.__code__.co_name == "_use_grad"
    if is_known and not optimizer.defaults.get("differentiable"):
        step = Optimizer.profile_hook_step(torch.no_grad()(plain))
        optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
    return optimizer


@contextlib.contextmanager
def force_eager(compiled: bool | None) -> Iterator[None]:
    """Run compiled modules in eager mode inside the block: evaluations and figures have other batch sizes, each of which would be
    compiled."""
    with torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext():
        yield


def mark_step(compiled: bool | None) -> None:
    """Mark the begin of an optimizer step: outputs of CUDA graphs of the previous step may be overwritten. (The compiler assumes it
    at the first forward after a backward: wrong for the second micro-batch of a step, which accumulates gradients.)"""
    if compiled:
        torch.compiler.cudagraph_mark_step_begin()
