"""Data set, backbone and method from a configuration; trained encoders and methods from a run."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from sslcli import console
from sslcli.backbones.base import Backbone
from sslcli.backbones.layers import freeze
from sslcli.backbones.weights.families import IMAGENET, Normalization
from sslcli.config import Config, instantiate, typecheck
from sslcli.data import notify, preprocess
from sslcli.data.dataset import ArraySource, Dataset, Preprocessor
from sslcli.data.record import DataRecord, apply_record, path_keys, with_absolute_paths, with_recorded_paths
from sslcli.data.samples.exclude import exclude
from sslcli.data.subset import Subset
from sslcli.errors import DataError, RequestError, TrainingError, listing, nearest
from sslcli.formats.images import of_channels
from sslcli.formats.initial import initial_preprocessor
from sslcli.formats.named_encoders import captions_like, load_frozen_encoder, new_tower, tasks_of, with_saved_encoders
from sslcli.methods.base import DataInfo, Encoder, Method, Tower
from sslcli.nn.lora import add_lora, merge_lora
from sslcli.rng import derive
from sslcli.runs import Record, checkpoint, records
from sslcli.runs.encoder import build_backbone, read_info, values_of
from sslcli.runs.find import resume_command
from sslcli.runs.run import Run
from sslcli.runtime import progress
from sslcli.views import Views

GIVEN = ("backbone", "data")  # arguments of a method's constructor that do not come from its YAML


def load_dataset(
    cfg: Config, record: DataRecord | None = None, download: bool = True, like: Preprocessor | None = None
) -> Dataset:
    """Loads the data set of a configuration; progress and warnings go to stderr.

    - `record`: of the run whose data it must be; DataError where it is not.
    - `like`: the preprocessor to use instead of fitting one, for data sets whose function has this argument; None: that of the
      run, or of the encoder that `init` names.
    - `download`: False for the configuration of a run that is only read: nothing is downloaded, even if it requests a download."""
    notify.set_hooks(log=console.say, progress=progress.count)
    node = with_absolute_paths(cfg["dataset"]) if record is None else with_recorded_paths(cfg["dataset"], record)
    options = cfg["dataset"] if record is None else node
    if not download and options.get("download"):
        options = {**options, "download": False}
    fitted: dict[str, Preprocessor | None] = {}
    if instantiate.takes("dataset", options, "like"):
        fitted = {"like": like or (initial_preprocessor(cfg) if record is None else record.preprocessor)}
        _check_kind(options, fitted["like"])
    if record is None and like is None and instantiate.takes("dataset", options, "like_captions"):
        fitted["like_captions"] = captions_like(cfg)
    with progress.task("data set"):
        dataset: Dataset = instantiate.build("dataset", options, **fitted)
    others = {
        key: path
        for key in path_keys(node)
        if key != "path" and isinstance(path := node.get(key), str) and os.path.isabs(path)
    }
    dataset = normalize(replace(dataset, path=node.get("path"), other_paths=others), cfg.get("normalization"))
    if isinstance(file := node.get("exclude"), str):
        dataset = exclude(dataset, file)
    classes = cfg.get("train", {}).get("classes")
    dataset = dataset if classes is None else restrict_to_classes(dataset, classes)
    return dataset if record is None else apply_record(dataset, record)


def _check_kind(node: Config, like: Preprocessor | None) -> None:
    """RequestError where `like` is none of the preprocessors that the function of a data set takes, by its annotation."""
    target = instantiate.resolve("dataset", node["_target_"])
    annotation = inspect.signature(target, eval_str=True).parameters["like"].annotation
    kinds = tuple(t for t in get_args(annotation) or (annotation,) if isinstance(t, type) and t is not type(None))
    if like is not None and kinds and not isinstance(like, kinds):
        own = " or ".join(kind.kind for kind in kinds if issubclass(kind, Preprocessor))
        raise RequestError(
            f"this encoder takes {like.kind} samples; those of {node.get('name', 'the data set')} are {own}",
            f"a data set of the modality {like.kind}",
        )


def normalize(dataset: Dataset, rule: object) -> Dataset:
    """A data set of images with another mean and standard deviation of its channels: `imagenet`, or {"mean": [...], "std": [...]};
    `data` and None leave those of the training data. RequestError."""
    if rule in (None, "data"):
        return dataset
    known = Normalization(*IMAGENET, "ImageNet") if rule == "imagenet" else None
    if isinstance(rule, dict) and rule.keys() == {"mean", "std"}:
        mean, std = (v if isinstance(v, list) else [v] for v in rule.values())
        if typecheck.matches_type([*mean, *std], list[float]) and len(mean) == len(std) > 0 and min(std) > 0:
            known = Normalization(tuple(map(float, mean)), tuple(map(float, std)), "")
    if known is None:
        raise RequestError(f"normalization: expected data, imagenet, or {{mean: [...], std: [...]}}, got '{rule}'")
    values = of_channels(known, dataset.shape[0])
    if not values.fits(dataset.shape) or not isinstance(dataset.values, type(values)):
        raise RequestError(
            f"normalization={rule}: {dataset.name} has {dataset.values.describe()}", "normalization=data"
        )
    own = dataset.preprocessor
    return replace(dataset, values=values, preprocessor=None if own is None else own.with_values(values))


def restrict_to_classes(dataset: Dataset, classes: object) -> Dataset:
    """Restricts pretraining to the training samples of some classes, given by name or index. RequestError."""
    names = [str(c) for c in (classes if isinstance(classes, list) else [classes])]
    known = [str(c) for c in dataset.classes]
    for name in names:
        if name not in known:
            close = nearest(name, known)
            raise RequestError(
                f"train.classes: {dataset.name} has no class {name}; it has {listing(known) or 'no labels'}",
                f"train.classes=[{close}]" if close else None,
            )
    if not names or dataset.train.labels is None:
        raise RequestError(
            "train.classes must name a class of a labelled data set", "train.classes=null pretrains on all"
        )
    ids = torch.isin(dataset.train.labels, torch.tensor([known.index(n) for n in names])).nonzero().flatten()
    if not len(ids):
        raise RequestError(f"{dataset.name} has no training sample of class {', '.join(names)}")
    note = f"pretraining reads the {len(ids):,} training samples of class {', '.join(names)} alone (train.classes)"
    part = Subset(dataset.train, ids, dataset.train.labels[ids])
    return replace(dataset, unlabelled=part, notes=[*dataset.notes, note])


def require_fingerprint(dataset: Dataset, fingerprint: str) -> None:
    """DataError where this process reads other data than rank 0. `fingerprint`: that of rank 0."""
    if dataset.fingerprint != fingerprint:
        raise DataError(
            f"the data of {dataset.name} are not those of rank 0 (fingerprint {dataset.fingerprint[:12]}, there "
            f"{fingerprint[:12]})",
            "every machine must read the same files",
        )


def new_backbone(cfg: Config, dataset: Dataset, seed: int) -> nn.Module:
    """A backbone for the samples of a data set with random weights, a function of the seed alone."""
    target = instantiate.resolve("backbone", cfg["backbone"]["_target_"])
    if isinstance(target, type) and issubclass(target, Backbone):  # the constructor may not be given the values
        target.check_samples(dataset.shape, dataset.values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        return build_backbone(cfg["backbone"], dataset.shape, dataset.values)


def restrict_training(backbone: nn.Module, train: Config, seed: int) -> None:
    """Freezes the layers of a backbone with its initial weights that `train.freeze` names, and adds the updates of `train.lora`."""
    if train.get("freeze"):
        freeze(backbone, train["freeze"])
    if rank := train.get("lora"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "lora"))
            if not add_lora(backbone, rank):
                raise RequestError(
                    f"train.lora={rank} requires linear layers; {type(backbone).__name__} has none that are trained",
                    "choose a transformer, such as backbone=vit_tiny; or train.freeze=N",
                )


def describe_data(cfg: Config, dataset: Dataset) -> DataInfo:
    """What a method may know about its data: numbers of samples, classes and steps per epoch."""
    samples = len(dataset.pretrain)
    return DataInfo(samples, len(dataset.classes), samples // cfg["train"]["batch_size"])


def check_method(node: Config) -> None:
    """Checks a method's YAML, and those of its tasks, against the signatures of the classes. RequestError."""
    instantiate.check("method", node, given=GIVEN)
    for part in tasks_of(node).values():
        check_method(part)


def method_class(node: Config) -> type[Method]:
    target = instantiate.resolve("method", node["_target_"])
    if not (isinstance(target, type) and issubclass(target, Method)):
        raise RequestError(f"`{node['_target_']}` is not a Method", "derive it from sslcli.methods.base.Method")
    return target


def method_classes(node: Config) -> list[type[Method]]:
    """The class of a method and those of its tasks."""
    return [method_class(node), *(kind for part in tasks_of(node).values() for kind in method_classes(part))]


def new_method(node: Config, backbone: nn.Module, data: DataInfo, seed: int, dataset: Dataset) -> Method:
    """A method on `backbone` with newly initialized heads, a function of the seed alone. RequestError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "heads"))
        return _new_method(node, backbone, data, dataset)


def _new_method(node: Config, backbone: nn.Module, data: DataInfo, dataset: Dataset) -> Method:
    check_method(node)
    target = method_class(node)
    parameters = inspect.signature(target, eval_str=True).parameters
    tasks = {name: _new_method(part, backbone, data, dataset) for name, part in tasks_of(node).items()}
    given: dict[str, Any] = {k: v for k, v in (("backbone", backbone), ("data", data)) if k in parameters}
    for name, parameter in parameters.items():
        if parameter.annotation is Encoder:
            given[name] = load_frozen_encoder(node[name], dataset, f"method.{name}")
        elif parameter.annotation is Tower:
            given[name] = new_tower(node[name], dataset, f"method.{name}")
        elif name == "tasks" and tasks:
            given[name] = tasks
    keys = {k: v for k, v in node.items() if k not in given}
    method: Method = instantiate.build("method", keys, **given)
    method.plan = dict(node.get("plan") or {})
    return method


def load_checkpoint_method(run: Run, saved: Path) -> tuple[Method, Record]:
    """The method from a valid checkpoint, in evaluation mode, and the encoder.json of its `eval_backbone` (the online one, or the
    teacher).

    No sample is read: encoder.json of the run describes the data."""
    info = read_info(run.path)
    data = Dataset(
        info["dataset"],
        info["modality"],
        tuple(info["input_shape"]),
        train=ArraySource(torch.empty(0)),
        test=None,
        values=values_of(info),
        preprocessor=preprocess.of_encoder(run.path, info),
    )
    tensors, state = checkpoint.load(saved)
    cfg = with_saved_encoders(run.valid_config, run.path)
    method = method_from_checkpoint(cfg, data, tensors, saved.name, recorded_data_info(run.path))
    return method, {**info, "step": state["step"], "dim": method.eval_backbone.dim}


def load_method(run: Run, cfg: Config, dataset: Dataset) -> tuple[Method, Views]:
    """The method of a run with its heads, in eval mode, from the newest valid checkpoint; and the views of its plan.

    TrainingError where the run has no checkpoint."""
    snapshot = checkpoint.load_newest(run.path / "checkpoints")
    if snapshot is None:
        raise TrainingError(
            f"{run.path} has no checkpoint", f"{resume_command(run.path)} finishes the run and writes one"
        )
    own = with_saved_encoders(cfg, run.path)
    method = method_from_checkpoint(own, dataset, snapshot[0], "the checkpoint", recorded_data_info(run.path))
    return method, Views(cfg["method"].get("plan") or {}, cfg["augmentation"], dataset)


def untrained_method(run: Run, cfg: Config, dataset: Dataset, seed: int) -> Method:
    """The method of a run with random weights, in eval mode, a function of the seed."""
    info = recorded_data_info(run.path) or describe_data(cfg, dataset)
    own = with_saved_encoders(cfg, run.path)
    return new_method(own["method"], new_backbone(cfg, dataset, seed), info, seed, dataset).eval()


def method_from_checkpoint(
    cfg: Config,
    dataset: Dataset,
    tensors: dict[str, dict[str, Tensor]],
    what: str,
    info: DataInfo | None = None,
) -> Method:
    """The method of a configuration with the weights of a checkpoint, in eval mode.

    - `tensors`: the checkpoint, by file; `what` names it in messages.
    - `info`: of the data that the method was trained on, if they are not `dataset`."""
    backbone = new_backbone(cfg, dataset, cfg["seed"])
    restrict_training(backbone, cfg["train"], cfg["seed"])
    method = new_method(cfg["method"], backbone, info or describe_data(cfg, dataset), cfg["seed"], dataset)
    checkpoint.load_strictly(method, {**tensors["model"], **tensors.get("ema", {})}, what)
    merge_lora(method)
    return method.eval()


def recorded_data_info(path: Path) -> DataInfo | None:
    """What the method of a finished run knew about its data, from encoder.json."""
    known: dict[str, int] = records.encoder(path).get("facts", {})
    return DataInfo(**known) if set(known) == set(DataInfo.__annotations__) else None
