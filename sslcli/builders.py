"""Data set, backbone and method from a configuration; trained encoders and methods from a run."""

from __future__ import annotations

import inspect
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslcli import console
from sslcli.backbones import weights_file
from sslcli.config import instantiate
from sslcli.data import notify
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.record import DataRecord, apply_record, with_absolute_path, with_recorded_path
from sslcli.data.subset import Subset
from sslcli.errors import DataError, RequestError, TrainingError, command, listing, nearest
from sslcli.methods.base import DataInfo, Encoder, Method
from sslcli.rng import derive
from sslcli.runs import checkpoint, records
from sslcli.runs.encoder import backbone_overrides, load_encoder, locate_encoder, read_info
from sslcli.runs.run import Run
from sslcli.runtime import progress
from sslcli.views import Views

GIVEN = ("backbone", "data")  # what a method's constructor is handed, where it asks for it


def load_dataset(cfg: dict[str, Any], record: DataRecord | None = None, download: bool = True) -> Dataset:
    """The data set, its progress and warnings told on stderr. `record`: of the run whose data it must be; DataError where
    it is not. `download=False` for the configuration of a run that is only read: whatever it says, nothing is fetched."""
    notify.set_hooks(log=console.say, progress=progress.count)
    node = with_absolute_path(cfg["dataset"]) if record is None else with_recorded_path(cfg["dataset"], record)
    wanted = cfg["dataset"] if record is None else node
    if not download and wanted.get("download"):
        wanted = {**wanted, "download": False}
    with progress.task("data set"):
        dataset: Dataset = instantiate.build("dataset", wanted)
    dataset = replace(dataset, path=node.get("path"))
    wanted = cfg.get("train", {}).get("classes")
    dataset = dataset if wanted is None else restrict_to_classes(dataset, wanted)
    return dataset if record is None else apply_record(dataset, record)


def restrict_to_classes(dataset: Dataset, wanted: Any) -> Dataset:
    """The same, but pretraining reads the training samples of some classes alone (names, or numbers). RequestError."""
    names = [str(w) for w in (wanted if isinstance(wanted, list) else [wanted])]
    known = [str(c) for c in dataset.classes]
    for name in names:
        if name not in known:
            close = nearest(name, known)
            raise RequestError(
                f"train.classes: {dataset.name} has no class {name}; it has {listing(known) or 'no labels'}",
                f"train.classes=[{close}]" if close else None,
            )
    if not names or dataset.train.labels is None:
        raise RequestError("train.classes names at least one class", "train.classes=null pretrains on all")
    ids = torch.isin(dataset.train.labels, torch.tensor([known.index(n) for n in names])).nonzero().flatten()
    if not len(ids):
        raise RequestError(f"no training sample of {dataset.name} is of class {', '.join(names)}")
    note = f"pretraining reads the {len(ids):,} training samples of class {', '.join(names)} alone (train.classes)"
    part = Subset(dataset.train, ids, dataset.train.labels[ids])
    return replace(dataset, unlabelled=part, notes=[*dataset.notes, note])


def require_fingerprint(dataset: Dataset, fingerprint: str) -> None:
    """DataError where this process reads other data than rank 0, whose fingerprint is given."""
    if dataset.fingerprint != fingerprint:
        raise DataError(
            f"the data of {dataset.name} are not those of rank 0 (fingerprint {dataset.fingerprint[:12]}, there "
            f"{fingerprint[:12]})",
            "every machine must read the same files",
        )


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
    other, info = load_encoder(locate_encoder(spec))
    shape = tuple(info["input_shape"])
    if shape != tuple(dataset.shape):
        raise RequestError(
            f"{key}={spec} was trained on samples of shape {shape}; those of {dataset.name} have {tuple(dataset.shape)}",
            f"dataset.image_size={shape[-1]}" if len(shape) == 3 and shape[0] == dataset.shape[0] else None,
        )
    mean, std, its_mean, its_std = (torch.tensor(v) for v in (dataset.mean, dataset.std, info["mean"], info["std"]))
    return Encoder(other, std / its_std, (mean - its_mean) / its_std)


def encoder_in(run: Run, saved: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The same of one of a run's checkpoints, which verifies: the backbone that the method says is measured (its teacher's, its
    own), and what encoder.json says of it. No sample is read: all that is asked of the data stands in the run's encoder.json."""
    info = read_info(run.path)
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
    other, info = load_encoder(locate_encoder(spec))
    try:
        checkpoint.load_strictly(backbone, other.state_dict(), f"init={spec}")
    except TrainingError as e:
        words, shape = shlex.join(backbone_overrides(info["backbone"])), "x".join(map(str, info["input_shape"]))
        raise RequestError(e.message, f"it was made by {words} for samples of {shape} ({info['dataset']})") from None
    return f"init {spec}: all of the backbone"
