"""Weights from files of other programs (`init=FILE`): torchvision's, MoCo's, DINO's, timm's; .pth, .pt, .bin or .safetensors.

No code in the file is executed: `torch.load(weights_only=True)` only, or safetensors. The tensors of the backbone are searched by
name, below any prefix and any dictionary (`state_dict`, `teacher`, ...); of several sets of weights (a student and its teacher) the
one that is usually evaluated is chosen. Heads are ignored.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.config import instantiate, registry
from sslcli.console import escape, plural
from sslcli.data.folders.paths import require_regular
from sslcli.errors import DataError, MachineError, RequestError, SslError, listing
from sslcli.runs.safetensors_file import corrupt_safetensors
from sslcli.runtime.resources import free_memory

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
MIN_MATCH = 0.9  # fraction of the backbone's parameters that must match
MAX_DEPTH = 4  # of nested dictionaries
NOT_PREFERRED = re.compile(
    r"student|encoder_k|momentum|target|predictor|decoder"
)  # chosen only if nothing else matches as well
PREFERRED = re.compile(r"teacher|ema")


@dataclass
class Match:
    """Tensors of a file that match a backbone, under the backbone's names."""

    tensors: dict[str, Tensor]
    fraction: float  # of the backbone's parameters
    missing: list[str]
    other_shape: list[str]  # "conv1.weight is 64x3x7x7 in the file, 64x3x3x3 here"
    unused: list[str]  # of the same set of weights


def is_file(spec: str) -> bool:
    """Whether `init=` names a file of weights, which may not exist."""
    path = os.path.expanduser(spec)
    return (spec.lower().endswith(SUFFIXES) and not os.path.isdir(path)) or os.path.isfile(path)


def load_into(backbone: nn.Module, spec: str) -> str:
    """Load matching weights into the backbone and return a summary for the log.

    Raises:
        RequestError: the weights do not match the backbone.
        DataError: the file is damaged, or holds more than tensors.
    """
    content = read(spec)
    best = match(backbone, content)
    if best.fraction < MIN_MATCH:
        name = matching_backbone(content, backbone.input_shape)  # type: ignore[arg-type]
        raise no_match(
            backbone,
            best,
            spec,
            f"it matches backbone={name}" if name else "choose the backbone of the weights, such as backbone=resnet50",
        )
    copy_into(backbone, best.tensors, spec)
    return f"{describe(best, spec)}; inputs are normalized by this data set's own mean and standard deviation"


def no_match(backbone: nn.Module, found: Match, spec: str, hint: str) -> RequestError:
    """The error for weights of which less than `MIN_MATCH` of the backbone's parameters match."""
    return RequestError(
        f"init={escape(spec)} matches {found.fraction:.0%} of the parameters of {type(backbone).__name__}, "
        f"expected at least {MIN_MATCH:.0%}"
        + (f"; {listing(map(escape, found.other_shape), 3)}" if found.other_shape else "")
        + (f"; not in the file: {listing(map(escape, found.missing), 3)}" if found.missing else "")
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
    """What was loaded, what is missing and what was ignored."""
    summary = f"init {escape(spec)}: {plural(len(found.tensors), 'tensor')}, {found.fraction:.1%} of the backbone's parameters"
    for what, names in (("randomly initialized", found.other_shape + found.missing), ("ignored", found.unused)):
        if names:
            summary += f"; {what}: {listing(map(escape, names), 4)}"
    return summary


def stem_of(spec: str) -> str | None:
    """The stem (`backbone.stem`) of the ResNet in a file of weights; None for other networks."""
    for _, key, value in tensors_in(read(spec)):
        if value.ndim == 4 and f".{key}".endswith(".conv1.weight") and "layer" not in key:
            return {7: "imagenet", 3: "small"}.get(value.shape[-1])
    return None


def match(backbone: nn.Module, content: Any) -> Match:
    """The set of weights in `content` that matches the backbone best."""
    state, sizes = backbone.state_dict(), {k: p.numel() for k, p in backbone.named_parameters()}
    # a backbone that wraps a network of another package keeps its names under one prefix
    tops = {k.partition(".")[0] for k in state}
    cut = len(next(iter(tops))) + 1 if len(tops) == 1 and all("." in k for k in state) else 0
    targets = {k[cut:]: k for k in state}
    sets: dict[str, dict[str, Tensor]] = {}
    rest: list[tuple[str, str]] = []  # (dictionary, name)
    for where, key, value in tensors_in(content):
        parts = key.split(".")
        at = next((i for i in range(len(parts)) if ".".join(parts[i:]) in targets), None)
        if at is None:
            rest.append((where, key))
        else:
            prefix = "".join(f"{part}." for part in parts[:at])
            sets.setdefault(where + prefix, {})[".".join(parts[at:])] = value

    def matching(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {targets[n]: v for n, v in weights.items() if v.shape == state[targets[n]].shape}

    def fraction(weights: dict[str, Tensor]) -> float:
        return sum(sizes.get(k, 0) for k in matching(weights)) / max(1, sum(sizes.values()))

    def preference(prefix: str) -> tuple[float, int]:
        return round(fraction(sets[prefix]), 3), bool(PREFERRED.search(prefix)) - bool(NOT_PREFERRED.search(prefix))

    best = max(sets, key=preference, default="")
    weights = sets.get(best, {})
    return Match(
        tensors=matching(weights),
        fraction=fraction(weights),
        missing=[n for n, k in targets.items() if n not in weights and k in sizes],
        other_shape=[
            f"{n} ({_shape(v)} in the file, {_shape(state[targets[n]])} here)"
            for n, v in weights.items()
            if v.shape != state[targets[n]].shape
        ],
        unused=[k.removeprefix(best[len(where) :]) for where, k in rest if (where + k).startswith(best)],
    )


def _shape(v: Tensor) -> str:
    return "x".join(map(str, v.shape)) or "scalar"


def tensors_in(content: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (`state_dict/`, `module.conv1.weight`, tensor) for each tensor of nested dictionaries."""
    if not isinstance(content, Mapping) or depth > MAX_DEPTH:
        return
    for key, value in content.items():
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
            yield where, str(key), value
        else:
            yield from tensors_in(value, f"{where}{key}/", depth + 1)


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
            if match(other, content).fraction >= MIN_MATCH:
                return name
    return None


def read(spec: str) -> Any:
    """The content of a file. RequestError if it does not exist or cannot be read, DataError if it holds more than tensors."""
    path = os.path.expanduser(spec)
    try:
        require_regular(path)
        size = os.path.getsize(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(i.file_size for i in archive.infolist())
        if size > free_memory():
            raise MachineError(f"init={escape(spec)} is larger than the free memory of this machine")
        if path.lower().endswith(".safetensors"):
            from safetensors.torch import load_file

            with corrupt_safetensors(path):
                return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old pickle formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RequestError(
            f"init={escape(spec)}: there is no such file", "init=RUN or init=FILE.pth (.safetensors)"
        ) from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"names {named[1]}" if named else "holds more than tensors"
        raise DataError(
            f"init={escape(spec)} {what}: reading it could run code",
            "if you trust the file, save only its tensors: torch.save(model.state_dict(), FILE)",
        ) from error
    except SslError:
        raise
    except OSError as error:
        raise RequestError(f"init={escape(spec)} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise MachineError(f"init={escape(spec)} does not fit into memory") from error
    except Exception as error:  # a damaged or malicious file can make torch raise almost any exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"init={escape(spec)} is not a file of weights: {escape(reason)}", "is the file complete?"
        ) from error
