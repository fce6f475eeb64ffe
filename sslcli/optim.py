"""Parameter groups, optimizers, LARS, learning-rate scaling and schedules.

A schedule is a function of progress in [0, 1], so a resumed run needs no scheduler state. Before step `s` of `n` the trainer sets
`lr * schedule(s / n)` in every group that is not `fixed_lr`.
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

from sslcli.backbones.layers import layer_factors
from sslcli.config import Config, instantiate
from sslcli.errors import RequestError
from sslcli.runtime import compilation

# Not decayed, by name: tokens and positions are 3-d but act as biases (as in timm and DINO).
NO_DECAY_NAMES = ("bias", "cls_token", "pos_embed")
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)


# ---------------------------------------------------------------------------------------------------------------------
# parameter groups
# ---------------------------------------------------------------------------------------------------------------------


def parameter_groups(method: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters of `method`, in at most four groups.

    Each group holds `params`, `param_names` (as in `method.named_parameters()`), `weight_decay`, and

    - `name`: "decay", "no_decay", "fixed_lr_decay" or "fixed_lr_no_decay";
    - `fixed_lr`: True where the learning rate does not follow the schedule (the submodules named by `method.fixed_lr`);
    - `adapt`: whether LARS scales the step; False for parameters without decay (biases, norms, other 1-d parameters,
      class token, positions, modules with `no_weight_decay`), as in the authors' code of SimCLR and BYOL.

    Frozen parameters are left out, and a shared parameter appears once. RequestError where nothing is trainable,
    AttributeError where `fixed_lr` names no submodule.
    """
    fixed: set[int] = set()
    for name in getattr(method, "fixed_lr", ()):
        fixed.update(id(p) for p in method.get_submodule(name).parameters())
    not_decayed = {id(p) for m in method.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
    not_decayed |= {id(p) for m in method.modules() if getattr(m, "no_weight_decay", False) for p in m.parameters()}

    groups: dict[str, dict[str, Any]] = {}
    for name, p in method.named_parameters():  # yields a shared parameter once
        if not p.requires_grad:
            continue
        decayed = p.ndim > 1 and id(p) not in not_decayed and name.rpartition(".")[2] not in NO_DECAY_NAMES
        is_fixed = id(p) in fixed
        key = ("fixed_lr_" if is_fixed else "") + ("decay" if decayed else "no_decay")
        if key not in groups:
            decay = float(weight_decay) if decayed else 0.0
            groups[key] = {"params": [], "param_names": [], "name": key}
            groups[key] |= {"weight_decay": decay, "fixed_lr": is_fixed, "adapt": decayed}
        groups[key]["params"].append(p)
        groups[key]["param_names"].append(name)
    if not groups:
        raise RequestError(
            "the method has no trainable parameter", "unfreeze the backbone, or add a head to the method"
        )
    return [groups[key] for key in sorted(groups)]


def with_layer_decay(groups: list[dict[str, Any]], backbone: nn.Module, decay: float) -> list[dict[str, Any]]:
    """The groups of the parameters of a method, divided by the layers of its backbone: `factor` is that of the learning rate,
    `decay` ** (layers above), and 1 outside of the backbone."""
    by_name = layer_factors(backbone, decay)
    factors = {id(p): by_name.get(name, 1.0) for name, p in backbone.named_parameters()}
    divided: dict[tuple[str, float], dict[str, Any]] = {}
    for group in groups:
        for name, p in zip(group["param_names"], group["params"], strict=True):
            factor = factors.get(id(p), 1.0)
            key = group["name"], factor
            new = {**group, "params": [], "param_names": [], "factor": factor}
            divided.setdefault(key, new)["params"].append(p)
            divided[key]["param_names"].append(name)
    return [divided[key] for key in sorted(divided)]


def build_optimizer(
    cfg: Config, method: nn.Module, lr: float, compiled: bool = False, layer_decay: float = 1.0
) -> Optimizer:
    """The optimizer of a configuration over the parameters of `method`, with the learning rate `lr`.

    `layer_decay`: see `with_layer_decay`.

    The fused implementation is the default where it helps: on a GPU it can skip a step without synchronization (`found_inf`), and
    on a CPU fused AdamW is three times as fast (fused SGD is slower). `compiled`: whether this process compiles its model."""
    if not compiled:
        compilation.skip_dynamo_import()
    groups = parameter_groups(method, cfg["weight_decay"])
    if layer_decay != 1.0:
        groups = with_layer_decay(groups, method.backbone, layer_decay)  # type: ignore[arg-type]
    arguments = inspect.signature(instantiate.resolve("optimizer", cfg["_target_"])).parameters
    helps = {"cuda": "fused" in arguments, "cpu": {"fused", "betas"} <= arguments.keys()}
    use_fused = all(type(p) is nn.Parameter and helps.get(p.device.type) for g in groups for p in g["params"])
    fused = {"fused": True} if use_fused and not {"fused", "foreach"} & set(cfg) else {}
    optimizer: Optimizer = instantiate.build("optimizer", {**cfg, "lr": lr}, groups, **fused)
    return optimizer if compiled else compilation.unwrap_step(optimizer)


def supports_found_inf(optimizer: Optimizer) -> bool:
    """Whether a step changes nothing while the tensor `optimizer.found_inf` is not 0, as torch's GradScaler requires."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


# ---------------------------------------------------------------------------------------------------------------------
# LARS
# ---------------------------------------------------------------------------------------------------------------------


class LARS(Optimizer):
    """SGD with momentum and a learning rate for each tensor, proportional to its norm (LARS).

    You, Gitman & Ginsburg, "Large Batch Training of Convolutional Networks", 2017, arXiv:1708.03888, Algorithm 1:

        local = eta * |w| / (|g| + weight_decay * |w| + eps)
        v     = momentum * v + local * (g + weight_decay * w)
        w     = w - lr * v

    A group with `adapt: False` uses SGD with momentum (local = 1). A tensor whose weights or gradients are all zero is not
    scaled. With `clip_lr` (LARC, the default of the shipped recipes) the rate is `min(local, lr)` and is applied inside the
    velocity, as in the paper:

        v = momentum * v + min(local, lr) * (g + weight_decay * w)
        w = w - v

    so that the clipped rate bounds the contribution of each gradient. With the rate outside the velocity, a warm-up breaks that
    bound: a gradient accumulated at a rate near 0, where nothing is clipped, is later applied at the full rate (VICReg with a
    ResNet-18 and six warm-up steps moved its first layer by half its norm per step, and was not finite at step 8).

    Deviations from the paper: without `clip_lr`, and without adaptation, `lr` multiplies the velocity and not the gradient, as
    in torch's SGD, so that a change of the rate acts immediately; `eps`; the groups without adaptation.

    While the tensor `found_inf` is not 0, a step changes nothing, as in torch's fused optimizers.
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
                raise RequestError(f"optimizer.{name}: expected a number of at least 0, got '{value}'")
        if not (math.isfinite(eta) and eta > 0):
            raise RequestError(f"optimizer.eta: expected a positive number, got '{eta}'", "optimizer.eta=0.02")
        if nesterov and momentum == 0:
            raise RequestError("optimizer.nesterov=true requires momentum", "optimizer.momentum=0.9")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta}
        super().__init__(params, defaults | {"clip_lr": clip_lr, "nesterov": nesterov, "eps": eps, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for params in _by_device_and_dtype(group["params"]):
                self._step(group, params)
        return loss

    def _step(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """One step of tensors that share a device and a dtype, in a constant number of fused kernels."""
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
        if bad is not None and momentum != 0:  # a skipped step creates no buffer
            buffers = [torch.zeros_like(p) if b is None else b for p, b in zip(params, buffers, strict=True)]
        sgd(
            params,
            list(steps),
            buffers,
            fused=bad is not None,  # the implementation that supports found_inf
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
        """The velocity of a parameter. Older checkpoints store it without the learning rate, even if that is clipped."""
        state = self.state[p]
        if slot == "velocity" and "momentum_buffer" in state:
            state[slot] = state.pop("momentum_buffer") * lr
        buffer: Tensor | None = state.get(slot)
        return buffer


def _by_device_and_dtype(params: list[Tensor]) -> Iterator[list[Tensor]]:
    """The parameters with a gradient, grouped."""
    sets: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    for p in params:
        if p.grad is not None:
            if p.grad.is_sparse:
                raise RequestError(
                    "LARS does not support sparse gradients", "optimizer=adamw, or sparse=False embeddings"
                )
            sets[p.device, p.dtype].append(p)
    yield from sets.values()


# ---------------------------------------------------------------------------------------------------------------------
# learning rate
# ---------------------------------------------------------------------------------------------------------------------


def scaled_lr(lr: float, batch: int, lr_batch: int | None) -> tuple[float, str]:
    """The learning rate for a global batch, and its derivation: (0.5, "0.5 = 0.25 x 512 / 256 (linear)").

    Linear scaling (Goyal et al. 2017, arXiv:1706.02677, Sec. 2.1) of a rate for batches of `lr_batch`; None disables scaling.
    `batch` is the batch of one optimizer step, all micro-batches included.
    """
    if not (math.isfinite(lr) and lr > 0):
        raise RequestError(f"optimizer.lr: expected a positive number, got '{lr}'", "optimizer.lr=0.1")
    if batch < 1:
        raise RequestError(f"train.batch_size: expected at least 1, got '{batch}'", "train.batch_size=256")
    if lr_batch is None:
        return lr, f"{lr:.6g} (as given, not scaled with the batch)"
    if lr_batch < 1:
        raise RequestError(
            f"optimizer.lr_batch: expected at least 1 or null, got '{lr_batch}'", "optimizer.lr_batch=256"
        )
    scaled = lr * batch / lr_batch
    return scaled, f"{scaled:.6g} = {lr:.6g} x {batch} / {lr_batch} (linear)"


def constant(progress: float, warmup: float = 0.0, start: float = 0.0) -> float:
    """1 after a linear warm-up from `start` over the first `warmup` (a fraction of the run)."""
    return _with_warmup(progress, warmup, start, lambda _: 1.0)


def cosine(progress: float, warmup: float = 0.0, final: float = 0.0, start: float = 0.0) -> float:
    """Warm-up as in `constant`, then cosine decay from 1 to `final` (Loshchilov & Hutter 2017, arXiv:1608.03983)."""
    return _with_warmup(progress, warmup, start, lambda t: final + (1 - final) * (1 + math.cos(math.pi * t)) / 2, final)


def linear(progress: float, warmup: float = 0.0, final: float = 0.0, start: float = 0.0) -> float:
    """Warm-up as in `constant`, then linear decay from 1 to `final`."""
    return _with_warmup(progress, warmup, start, lambda t: 1 + (final - 1) * t, final)


def _with_warmup(
    progress: float, warmup: float, start: float, after: Callable[[float], float], final: float = 1.0
) -> float:
    """`start` to 1 over [0, warmup), then `after` of the remaining progress, rescaled to [0, 1]."""
    if not 0 <= warmup < 1:
        raise RequestError(
            f"schedule.warmup: expected a fraction of the run, at least 0 and below 1, got '{warmup}'",
            "schedule.warmup=0.05 is 10 of 200 epochs",
        )
    for name, value in (("start", start), ("final", final)):
        if not 0 <= value <= 1:
            raise RequestError(f"schedule.{name}: expected a factor of the learning rate in [0, 1], got '{value}'")
    assert 0 <= progress <= 1, progress
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    return after((progress - warmup) / (1 - warmup))
