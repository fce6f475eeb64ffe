"""Networks from configurations and from runs: a backbone, a method with all that its constructor asks for, a trained encoder."""

from __future__ import annotations

import hashlib
import inspect
import json
import shlex
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.backbones import weights_file
from sslcli.config import instantiate, registry
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import RequestError, TrainingError, command
from sslcli.methods.base import DataInfo, Encoder, Method
from sslcli.rng import derive
from sslcli.runs import checkpoint, records
from sslcli.runs.files import read_file, replace_file, size_of, write_json
from sslcli.runs.find import find
from sslcli.runs.run import Run
from sslcli.runtime.cores import PHYSICAL_MEMORY
from sslcli.views import Views

GIVEN = ("backbone", "data")  # what a method's constructor is handed, where it asks for it


def new_backbone(cfg: dict[str, Any], shape: tuple[int, ...], seed: int) -> nn.Module:
    """A backbone with random weights: a function of the seed alone, whatever was built before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        return instantiate.build("backbone", cfg["backbone"], input_shape=shape)


def data_info_of(cfg: dict[str, Any], dataset: Dataset) -> DataInfo:
    """What a method may know of its data."""
    samples = len(dataset.pretrain)
    return DataInfo(samples, len(dataset.classes), samples // cfg["train"]["batch_size"])


def check_method(node: dict[str, Any]) -> None:
    """A method's YAML, and those of the methods inside it, against their signatures. RequestError."""
    instantiate.check("method", node, given=GIVEN)
    for part in _inner(node).values():
        check_method(part)


def method_class(node: dict[str, Any]) -> type[Method]:
    target = instantiate.resolve("method", node["_target_"])
    if not (isinstance(target, type) and issubclass(target, Method)):
        raise RequestError(f"`{node['_target_']}` is not a Method", "derive it from sslcli.methods.base.Method")
    return target


def classes(node: dict[str, Any]) -> list[type[Method]]:
    """The class of a method and those of the methods inside it."""
    return [method_class(node), *(kind for part in _inner(node).values() for kind in classes(part))]


def new_method(node: dict[str, Any], backbone: nn.Module, data: DataInfo, seed: int, dataset: Dataset) -> Method:
    """A method on `backbone` with new heads, for samples of `dataset`: a function of the seed alone. RequestError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "heads"))
        return _new_method(node, backbone, data, dataset)


def _new_method(node: dict[str, Any], backbone: nn.Module, data: DataInfo, dataset: Dataset) -> Method:
    check_method(node)
    target = method_class(node)
    parameters = inspect.signature(target, eval_str=True).parameters
    made = {name: _new_method(part, backbone, data, dataset) for name, part in _inner(node).items()}
    given: dict[str, Any] = {k: v for k, v in (("backbone", backbone), ("data", data)) if k in parameters}
    for name, parameter in parameters.items():
        if parameter.annotation is Encoder:
            given[name] = trained(node[name], dataset, f"method.{name}")
        elif name == "tasks" and made:
            given[name] = made
    keys = {k: v for k, v in node.items() if k not in given}
    method: Method = instantiate.build("method", keys, **given)
    method.plan = dict(node.get("plan") or {})
    return method


def _inner(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The methods inside a method: `tasks`, name -> YAML."""
    tasks = node.get("tasks")
    if not isinstance(tasks, dict):
        return {}
    return {str(name): part for name, part in tasks.items() if isinstance(part, dict) and "_target_" in part}


def trained(spec: str, dataset: Dataset, key: str) -> Encoder:
    """The frozen encoder of a run, for normalised samples of `dataset`. RequestError where its own had another shape."""
    other, info = load_encoder(place(spec))
    shape = tuple(info["input_shape"])
    if shape != tuple(dataset.shape):
        raise RequestError(
            f"{key}={spec} was trained on samples of shape {shape}; those of {dataset.name} have {tuple(dataset.shape)}",
            f"dataset.image_size={shape[-1]}" if len(shape) == 3 and shape[0] == dataset.shape[0] else None,
        )
    mean, std, its_mean, its_std = (torch.tensor(v) for v in (dataset.mean, dataset.std, info["mean"], info["std"]))
    return Encoder(other, std / its_std, (mean - its_mean) / its_std)


# ---------------------------------------------------------------------------------------------------------------- encoder


def place(spec: str) -> Path:
    """Where an encoder lies: a folder that `sslcli export` wrote, or a run (`find`)."""
    folder = Path(spec).expanduser()
    return folder if (folder / "encoder.json").is_file() else find(spec)


def write_encoder(folder: Path, weights: dict[str, Tensor], info: dict[str, Any]) -> None:
    """encoder.safetensors + encoder.json: the backbone alone, and how to build it (`info`, to which the SHA-256 is added)."""
    written = replace_file(folder, "encoder.safetensors", checkpoint.safetensors(weights))
    write_json(folder, "encoder.json", {**info, "sha256": written["sha256"]})


def described(path: Path) -> dict[str, Any]:
    """The encoder.json of a folder. TrainingError where it is absent, or does not say how to build the encoder."""
    again = _again(path)
    if size_of(path, "encoder.safetensors") is None or size_of(path, "encoder.json") is None:
        raise TrainingError(f"{path} has no encoder", again)
    info = records.encoder(path)
    if not records.describes(info):
        raise TrainingError(f"{path / 'encoder.json'} does not say what the encoder is", again)
    return {"step": 0, **info}


def _again(path: Path) -> str:
    """How the encoder in a folder is written again."""
    return f"{command('resume', path) if (path / 'status.json').is_file() else 'sslcli export'} writes it again"


def encoder_bytes(path: Path, info: dict[str, Any]) -> bytes:
    """The content of encoder.safetensors, verified against the SHA-256 in encoder.json. TrainingError."""
    file = path / "encoder.safetensors"
    try:
        content = read_file(path, "encoder.safetensors", PHYSICAL_MEMORY)
    except OSError as e:
        raise TrainingError(f"{file} cannot be read: {e.strerror or e}", _again(path)) from None
    if hashlib.sha256(content).hexdigest() != info["sha256"]:
        raise TrainingError(f"{file} does not match the SHA-256 in encoder.json", _again(path))
    return content


def has_encoder(path: Path) -> bool:
    """Whether a folder holds an encoder that can be loaded."""
    try:
        load_encoder(path)
    except (RequestError, TrainingError):
        return False
    return True


def load_encoder(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The backbone of a run or an exported folder, verified against the SHA-256 in encoder.json. TrainingError when absent or
    damaged."""
    from safetensors.torch import load

    info, file = described(path), path / "encoder.safetensors"
    content = encoder_bytes(path, info)
    backbone = instantiate.build("backbone", info["backbone"], input_shape=tuple(info["input_shape"]))
    with checkpoint.lies_are_told(file, _again(path)):
        tensors = load(content)
    checkpoint.load_strictly(backbone, tensors, str(file), _again(path))
    return backbone, {**info, "dim": backbone.dim}


def encoder_in(run: Run, saved: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The same of one of a run's checkpoints, which verifies: the backbone that the method says is measured (its teacher's, its
    own), and what encoder.json says of it. No sample is read: all that is asked of the data stands in the run's encoder.json."""
    info = described(run.path)
    data = Dataset(
        info["dataset"],
        info["modality"],
        tuple(info["input_shape"]),
        train=ArraySource(torch.empty(0)),
        test=None,
        mean=tuple(info["mean"]),
        std=tuple(info["std"]),
    )
    tensors, state = checkpoint.load(saved)
    method = method_of(run.valid_config, data, tensors, saved.name, facts_in(run.path))
    return method.eval_backbone, {**info, "step": state["step"], "dim": method.eval_backbone.dim}


def load_method(run: Run, cfg: dict[str, Any], dataset: Dataset) -> tuple[Method, Views]:
    """The whole method of a run with its heads, from the newest checkpoint that verifies, in eval mode; and the views of its
    plan. TrainingError where there is none."""
    found = checkpoint.load_newest(run.path / "checkpoints")
    if found is None:
        raise TrainingError(
            f"{run.path} has no checkpoint", f"{command('resume', run.path)} finishes the run and writes one"
        )
    method = method_of(cfg, dataset, found[0], "the checkpoint", facts_in(run.path))
    return method, Views(cfg["method"].get("plan") or {}, cfg["augmentation"], dataset)


def method_of(
    cfg: dict[str, Any],
    dataset: Dataset,
    tensors: dict[str, dict[str, Tensor]],
    what: str,
    facts: DataInfo | None = None,
) -> Method:
    """The method of a configuration with the weights of a checkpoint (`what`, for words), in eval mode. `facts`: of the data
    that it was trained on, where these are others."""
    backbone = new_backbone(cfg, dataset.shape, cfg["seed"])
    method = new_method(cfg["method"], backbone, facts or data_info_of(cfg, dataset), cfg["seed"], dataset)
    checkpoint.load_strictly(method, {**tensors["model"], **tensors.get("ema", {})}, what)
    return method.eval()


def facts_in(path: Path) -> DataInfo | None:
    """Of the data that a finished run was trained on, from its encoder.json."""
    known: dict[str, int] = records.encoder(path).get("facts", {})
    return DataInfo(**known) if set(known) == set(DataInfo.__annotations__) else None


def start_from(backbone: nn.Module, spec: str) -> str:
    """`init=RUN`: the weights of a run's backbone, or of an exported one; `init=FILE`: those of a file from elsewhere. All
    else starts anew. Says what was loaded. RequestError where the backbone is another."""
    if weights_file.is_file(spec):
        return weights_file.load_into(backbone, spec)
    other, info = load_encoder(place(spec))
    try:
        checkpoint.load_strictly(backbone, other.state_dict(), f"init={spec}")
    except TrainingError as e:
        words, shape = shlex.join(words_for(info["backbone"])), "x".join(map(str, info["input_shape"]))
        raise RequestError(e.message, f"it was made by {words} for samples of {shape} ({info['dataset']})") from None
    return f"init {spec}: all of the backbone"


def words_for(backbone: dict[str, Any]) -> list[str]:
    """What to type for a backbone's configuration: `backbone=NAME`, and the keys in which it differs from that YAML."""
    found: list[list[str]] = []
    for name, path in registry.choices("backbone").items():
        known = registry.describe(path, "backbone")
        if known.get("_target_") == backbone.get("_target_"):
            own = {k: v for k, v in backbone.items() if k not in ("_target_", "summary") and known.get(k) != v}
            found.append([f"backbone={name}", *(f"backbone.{k}={typed(v)}" for k, v in own.items())])
    return min(found, key=len, default=[])


def typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
