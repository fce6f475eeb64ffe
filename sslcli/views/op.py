"""What a step of an augmentation is, and how one is made from its YAML entry.

An op has two halves. `uniforms` names the uniform random numbers it needs for a sample and `params` turns them into
what it will do (angles, factors, regions); `apply` does it, to a batch. Neither half knows of the other samples, so
the result for a sample is the same in any batch. `p`, where an op has it, is the part of the samples it is applied
to; the pipeline draws those, and not the op.
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
    """One step. The keyword arguments of `__init__` are what a YAML may set; a wrong value raises `BadValue`."""

    name: ClassVar[str]
    first: ClassVar[bool] = False  # must be the first op of a recipe
    p: float = 1.0

    def bind(self, shape: tuple[int, ...]) -> str | None:
        """Told the shape of one sample that will come in; answers with a note when it will do less than it was asked.
        Sets `p` to 0 when nothing is left to do."""
        return None

    def out_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample that goes out."""
        return shape

    def uniforms(self) -> dict[str, int]:
        """How many uniform numbers a sample needs, by purpose."""
        return {}

    def params(self, u: dict[str, Tensor]) -> Params:
        """Numbers in [0, 1), (B, count) each -> what to do with each sample. Of their kind: float64 where a
        logarithm, an exponential or an angle is taken, so that devices and batch sizes agree."""
        return {}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        """(B, ...) -> (B, ...), a new tensor; `x` is not changed. `draw` gives numbers that are too many to be drawn
        beforehand."""
        raise NotImplementedError

    def native(self, params: Params) -> list[tuple[str, Tensor | None]] | None:
        """The same as steps of native.c: their names and values, (B, count) each. None where it has none."""
        return None


class BadValue(ValueError):
    """A parameter of an op that cannot be: its name, and what it must be."""

    def __init__(self, parameter: str, must: str):
        super().__init__(parameter, must)
        self.parameter, self.must = parameter, must


def number(name: str, value: Any, low: float | None = None, high: float | None = None) -> float:
    """`value` as a float within [low, high]."""
    bounds = {
        (True, True): f"a number from {low:g} to {high:g}" if low is not None and high is not None else "",
        (True, False): f"a number not below {low:g}" if low is not None else "",
        (False, False): "a number",
    }[low is not None, high is not None]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise BadValue(name, bounds)
    if (low is not None and value < low) or (high is not None and value > high):
        raise BadValue(name, bounds)
    return float(value)


def interval(name: str, value: Any, low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """`[a, b]` with low <= a <= b <= high; a single number is `[a, a]`."""
    pair = [value, value] if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    ok = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
    within = "" if low is None else f" within {low:g} and {high:g}" if high is not None else f" not below {low:g}"
    must = f"two numbers [a, b] with a <= b{within}"
    if not ok:
        raise BadValue(name, must)
    try:
        a, b = (number(name, v, low, high) for v in pair)
    except BadValue:
        raise BadValue(name, must) from None
    if a > b:
        raise BadValue(name, must)
    return a, b


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """`value`, which is one of `choices`."""
    if value not in choices:
        raise BadValue(name, "one of " + ", ".join(choices))
    return str(value)


MOST_PIXELS = 4096  # of a side of a view, as of an image; a series may be longer


def output_size(name: str, value: Any, full: int) -> int:
    """A side in pixels (or steps): null is `full`; a fraction below 1 is that part of `full`, to the nearest multiple
    of 4 (at least 4, so that it can be cut into patches); a whole number is itself."""
    must = "null, a fraction below 1, or a whole number of pixels (steps)"
    if value is None:
        return full
    size = number(name, value)
    if 0 < size < 1:
        return min(full, max(4, int(size * full / 4 + 0.5) * 4))
    if size < 1 or size != int(size):
        raise BadValue(name, must)
    if size > max(MOST_PIXELS, full):
        raise BadValue(name, f"at most {max(MOST_PIXELS, full):,}")
    return int(size)


def between(u: Tensor, low: float, high: float) -> Tensor:
    """Uniform numbers of [0, 1) moved to [low, high)."""
    return u * (high - low) + low


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(n,) float32, sent to the device once."""
    return torch.tensor(values, dtype=torch.float32).to(device)


def per_channel(values: Sequence[float], channels: int) -> Tensor:
    """(C,) float32 from one number a channel, or one for all."""
    made = torch.tensor(values, dtype=torch.float32)
    assert len(made) in (1, channels), (values, channels)
    return made.expand(channels).contiguous()


def slices(n: int, each: int, at_most: int = 1 << 24) -> Iterator[slice]:
    """0..n in steps of as many samples of `each` bytes as fit in `at_most`."""
    step = max(1, at_most // max(1, each))
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def parts(n: int, numbers: int, device: torch.device) -> Iterator[slice]:
    """Slices of a batch of samples of `numbers` float32. On a processor small ones, so that a slice stays in its
    cache from the first op to the last; elsewhere large ones, for the sake of memory alone."""
    return slices(n, 4 * numbers, 1 << 20 if device.type == "cpu" else 1 << 28)


def with_noise(x: Tensor, purpose: str, sigma: float, draw: Draw) -> Tensor:
    """`x` (B, ...) plus normal noise. A few samples at a time: their float64 numbers are many times as large as
    they."""
    out = torch.empty_like(x)
    for part in slices(len(x), math.prod(x.shape[1:]) * 64):
        noise = draw.rows(part).normal(purpose, *x.shape[1:]).to(x.device)
        torch.add(noise.mul_(sigma), x[part], out=out[part])
    return out


class OpRandoms:
    """The random numbers of a batch for a list of ops: all uniform ones drawn at once, and then by op."""

    def __init__(self, ops: Sequence[Op], draw: Draw, device: torch.device):
        self.draw, self.device = draw, device
        wanted: dict[str, int] = {}
        for op in ops:
            if op.p < 1:
                wanted[f"{op.name}/p"] = 1
            wanted.update({f"{op.name}/{key}": count for key, count in op.uniforms().items()})
        self.drawn = draw.uniforms(wanted)
        self.made: dict[str, tuple[Params, Tensor | None]] = {}

    def uniforms(self, op: Op) -> dict[str, Tensor]:
        """The uniform numbers of one op, by purpose."""
        return {key: self.drawn[f"{op.name}/{key}"] for key in op.uniforms()}

    def mask(self, op: Op) -> Tensor | None:
        """(B,) bool: the samples it is applied to; None is all of them."""
        return self.drawn[f"{op.name}/p"][:, 0] < op.p if op.p < 1 else None

    def params(self, op: Op) -> tuple[Params, Tensor | None]:
        """What the op will do to each sample, and `on`."""
        if op.name not in self.made:
            on = self.mask(op)
            params = {
                key: value.to(self.device, non_blocking=True) for key, value in op.params(self.uniforms(op)).items()
            }
            self.made[op.name] = (params, None if on is None else on.to(self.device, non_blocking=True))
        return self.made[op.name]

    def run(self, ops: Sequence[Op], x: Tensor, part: slice) -> Tensor:
        """The samples `part` of the batch, `x`, through the ops. `x` may be changed."""
        for op in ops:
            params, on = self.params(op)
            params, draw = {key: value[part] for key, value in params.items()}, self.draw.rows(part)
            if on is None:
                x = op.apply(x, params, draw)
            elif self.device.type == "cpu":  # only the samples that want it
                chosen = on[part].nonzero()[:, 0]
                if len(chosen):
                    some = {key: value[chosen] for key, value in params.items()}
                    x.index_copy_(0, chosen, op.apply(x[chosen], some, draw.rows(chosen.to(draw.ids.device))))
            else:  # all of them, and choose: no waiting for the device to say which
                x = torch.where(on[part].view(-1, *[1] * (x.ndim - 1)), op.apply(x, params, draw), x)
        return x


def make_ops(
    recipe: Mapping[str, Any],
    kind: str,
    place: int,
    shape: tuple[int, ...],
    table: Mapping[str, type[Op]],
    others: Mapping[str, str],
) -> tuple[list[Op], list[str]]:
    """The ops of view number `place` of its kind, and notes on what they will not do. `shape`: of one full sample;
    `table`: the modality's ops; `others`: ops of other modalities -> modality.

    An entry that is null or false is left out. A list as `p` holds one number for each view of the kind.
    """
    if not isinstance(recipe, Mapping):
        raise RequestError(f"augmentation.{kind} must map op names to their parameters, not {recipe!r}")
    ops: list[Op] = []
    notes = []
    for name, given in recipe.items():
        where = f"augmentation.{kind}.{name}"
        if name not in table:
            if name in others:
                raise RequestError(
                    f"{where} works on data of modality {others[name]}, which this is not",
                    f"choose another augmentation, or drop the op with {where}=null",
                )
            near = nearest(str(name), table)
            hint = f"did you mean {near}? " if near else ""
            raise RequestError(f"{where}: there is no such op", f"{hint}the ops are {listing(sorted(table), 20)}")
        if given is None or given is False:
            continue
        if not isinstance(given, Mapping):
            raise RequestError(
                f"{where} must map parameters to values, not {given!r}", f"write {name}: {{}} for its defaults"
            )
        args = dict(given)
        known = [k for k in inspect.signature(table[name].__init__).parameters if k != "self"]
        for key in args:
            if key not in known:
                near = nearest(str(key), known)
                hint = f"did you mean {near}? " if near else ""
                takes = listing(known) if known else "no parameters"
                raise RequestError(f"{where} has no parameter {key}", f"{hint}it takes {takes}")
        p = args.get("p")
        if isinstance(p, Sequence) and not isinstance(p, str):
            if place >= len(p):
                raise RequestError(
                    f"{where}.p has {len(p)} entries, one a view, but the method asks for more {kind} views than that",
                    f"give one number for all views, {where}.p=0.5, or one for each",
                )
            args["p"] = p[place]
        try:
            if "p" in args:
                number("p", args["p"], 0.0, 1.0)
            op = table[name](**args)
            op.p = float(args.get("p", op.p))
            note = op.bind(shape) if op.p > 0 else None
        except BadValue as bad:
            raise RequestError(
                f"{where}.{bad.parameter} must be {bad.must}, it is {args.get(bad.parameter)!r}"
            ) from None
        if note:
            notes.append(note)
        if op.p == 0:  # as asked, or because `bind` found nothing left to do
            continue
        if op.first and ops:
            raise RequestError(f"{where} must be the first op of its recipe, it comes after {ops[-1].name}")
        ops.append(op)
        shape = op.out_shape(shape)
    return ops, notes
