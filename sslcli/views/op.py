"""Base class of augmentation ops, validation of their parameters, and their construction from YAML.

An op has two halves. `uniforms` declares the uniform random numbers that it needs per sample and `params` converts them to
parameters (angles, factors, regions); `apply` transforms a batch. Neither depends on the other samples, so the result for a
sample is the same in any batch. `p`, where an op has it, is the fraction of samples to which the pipeline applies it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from sslcli.errors import RequestError, listing, nearest
from sslcli.rng import Draw

Params = dict[str, Tensor]  # name -> (B, ...)


class Op:
    """One augmentation op. The keyword arguments of `__init__` are its YAML parameters; an invalid value raises `BadValue`."""

    name: ClassVar[str]
    first: ClassVar[bool] = False  # must be the first op of a recipe
    p: float = 1.0

    def bind(self, shape: tuple[int, ...]) -> str | None:
        """Set the shape of one input sample. Returns a note if the op has less effect than requested; sets `p` to 0 without any."""
        return None

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one output sample."""
        return shape

    def uniforms(self) -> dict[str, int]:
        """Number of uniform random numbers per sample, by purpose."""
        return {}

    def params(self, u: dict[str, Tensor]) -> Params:
        """Parameters of each sample from uniform random numbers in [0, 1), (B, count) each. In float64 where a logarithm, an
        exponential or an angle is computed, so that devices and batch sizes agree."""
        return {}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        """(B, ...) -> (B, ...), a new tensor; `x` is unchanged. `draw` generates per-pixel random numbers, too many for
        `uniforms`."""
        raise NotImplementedError

    def native(self, params: Params) -> list[tuple[str, Tensor | None]] | None:
        """The op as steps of native.c and triton_kernels.py: names and values, (B, count) each. None without a compiled version."""
        return None


class BadValue(ValueError):
    """An invalid parameter of an op: its name, and what is expected."""

    def __init__(self, parameter: str, expected: str):
        super().__init__(parameter, expected)
        self.parameter, self.expected = parameter, expected


def number(name: str, value: object, low: float | None = None, high: float | None = None) -> float:
    """`value` as a float in [low, high]; BadValue otherwise."""
    bounds = {
        (True, True): f"a number from {low:g} to {high:g}" if low is not None and high is not None else "",
        (True, False): f"a number of at least {low:g}" if low is not None else "",
        (False, False): "a number",
    }[low is not None, high is not None]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise BadValue(name, bounds)
    if (low is not None and value < low) or (high is not None and value > high):
        raise BadValue(name, bounds)
    return float(value)


def interval(name: str, value: Any, low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """`[a, b]` with low <= a <= b <= high; a single number means `[a, a]`."""
    pair = [value, value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    ok = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
    within = "" if low is None else f" in [{low:g}, {high:g}]" if high is not None else f" of at least {low:g}"
    expected = f"two numbers [a, b] with a <= b{within}"
    if not ok:
        raise BadValue(name, expected)
    try:
        a, b = (number(name, v, low, high) for v in pair)
    except BadValue:
        raise BadValue(name, expected) from None
    if a > b:
        raise BadValue(name, expected)
    return a, b


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """`value`, which is one of `choices`."""
    if value not in choices:
        raise BadValue(name, "one of " + ", ".join(choices))
    return str(value)


MAX_PIXELS = 4096  # of a side of a view; a series may be longer


def output_size(name: str, value: object, full: int) -> int:
    """A side in pixels (or time steps): null and 1 are `full`; a fraction below 1 is that part of `full`, rounded to a multiple
    of 4 (at least 4, so that it can be divided into patches); an integer above 1 is itself."""
    expected = "null, a fraction up to 1, or an integer number of pixels (steps) above 1"
    if value is None:
        return full
    size = number(name, value)
    if size == 1:
        return full
    if 0 < size < 1:
        return min(full, max(4, int(size * full / 4 + 0.5) * 4))
    if size < 1 or size != int(size):
        raise BadValue(name, expected)
    if size > max(MAX_PIXELS, full):
        raise BadValue(name, f"at most {max(MAX_PIXELS, full):,}")
    return int(size)


def between(u: Tensor, low: float, high: float) -> Tensor:
    """Scale uniform random numbers in [0, 1) to [low, high)."""
    return u * (high - low) + low


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(n,) float32 on the device, cached."""
    return torch.tensor(values, dtype=torch.float32).to(device)


def per_channel(values: Sequence[float], channels: int) -> Tensor:
    """(C,) float32 from one value per channel, or one for all."""
    out = torch.tensor(values, dtype=torch.float32)
    assert len(out) in (1, channels), (values, channels)
    return out.expand(channels).contiguous()


def slices(n: int, sample_bytes: int, max_bytes: int = 1 << 24) -> Iterator[slice]:
    """Slices of 0..n with as many samples of `sample_bytes` bytes as fit into `max_bytes`."""
    step = max(1, max_bytes // max(1, sample_bytes))
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def parts(n: int, values: int, device: torch.device) -> Iterator[slice]:
    """Slices of a batch whose samples have `values` float32 values: small on a CPU, so that a slice stays in its cache through all
    ops; on other devices large, only to bound memory."""
    return slices(n, 4 * values, 1 << 20 if device.type == "cpu" else 1 << 28)


def add_noise(x: Tensor, purpose: str, sigma: float, draw: Draw) -> Tensor:
    """Add normal noise to `x` (B, ...), a few samples at a time: the float64 intermediates are many times larger than `x`."""
    out = torch.empty_like(x)
    for part in slices(len(x), math.prod(x.shape[1:]) * 64):
        noise = draw.rows(part).normal(purpose, *x.shape[1:]).to(x.device)
        torch.add(noise.mul_(sigma), x[part], out=out[part])
    return out


class OpRandoms:
    """Random parameters of a list of ops for one batch, from uniform random numbers drawn in one pass."""

    def __init__(self, ops: Sequence[Op], draw: Draw, device: torch.device):
        self.draw, self.device = draw, device
        counts: dict[str, int] = {}
        for op in ops:
            if op.p < 1:
                counts[f"{op.name}/p"] = 1
            counts.update({f"{op.name}/{key}": count for key, count in op.uniforms().items()})
        self.random = draw.uniforms(counts)
        self.cache: dict[str, tuple[Params, Tensor | None]] = {}

    def uniforms(self, op: Op) -> dict[str, Tensor]:
        """The uniform random numbers of one op, by purpose."""
        return {key: self.random[f"{op.name}/{key}"] for key in op.uniforms()}

    def mask(self, op: Op) -> Tensor | None:
        """(B,) bool: the samples to which the op is applied; None for all."""
        return self.random[f"{op.name}/p"][:, 0] < op.p if op.p < 1 else None

    def params(self, op: Op) -> tuple[Params, Tensor | None]:
        """Parameters of the op for each sample, and its `mask`, on the device."""
        if op.name not in self.cache:
            mask = self.mask(op)
            params = {
                key: value.to(self.device, non_blocking=True) for key, value in op.params(self.uniforms(op)).items()
            }
            self.cache[op.name] = (params, None if mask is None else mask.to(self.device, non_blocking=True))
        return self.cache[op.name]

    def run(self, ops: Sequence[Op], x: Tensor, part: slice) -> Tensor:
        """Apply the ops to `x`, the samples `part` of the batch. May modify `x`."""
        for op in ops:
            params, mask = self.params(op)
            params, draw = {key: value[part] for key, value in params.items()}, self.draw.rows(part)
            if mask is None:
                x = op.apply(x, params, draw)
            elif self.device.type == "cpu":  # only the masked samples
                indices = mask[part].nonzero()[:, 0]
                if len(indices):
                    some = {key: value[indices] for key, value in params.items()}
                    x.index_copy_(0, indices, op.apply(x[indices], some, draw.rows(indices.to(draw.ids.device))))
            else:  # compute all and select: no synchronization with the device
                x = torch.where(mask[part].view(-1, *[1] * (x.ndim - 1)), op.apply(x, params, draw), x)
        return x


def make_ops(
    recipe: Mapping[str, Any],
    kind: str,
    index: int,
    shape: tuple[int, ...],
    table: Mapping[str, type[Op]],
    others: Mapping[str, str],
) -> tuple[list[Op], list[str]]:
    """The ops of the view number `index` of its kind, and notes on what has no effect. RequestError for an invalid recipe.

    `shape`: of one full sample; `table`: the modality's ops; `others`: ops of other modalities -> modality. An entry that is
    null or false is left out. A list as `p` has one entry per view of the kind.
    """
    if not isinstance(recipe, Mapping):
        raise RequestError(f"augmentation.{kind}: expected a mapping of op names to parameters, got {recipe!r}")
    ops: list[Op] = []
    notes = []
    for name, given in recipe.items():
        where = f"augmentation.{kind}.{name}"
        if name not in table:
            raise _unknown_op(where, str(name), table, others)
        if given is None or given is False:
            continue
        if not isinstance(given, Mapping):
            raise RequestError(
                f"{where}: expected a mapping of parameters, got {given!r}", f"write {name}: {{}} for its defaults"
            )
        args = _arguments(where, table[name], given, kind, index)
        try:
            if "p" in args:
                number("p", args["p"], 0.0, 1.0)
            op = table[name](**args)
            op.p = float(args.get("p", op.p))
            note = op.bind(shape) if op.p > 0 else None
        except BadValue as bad:
            raise RequestError(
                f"{where}.{bad.parameter}: expected {bad.expected}, got {args.get(bad.parameter)!r}"
            ) from None
        if note:
            notes.append(note)
        if op.p == 0:  # as given, or because `bind` found no effect
            continue
        if op.first and ops:
            raise RequestError(f"{where} must be the first op of its recipe, it comes after {ops[-1].name}")
        ops.append(op)
        shape = op.out_shape(shape)
    return ops, notes


def _unknown_op(where: str, name: str, table: Mapping[str, type[Op]], others: Mapping[str, str]) -> RequestError:
    if name in others:
        return RequestError(
            f"{where} requires data of modality {others[name]}",
            f"choose another augmentation, or remove the op with {where}=null",
        )
    near = nearest(name, table)
    hint = f"did you mean {near}? " if near else ""
    return RequestError(f"{where}: unknown op", f"{hint}the ops are {listing(sorted(table), 20)}")


def _arguments(where: str, target: type[Op], given: Mapping[str, Any], kind: str, index: int) -> dict[str, Any]:
    """The keyword arguments of an op, with the entry of a list `p` for the view number `index`. RequestError."""
    args = dict(given)
    known = [k for k in inspect.signature(target.__init__).parameters if k != "self"]
    for key in args:
        if key not in known:
            near = nearest(str(key), known)
            hint = f"did you mean {near}? " if near else ""
            takes = listing(known) if known else "no parameters"
            raise RequestError(f"{where} has no parameter {key}", f"{hint}it takes {takes}")
    p = args.get("p")
    if isinstance(p, Sequence) and not isinstance(p, str):
        if index >= len(p):
            raise RequestError(
                f"{where}.p has {len(p)} entries, one per view, but the method requires more {kind} views",
                f"give one number for all views, {where}.p=0.5, or one per view",
            )
        args["p"] = p[index]
    return args
