"""torch's compiler: kept out where nothing is compiled, and told what it must know where something is.

torch's optimizers ask `torch._dynamo` to keep out of some of their methods, and import it to ask: 1.4 s at the start of a run,
with sympy and a thousand modules, for the answer of nobody. Two hooks of torch 2 spare that, both looked at before they are
taken; where they are not as they were, torch does what it always does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch.optim import Optimizer

ASKING = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")  # methods that import it when first called
ANSWER = "__dynamo_disable"  # where torch._compile keeps what it was told: what is there already is not asked for


def keep_dynamo_out() -> None:
    """Of the making of optimizers in this process."""
    for name in ASKING:
        plain = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if plain is not None and not hasattr(plain, ANSWER):
            setattr(plain, ANSWER, plain)


def without_dynamo(optimizer: Optimizer) -> Optimizer:
    """Its `step` is torch's, less the wrapper that only breaks the graph of a compiler. Hooks on steps still work."""
    hooked: Any = type(optimizer).step
    guarded: Any = getattr(hooked, "__wrapped__", None) if getattr(hooked, "hooked", False) else None
    plain: Any = getattr(guarded, "__wrapped__", None)
    is_known = plain is not None and guarded.__code__.co_name == "_use_grad"
    if is_known and not optimizer.defaults.get("differentiable"):
        step = Optimizer.profile_hook_step(torch.no_grad()(plain))
        optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
    return optimizer


@contextlib.contextmanager
def eager(compiled: bool) -> Iterator[None]:
    """What is compiled in this process runs as it is written: evaluations and pictures have batches of other sizes, each of which
    would be compiled for."""
    with torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext():
        yield


def new_step(compiled: bool) -> None:
    """An optimizer step begins: what recorded graphs gave in the one before may be written over. (The compiler would guess that at
    the first forward after a backward: wrong for the second micro-batch of a step, which adds to the gradients of the first.)"""
    if compiled:
        torch.compiler.cudagraph_mark_step_begin()
