"""What the optimizer is given and how its rate moves: parameter groups, LARS, batch scaling, schedules.

Schedules are functions of progress in [0, 1] alone, so a resumed run needs no scheduler state. The engine sets,
before step `s` of `n`, `lr * schedule(s / n)` in every group that is not `fixed_lr`.
"""

from __future__ import annotations

import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.sgd import sgd

from sslcli.config import instantiate
from sslcli.errors import RequestError
from sslcli.runtime import compilation

# Kept out of weight decay by name: timm's and DINO's habit for tokens and positions, which are 3-d but act as biases.
UNDECAYED_NAMES = ("bias", "cls_token", "pos_embed")
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)


# ---------------------------------------------------------------------------------------------------------------------
# groups
# ---------------------------------------------------------------------------------------------------------------------


def parameter_groups(method: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters of `method`, in at most four groups.

    Each group holds `params`, `param_names` (as in `method.named_parameters()`), `weight_decay`, and

    - `name`: "decay", "no_decay", "fixed_lr_decay" or "fixed_lr_no_decay";
    - `fixed_lr`: True where the learning rate does not follow the schedule (the sub-modules `method.fixed_lr` names);
    - `adapt`: whether LARS may scale the step; False for what is not decayed (biases, norms, other 1-d parameters,
      class token, positions), as in the authors' code of SimCLR and BYOL.

    Frozen parameters are left out; a parameter shared by several modules appears once. Raises RequestError when nothing
    is trainable, AttributeError when `fixed_lr` names no sub-module.
    """
    fixed: set[int] = set()
    for name in getattr(method, "fixed_lr", ()):
        fixed.update(id(p) for p in method.get_submodule(name).parameters())
    of_norms = {id(p) for m in method.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}

    groups: dict[str, dict[str, Any]] = {}
    for name, p in method.named_parameters():  # yields a shared parameter once
        if not p.requires_grad:
            continue
        decayed = p.ndim > 1 and id(p) not in of_norms and name.rpartition(".")[2] not in UNDECAYED_NAMES
        is_fixed = id(p) in fixed
        key = ("fixed_lr_" if is_fixed else "") + ("decay" if decayed else "no_decay")
        if key not in groups:
            decay = float(weight_decay) if decayed else 0.0
            groups[key] = {"params": [], "param_names": [], "name": key}
            groups[key] |= {"weight_decay": decay, "fixed_lr": is_fixed, "adapt": decayed}
        groups[key]["params"].append(p)
        groups[key]["param_names"].append(name)
    if not groups:
        raise RequestError("the method has no trainable parameter", "unfreeze the backbone or give the method a head")
    return [groups[key] for key in sorted(groups)]


def make(cfg: dict[str, Any], method: nn.Module, lr: float, compiled: bool = False) -> Optimizer:
    """The optimizer of a YAML over the parameters of `method`, at the rate `lr`.

    It is torch's fused one where that pays and the YAML does not say otherwise: on a GPU a step can be left out without asking; on
    a processor AdamW's is three times as fast (SGD's is slower). `compiled`: whether this process compiles its model."""
    if not compiled:
        compilation.skip_dynamo_import()
    groups = parameter_groups(method, cfg["weight_decay"])
    takes = inspect.signature(instantiate.resolve("optimizer", cfg["_target_"])).parameters
    pays = {"cuda": "fused" in takes, "cpu": {"fused", "betas"} <= takes.keys()}
    fits = all(type(p) is nn.Parameter and pays.get(p.device.type) for g in groups for p in g["params"])
    fused = {"fused": True} if fits and not {"fused", "foreach"} & set(cfg) else {}
    optimizer: Optimizer = instantiate.build("optimizer", {**cfg, "lr": lr}, groups, **fused)
    return optimizer if compiled else compilation.unwrap_step(optimizer)


def supports_found_inf(optimizer: Optimizer) -> bool:
    """Whether `optimizer.found_inf` (a tensor; not 0: the gradient is no good) makes its step change nothing: what torch's
    GradScaler asks, too."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


# ---------------------------------------------------------------------------------------------------------------------
# LARS
# ---------------------------------------------------------------------------------------------------------------------


class LARS(Optimizer):
    """Momentum SGD whose step is scaled, tensor by tensor, to a fixed share of the tensor's norm.

    You, Gitman & Ginsburg, "Large Batch Training of Convolutional Networks", 2017, arXiv:1708.03888, Algorithm 1:

        local = eta * |w| / (|g| + weight_decay * |w| + eps)
        v     = momentum * v + local * (g + weight_decay * w)
        w     = w - lr * v

    A group with `adapt: False` takes plain momentum SGD (local = 1). A tensor whose weights or gradients are all zero is not
    scaled. With `clip_lr` (LARC, and what our recipes use) the rate is `min(local, lr)` and stands inside the velocity, as in
    the paper:

        v = momentum * v + min(local, lr) * (g + weight_decay * w)
        w = w - v

    so that no step is longer than its own gradient allows. With the rate outside the velocity a warm-up breaks that bound: a
    gradient met at a rate of nearly 0, where nothing is clipped, is later applied at the full rate (VICReg with a ResNet-18
    and six steps of warm-up moved its first layer by half its norm a step, and was not finite at step 8).

    Deviations from the paper: without `clip_lr`, and without adaptation, `lr` multiplies the velocity and not the gradient, as
    in torch's SGD, so that a change of rate acts at once; `eps`; the exclusions.

    `found_inf`, a tensor set from outside: a step in which it is not 0 changes nothing, as in torch's fused optimizers.
    """

    _step_supports_amp_scaling = True
    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.02,
        clip_lr: bool = False,
        nesterov: bool = False,
        eps: float = 1e-8,
    ):
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay), ("eps", eps)):
            if not (math.isfinite(value) and value >= 0):
                raise RequestError(f"optimizer.{name}={value}: must be 0 or more")
        if not (math.isfinite(eta) and eta > 0):
            raise RequestError(f"optimizer.eta={eta}: must be above 0", "optimizer.eta=0.02")
        if nesterov and momentum == 0:
            raise RequestError("optimizer.nesterov=true needs a momentum", "optimizer.momentum=0.9")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta}
        super().__init__(params, defaults | {"clip_lr": clip_lr, "nesterov": nesterov, "eps": eps, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for params in _alike(group["params"]):
                self._step(group, params)
        return loss

    def _step(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """One step of tensors that share a device and a dtype: a handful of fused kernels, whatever their number."""
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        grads: Any = [p.grad for p in params]
        steps = grads if decay == 0 else torch._foreach_add(grads, params, alpha=decay)  # g + weight_decay * w
        clipped = group["adapt"] and group["clip_lr"]
        if group["adapt"]:
            w = torch.stack(torch._foreach_norm(params))  # (tensors,)
            g = torch.stack(torch._foreach_norm(grads))
            local = group["eta"] * w / (g + decay * w + group["eps"])
            free = torch.ones_like(local)
            if clipped:
                local, free = local.clamp(max=lr), free * lr
            local = torch.where((w > 0) & (g > 0), local, free)
            steps = torch._foreach_mul(steps, list(local.unbind()))
        slot = "velocity" if clipped else "momentum_buffer"
        buffers = [self._buffer(p, slot, lr) for p in params]
        bad = None if self.found_inf is None else self.found_inf.to(params[0].device)
        if bad is not None and momentum != 0:  # a step that is left out makes no buffer
            buffers = [torch.zeros_like(p) if b is None else b for p, b in zip(params, buffers, strict=True)]
        sgd(
            params,
            list(steps),
            buffers,
            fused=bad is not None,  # the one that heeds found_inf
            foreach=bad is None,
            found_inf=bad,
            weight_decay=0.0,
            momentum=momentum,
            lr=1.0 if clipped else lr,
            dampening=0.0,
            nesterov=group["nesterov"],
            maximize=False,
        )
        if momentum != 0:
            for p, buffer in zip(params, buffers, strict=True):
                self.state[p][slot] = buffer

    def _buffer(self, p: Tensor, slot: str, lr: float) -> Tensor | None:
        """The velocity of a parameter. Older checkpoints hold it without the rate, also where it is clipped."""
        state = self.state[p]
        if slot == "velocity" and "momentum_buffer" in state:
            state[slot] = state.pop("momentum_buffer") * lr
        found: Tensor | None = state.get(slot)
        return found


def _alike(params: list[Tensor]) -> Iterator[list[Tensor]]:
    """Those with a gradient, by device and dtype."""
    sets: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for p in params:
        if p.grad is not None:
            if p.grad.is_sparse:
                raise RequestError("LARS does not take sparse gradients", "optimizer=adamw, or sparse=False embeddings")
            sets[p.device, p.dtype].append(p)
    yield from sets.values()


# ---------------------------------------------------------------------------------------------------------------------
# learning rate
# ---------------------------------------------------------------------------------------------------------------------


def scaled_lr(lr: float, batch: int, lr_batch: int | None) -> tuple[float, str]:
    """The rate for a global batch, and how it was derived: (0.5, "0.5 = 0.25 x 512 / 256 (linear)").

    Linear scaling (Goyal et al. 2017, arXiv:1706.02677, Sec. 2.1) of a rate meant for batches of `lr_batch`; None is no
    scaling. Accumulation does not enter: `batch` is what one optimizer step sees.
    """
    if not (math.isfinite(lr) and lr > 0):
        raise RequestError(f"optimizer.lr={lr}: must be above 0", "optimizer.lr=0.1")
    if batch < 1:
        raise RequestError(f"train.batch_size={batch}: must be 1 or more", "train.batch_size=256")
    if lr_batch is None:
        return lr, f"{lr:.6g} (as given, not scaled with the batch)"
    if lr_batch < 1:
        raise RequestError(f"optimizer.lr_batch={lr_batch}: must be 1 or more, or null", "optimizer.lr_batch=256")
    scaled = lr * batch / lr_batch
    return scaled, f"{scaled:.6g} = {lr:.6g} x {batch} / {lr_batch} (linear)"


def constant(progress: float, warmup: float = 0.0, start: float = 0.0) -> float:
    """1 after a linear warm-up from `start` over the first `warmup` (a share of the run)."""
    return _warmed(progress, warmup, start, lambda _: 1.0)


def cosine(progress: float, warmup: float = 0.0, final: float = 0.0, start: float = 0.0) -> float:
    """Warm-up as in `constant`, then half a cosine from 1 to `final` (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    return _warmed(progress, warmup, start, lambda t: final + (1 - final) * (1 + math.cos(math.pi * t)) / 2, final)


def linear(progress: float, warmup: float = 0.0, final: float = 0.0, start: float = 0.0) -> float:
    """Warm-up as in `constant`, then a straight line from 1 to `final`."""
    return _warmed(progress, warmup, start, lambda t: 1 + (final - 1) * t, final)


def _warmed(progress: float, warmup: float, start: float, after: Callable[[float], float], final: float = 1.0) -> float:
    """`start` to 1 over [0, warmup), then `after` of the rest, itself scaled to [0, 1]."""
    if not 0 <= warmup < 1:
        raise RequestError(
            f"schedule.warmup={warmup}: it is a share of the run, 0 or more and below 1",
            "schedule.warmup=0.05 is 10 of 200 epochs",
        )
    for name, value in (("start", start), ("final", final)):
        if not 0 <= value <= 1:
            raise RequestError(f"schedule.{name}={value}: it is a factor of the learning rate, in [0, 1]")
    assert 0 <= progress <= 1, progress
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    return after((progress - warmup) / (1 - warmup))
