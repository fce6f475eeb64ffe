"""Pretrained weights of other programs for a backbone: torchvision's, timm's, DINO's, MAE's, MoCo's, lightly's, transformers'.

The tensors of the backbone are searched by name, below any prefix and any dictionary (`state_dict`, `teacher`, ...), in the layouts
of `layouts.py`; of several sets of weights (a student and its teacher) the one that is usually evaluated is chosen. Tensors for
another size of samples are converted (`adaptation.py`). Heads are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.backbones.weights.adaptation import adapted
from sslcli.backbones.weights.families import timm_name
from sslcli.backbones.weights.layouts import converted
from sslcli.backbones.weights.reading import tensors_in
from sslcli.config import instantiate, registry
from sslcli.console import escape, plural
from sslcli.errors import DataError, RequestError, SslError, listing, nearest

MIN_MATCH = 0.9  # fraction of the backbone's parameters that must match
NOT_PREFERRED = re.compile(
    r"student|encoder_k|momentum|target|predictor|decoder"
)  # chosen only if nothing else matches as well
PREFERRED = re.compile(r"teacher|ema")
TOKENS = ("reg_token", "register_tokens", "storage_tokens", "dist_token")  # further tokens, which change all features
TABLES = (
    "pos_embed",
    "encoder.pos_embedding",
    "patch_embed.proj.weight",
    "conv_proj.weight",
)  # a network is useless without


@dataclass
class Candidate:
    """A set of weights: those of one dictionary below one prefix, under the names of the backbone without its own prefix."""

    place: str  # "state_dict/module.encoder_q."
    tensors: dict[str, Tensor]  # that have a name of the backbone
    unused: dict[str, Tensor] = field(default_factory=dict)  # others of the same set, as the file names them
    layout: str = ""  # "" where the names are those of the backbone
    shapes: dict[str, str] = field(default_factory=dict)  # what was converted in the layout already


@dataclass
class Match:
    """Tensors of a file that match a backbone, under the backbone's names."""

    tensors: dict[str, Tensor]
    fraction: float  # of the backbone's parameters
    missing: list[str]
    other_shape: list[str]  # "conv1.weight (64x3x7x7 in the file, 64x3x3x3 here)"
    unused: list[str]  # of the same set of weights
    layout: str = ""  # of which the names were converted
    adapted: list[str] = field(default_factory=list)  # what was converted to another size, in words
    foreign: list[str] = field(default_factory=list)  # parts of the file's network that this backbone does not have

    @property
    def fits(self) -> bool:
        return self.fraction >= MIN_MATCH and not self.foreign


def load_into(backbone: nn.Module, content: Any, spec: str) -> str:
    """Load matching weights into the backbone and return a summary for the log. `content`: nested dictionaries of tensors.

    Raises:
        RequestError: the weights do not match the backbone.
        DataError: they are quantized, or not finite.
    """
    best = match(backbone, content)
    if not best.fits:
        shape = backbone.input_shape
        name = matching_backbone(content, shape)  # type: ignore[arg-type]
        other = None if name else timm_name(content)
        hint = (
            "choose the backbone of the weights, such as backbone=resnet50; of timm: backbone=timm backbone.name=NAME"
        )
        if name or other:
            hint = f"it matches backbone={name}" if name else f"add backbone=timm backbone.name={other}"
        raise no_match(backbone, best, spec, hint)
    copy_into(backbone, best.tensors, spec)
    return describe(best, spec)


def no_match(backbone: nn.Module, found: Match, spec: str, hint: str) -> RequestError:
    """The error for weights of which less than `MIN_MATCH` of the backbone's parameters match, or that have other parts."""
    name = type(backbone).__name__
    if found.foreign and found.fraction >= MIN_MATCH:
        parts = listing(map(escape, found.foreign), 3)
        return RequestError(f"init={escape(spec)} is another network than {name}: it has {parts}", hint)
    close = [f"{escape(m)} (the file has {escape(n)})" for m in found.missing[:3] if (n := nearest(m, found.unused))]
    return RequestError(
        f"init={escape(spec)} matches {found.fraction:.0%} of the parameters of {name}, expected at least {MIN_MATCH:.0%}"
        + (f"; {listing(map(escape, found.other_shape), 3)}" if found.other_shape else "")
        + (f"; not in the file: {listing(close or map(escape, found.missing), 3)}" if found.missing else "")
        + (f"; in the file: {listing(map(escape, found.unused), 3)}" if found.unused else ""),
        hint,
    )


@torch.no_grad()
def copy_into(module: nn.Module, tensors: Mapping[str, Tensor], spec: str) -> None:
    """Copies tensors to the parameters and buffers of their names. DataError where one is not finite, or holds integers for
    real numbers, as quantized weights do."""
    state = module.state_dict()
    for key, value in tensors.items():
        if state[key].is_floating_point() and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise DataError(f"init={escape(spec)}: {escape(key)} is {kind}: quantized weights are not supported")
    if bad := [k for k, v in tensors.items() if v.is_floating_point() and not v.float().isfinite().all()]:
        raise DataError(f"init={escape(spec)}: weights contain NaN or Inf ({listing(map(escape, bad), 3)})")
    for key, value in tensors.items():
        state[key].copy_(value)


def describe(found: Match, spec: str) -> str:
    """What was loaded, what was converted, what is missing, and what was not expected."""
    share = f"{found.fraction:.1%} of the backbone's parameters"
    summary = f"init {escape(spec)}: {plural(len(found.tensors), 'tensor')} matched, {share}"
    summary += f", in the layout of {found.layout}" if found.layout else ""
    summary += f"; {listing(map(escape, found.adapted), 4)}" if found.adapted else ""
    missing, unexpected = found.other_shape + found.missing, found.unused
    for what, names in (("missing, randomly initialized", missing), ("unexpected, ignored", unexpected)):
        if names:
            summary += f"; {what}: {listing(map(escape, names), 4)}"
    return summary


# ------------------------------------------------------------------------------------------------------------------ match


def match(backbone: nn.Module, content: Any) -> Match:
    """The set of weights in `content` that matches the backbone best."""
    state, sizes = backbone.state_dict(), {k: p.numel() for k, p in backbone.named_parameters()}
    cut = own_prefix(state)
    targets = {k[len(cut) :]: k for k in state}

    def matching(found: Candidate) -> dict[str, tuple[Tensor, str]]:
        """By name, the tensors that fit, and what was done for it."""
        fitting = {}
        for name, value in found.tensors.items():
            target = state[targets[name]]
            fit = (value, "") if value.shape == target.shape else adapted(name, value, target, backbone, cut)
            if fit is not None:
                fitting[name] = fit
        return fitting

    def fraction(names: Mapping[str, Any]) -> float:
        return sum(sizes.get(targets[n], 0) for n in names) / max(1, sum(sizes.values()))

    def preference(found: Candidate) -> tuple[float, int, int]:
        liked = bool(PREFERRED.search(found.place)) - bool(NOT_PREFERRED.search(found.place))
        return round(fraction(matching(found)), 3), liked, -len(foreign_parts(found, targets))

    nothing = Candidate("", {}, {f"{where}{key}": value for where, key, value in tensors_in(content)})
    sets = [nothing, *_candidates(content, targets)]
    best = max(sets, key=preference)  # the first of several
    if (own := _in_layout_of(backbone, best, targets)) is not None and preference(own) >= preference(best):
        best = own
    weights = matching(best)
    return Match(
        tensors={targets[n]: value for n, (value, _) in weights.items()},
        fraction=fraction(weights),
        missing=[n for n, k in targets.items() if n not in best.tensors and k in sizes],
        other_shape=[
            f"{n} ({_shape(v)} in the file, {_shape(state[targets[n]])} here)"
            for n, v in best.tensors.items()
            if n not in weights
        ],
        unused=list(best.unused),
        layout=best.layout,
        adapted=[done for _, done in weights.values() if done] + list(best.shapes.values()),
        foreign=[
            *foreign_parts(best, targets),
            *(f"{n} of another shape" for n in best.tensors if n in TABLES and n not in weights),
        ],
    )


def own_prefix(names: Mapping[str, Any]) -> str:
    """The prefix of all names of a backbone that wraps a network of another package: `net.`; "" without one."""
    tops = {name.partition(".")[0] for name in names}
    return f"{next(iter(tops))}." if len(tops) == 1 and all("." in name for name in names) else ""


def _candidates(content: Any, targets: Mapping[str, str]) -> Iterator[Candidate]:
    dictionaries: dict[str, dict[str, Tensor]] = {}
    for where, key, value in tensors_in(content):
        dictionaries.setdefault(where, {})[key] = value
    for where, tensors in dictionaries.items():
        yield from _by_prefix(where, tensors, targets)
        for layout, prefix, under in converted(tensors):
            used = {n: v for n, v in under.items() if n in targets}
            rest = {n: v for n, v in under.items() if n not in targets}
            yield Candidate(where + prefix, used, rest, layout)


def _by_prefix(where: str, tensors: dict[str, Tensor], targets: Mapping[str, str]) -> Iterator[Candidate]:
    """The sets of weights of one dictionary, whose names are those of the backbone below a prefix."""
    sets: dict[str, dict[str, Tensor]] = {}
    rest: dict[str, Tensor] = {}
    for key, value in tensors.items():
        parts = key.split(".")
        at = next((i for i in range(len(parts)) if ".".join(parts[i:]) in targets), None)
        if at is None:
            rest[key] = value
        else:
            sets.setdefault("".join(f"{part}." for part in parts[:at]), {})[".".join(parts[at:])] = value
    for prefix, weights in sets.items():
        unused = {k.removeprefix(prefix): v for k, v in rest.items() if k.startswith(prefix)}
        yield Candidate(where + prefix, weights, unused)


def _in_layout_of(backbone: nn.Module, best: Candidate, targets: Mapping[str, str]) -> Candidate | None:
    """The set as the package of the backbone converts it (`convert_weights`); None where it has no conversion."""
    convert = getattr(backbone, "convert_weights", None)
    under = None if convert is None else convert({**best.tensors, **best.unused})
    if under is None:
        return None
    used = {n: v for n, v in under.items() if n in targets}
    rest = {n: v for n, v in under.items() if n not in targets}
    before = {n: best.tensors[n] for n in used if n in best.tensors and best.tensors[n].shape != used[n].shape}
    done = {n: f"{n} converted from {_shape(v)} to {_shape(used[n])} by timm" for n, v in before.items()}
    return Candidate(best.place, used, rest, best.layout, done)


def foreign_parts(found: Candidate, targets: Mapping[str, str]) -> list[str]:
    """The names of tensors in modules that the backbone has, such as a block with LayerScale or further blocks of a stage, and of
    further tokens: the file's network computes other features."""
    containers = {name.partition(".")[0] for name in targets if name.count(".") > 1}
    names = [n for n, v in found.unused.items() if v.is_floating_point()]
    inside = [n for n in names if n.count(".") > 1 and n.partition(".")[0] in containers]
    return inside + [n for n in names if n in TOKENS]


def _shape(v: Tensor) -> str:
    return "x".join(map(str, v.shape)) or "scalar"


def matching_backbone(content: Any, shape: tuple[int, ...]) -> str | None:
    """The name of a backbone that the weights match; None without one."""
    for name, path in registry.choices("backbone").items():
        node = registry.describe(path, "backbone")
        if not str(node.get("_target_")).endswith(("TorchvisionModel", "TimmModel")):  # these require a model name
            try:
                with torch.device("meta"):
                    other = instantiate.build("backbone", node, input_shape=shape)
            except (SslError, NotImplementedError):
                continue
            if match(other, content).fits:
                return name
    return None
