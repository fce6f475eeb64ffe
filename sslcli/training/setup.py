"""Build the objects of a pretraining run from its configuration: data, device, method, optimizer, loader."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sslcli import builders, console, optim
from sslcli.backbones.base import TokenBackbone, matching
from sslcli.backbones.temporal.frames import FrameBackbone
from sslcli.batch import Batch
from sslcli.config import Config, checks, instantiate, modalities
from sslcli.config.batch_size import auto_batch_size, check_batch_size
from sslcli.console import plural
from sslcli.data.dataset import Dataset
from sslcli.data.loading.loader import Loader
from sslcli.data.record import DataRecord
from sslcli.errors import DataError, RequestError, SslError, listing
from sslcli.formats.initial import (
    load_initial_heads,
    load_initial_weights,
    spec_preprocessor,
    with_initial_architecture,
)
from sslcli.formats.named_encoders import captions_of, with_saved_encoders
from sslcli.methods.base import Method
from sslcli.nn.norm import convert_sync_batchnorm
from sslcli.rng import Draw
from sslcli.runs import checkpoint
from sslcli.runs.identity import config_hash
from sslcli.runs.loggers import Loggers
from sslcli.runs.safetensors_file import hash_tensors
from sslcli.runtime import device as runtime
from sslcli.runtime import processes
from sslcli.runtime.device import Runtime
from sslcli.training.view_check import warn_of_identical_views
from sslcli.views import Views
from sslcli.views.image_text.captions import CaptionViews, encode_texts
from sslcli.views.images import compiled
from sslcli.views.modality import modality

EVALUATOR_ARGUMENTS = ("backbone", "dataset", "device", "workers", "autocast", "channels_last")  # see `online.py`


def check(cfg: Config) -> None:
    """RequestError for whatever is wrong with a configuration, as far as that shows without reading the data."""
    checks.check_values(cfg)
    builders.check_method(cfg["method"])
    instantiate.check("backbone", cfg["backbone"], given=["input_shape", "values"])
    instantiate.check("dataset", cfg["dataset"])
    instantiate.check("optimizer", cfg["optimizer"], given=["params"])
    instantiate.partial("schedule", cfg["schedule"], "progress")(0.0)  # raises where a value is out of range
    instantiate.check("evaluator", cfg["evaluator"], given=EVALUATOR_ARGUMENTS)


@dataclass
class TrainingSetup:
    """The objects of one pretraining run."""

    cfg: Config
    dataset: Dataset
    runtime: Runtime
    views: Views
    loader: Loader
    method: Method
    optimizer: torch.optim.Optimizer
    lr: float  # the peak learning rate, scaled with the batch
    lr_derivation: str  # "0.5 = 0.25 x 512 / 256 (linear)"
    steps: int | None  # None: `train.budget` decides
    auto_batch_size: bool = False  # whether `train.batch_size` was `auto`
    init_note: str = ""  # where the backbone's initial weights come from, with `init`
    given: str = ""  # the SHA-256 of these weights
    record: DataRecord | None = None  # of the data, where the run is resumed
    catch_signals: bool = (
        True  # whether training handles SIGINT, SIGTERM and the like; the Python interface leaves them alone
    )

    @property
    def config_hash(self) -> str:
        return config_hash(self.cfg)


def prepare(cfg: Config, rehearsal: bool = True, record: DataRecord | None = None) -> TrainingSetup:
    """Check a configuration and build its run. Every error of the request is raised here, before a run folder is created.

    Args:
        rehearsal: Whether to run one forward pass on blank samples. False in worker processes, where it would wait for others.
        record: What a resumed run recorded about its data.
    """
    start = time.perf_counter()
    check(cfg)
    if rehearsal:  # rank 0 alone logs
        Loggers(cfg["logger"]).check()
        if cfg["dataset"].get("path"):
            console.say(f"reading {cfg['dataset']['path']}")
    dataset = builders.load_dataset(cfg, record)
    console.detail(f"data ready after {time.perf_counter() - start:.2f} s (fingerprint {dataset.fingerprint[:12]})")
    targets = builders.method_classes(cfg["method"])
    check_data_for_method(targets, dataset)
    process = processes.process_info(cfg["train"]["devices"], runtime.kind_of(cfg["device"]))
    auto = cfg["train"]["batch_size"] == "auto"
    init = cfg.get("init") if record is None else init_of_run(cfg, Path(record.run))
    cfg = resolve_batch_size(cfg, dataset, process.world_size)
    cfg = with_initial_architecture(cfg, dataset.shape) if init else cfg
    train, seed = cfg["train"], cfg["seed"]
    if process.world_size == 1 and train["strategy"] == "fsdp":
        raise RequestError("train.strategy=fsdp needs several devices, and there is one", "add train.devices=auto")
    kind = modality(dataset.modality)
    machine = runtime.start(cfg["device"], channels_last=kind.channels_last, process=process, training=True)
    machine.native = compiled.configure(cfg["device"].get("native", "auto"), machine.device, kind.native)
    check_min_batch(targets, train, process.world_size)
    if train["freeze"] == "all" and not any(target.uses_captions for target in targets):
        raise RequestError(
            f"train.freeze=all: {targets[0].__name__} trains no other network than the backbone", "train.freeze=1, or 0"
        )
    backbone = builders.new_backbone(cfg, dataset, seed)
    check_backbone(targets, backbone, dataset)
    init_note = load_initial_weights(backbone, init) if init else ""
    given = hash_tensors(backbone.state_dict()) if init else ""
    builders.restrict_training(backbone, train, seed)
    views = Views(cfg["method"].get("plan") or {}, cfg["augmentation"], dataset)
    own = cfg if record is None else with_saved_encoders(cfg, Path(record.run))
    method = builders.new_method(own["method"], backbone, builders.describe_data(cfg, dataset), seed, dataset)
    if init:
        init_note += load_initial_heads(method, init)
    if rehearsal:
        if not all(target.uses_labels for target in targets):
            warn_of_identical_views(views, cfg["augmentation"], dataset.pretrain)
        shared = process.world_size > 1 and train["sync_batchnorm"]  # statistics of all processes together
        rehearse(
            method, views, dataset, 2 if shared else train["batch_size"] // (train["accumulate"] * process.world_size)
        )
    machine.place(method)
    if process.world_size > 1 and train["sync_batchnorm"]:
        convert_sync_batchnorm(method)
    lr, derivation = optim.scaled_lr(cfg["optimizer"]["lr"], train["batch_size"], cfg["optimizer"].get("lr_batch"))
    optimizer = optim.build_optimizer(cfg["optimizer"], method, lr, machine.compile is not False, train["layer_decay"])
    loader = Loader(
        dataset.pretrain,
        views,
        batch_size=train["batch_size"],
        seed=seed,
        device=machine.device,
        workers=machine.workers,
        accumulate=train["accumulate"],
        rank=process.rank,
        world_size=process.world_size,
        labels=method.uses_labels,
        captions=caption_views(dataset, machine.device) if method.uses_captions else None,
    )
    steps = None
    if train["budget"] is None:
        steps = train["epochs"] * loader.steps_per_epoch if train["steps"] is None else train["steps"]
    setup = TrainingSetup(
        cfg, dataset, machine, views, loader, method, optimizer, lr, derivation, steps, auto, init_note, given, record
    )
    console.detail(f"all built after {time.perf_counter() - start:.2f} s; config hash {setup.config_hash}")
    return setup


def init_of_run(cfg: Config, run: Path) -> str | None:
    """`init` of a run that is resumed; None where what it names is gone and a checkpoint has later weights."""
    spec: str | None = cfg.get("init")
    if not spec:
        return None
    try:
        spec_preprocessor(spec, cfg["dataset"])
    except SslError:
        if all(checkpoint.verify(saved) is not None for saved in checkpoint.existing(run / "checkpoints")):
            raise
        console.say(f"init {spec} is gone: the weights are those of the checkpoint")
        return None
    return spec


def resolve_batch_size(cfg: Config, dataset: Dataset, world_size: int = 1) -> Config:
    """The configuration with an integer for `train.batch_size=auto`. RequestError where the batch does not fit the data or the
    processes, DataError where there are fewer than two samples."""
    train, n = cfg["train"], len(dataset.pretrain)
    if n < 2:
        raise DataError(f"{dataset.name} has {plural(n, 'training sample')}: expected at least 2")
    if train["batch_size"] == "auto":
        train = {
            **train,
            "batch_size": auto_batch_size(n, modality(dataset.modality).batch_size, train["accumulate"] * world_size),
        }
    check_batch_size(train["batch_size"], train["accumulate"], world_size, n)
    return {**cfg, "train": train}


def check_batch_sizes(cfgs: list[Config]) -> None:
    """RequestError where the batch size of one of several configurations does not fit its data. Each data set is loaded once."""
    datasets: dict[str, Dataset] = {}
    for cfg in cfgs:
        if cfg["train"]["batch_size"] != "auto":
            key = json.dumps([cfg["dataset"], cfg["train"].get("classes")], sort_keys=True, default=str)
            if key not in datasets:
                datasets[key] = builders.load_dataset(cfg)
            resolve_batch_size(cfg, datasets[key])


NEEDS = (  # what a method requires, the attribute of backbones that have it, what it is, and their class
    ("positions", "patchify", "tokens", TokenBackbone),
    ("time", "frame_values", "frames", FrameBackbone),
)
REMOVED = {  # attributes of methods in earlier versions -> what `requires` says instead
    "needs_tokens": '"positions" for a backbone with tokens',
    "modalities": '"pixels" for images alone, "time" for series, "columns" for tables, ...',
}


def check_data_for_method(targets: list[type[Method]], dataset: Dataset) -> None:
    """RequestError where data of this modality lack what a method requires, or labels are missing that it learns from. Warns of
    attributes that were removed."""
    for target in targets:
        for name in (name for name in REMOVED if hasattr(target, name)):
            console.warn(
                f"{target.__name__}.{name} has no effect: it was replaced by `requires`",
                f"requires = frozenset({{...}}): {REMOVED[name]}; sslcli list modalities prints all words",
            )
        missing = target.requires - modalities.provides(dataset.modality)
        if missing:
            words = ", ".join(f"{modalities.WORDS.get(word, word)} (`{word}`)" for word in sorted(missing))
            raise RequestError(
                f"{target.__name__} requires {words}, which data of modality {dataset.modality} do not provide",
                f"methods for {dataset.modality}: {listing(modalities.methods_for(dataset.modality))}; all are in "
                "`sslcli list methods`",
            )
        if target.uses_labels and not dataset.classes:
            raise RequestError(
                f"{target.__name__} learns from labels, and {dataset.name} has none",
                "choose a method without labels: method=simclr; or provide labels: dataset.path=LIST with the columns "
                "path,label,split, where labels may be missing",
            )


def caption_views(dataset: Dataset, device: torch.device) -> CaptionViews:
    """The captions of the samples of pretraining. RequestError where they have none."""
    preprocessor = captions_of(dataset)
    if dataset.pretrain.captions is None:
        raise RequestError(f"the samples of {dataset.name} that pretraining reads have no captions")
    return CaptionViews(dataset.pretrain.captions, preprocessor, device)


def check_min_batch(targets: list[type[Method]], train: Config, world_size: int) -> None:
    """RequestError where a micro-batch is smaller than a method's `min_batch`."""
    smallest = max(t.min_batch for t in targets) * train["accumulate"] * world_size
    if train["batch_size"] < smallest:
        raise RequestError(
            f"train.batch_size={train['batch_size']}: {targets[0].__name__} needs at least {smallest} samples at a time"
        )


def check_backbone(targets: list[type[Method]], backbone: nn.Module, dataset: Dataset) -> None:
    """RequestError where a method requires positions and the backbone has no tokens, or a time axis and it has no frames."""
    for target in targets:
        for word, attribute, features, base in NEEDS:
            if word in target.requires and not hasattr(backbone, attribute):
                kind = modalities.description(dataset.modality)
                usual = (kind.get("token_backbone"), kind.get("backbone"))
                others = matching(dataset.values.kind, dataset.shape, base)
                names = sorted(others, key=lambda name: name not in usual)  # the usual one first
                raise RequestError(
                    f"{target.__name__} needs a backbone with {features}; {type(backbone).__name__} has none",
                    f"choose one of backbone={', '.join(names)}" if names else None,
                )


def rehearse(method: Method, views: Views, dataset: Dataset, micro_batch: int = 2) -> None:
    """Run one forward pass of a copy on a few blank samples, so that a mismatch of shapes or widths shows before any work.

    `micro_batch`: samples at a time of the training; RequestError where that is 1 and a batch norm would see a single value."""
    n = 1 if micro_batch == method.min_batch == 1 else max(2, method.min_batch)
    draw = Draw(0, 0, torch.arange(n))
    kind = modality(dataset.modality)
    blank = [kind.dummy(shape, dataset.values, n) for shape in views.shapes]
    labels = torch.zeros(n, dtype=torch.int64) if method.uses_labels else None
    captions = encode_texts(["a"] * n, captions_of(dataset)) if method.uses_captions else None
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            copy.deepcopy(method)(Batch(blank, views.kinds, draw, labels, captions))
        except ValueError as e:
            if n > 1 or not str(e).startswith("Expected more than 1 value per channel"):  # torch's, of any batch norm
                raise
            raise RequestError(
                f"train.batch_size: {type(method).__name__} sees one sample at a time, and batch normalization in the network "
                f"({type(method.backbone).__name__}, or a head) needs two",
                "a larger train.batch_size, a smaller train.accumulate, or a backbone without batch norm, such as a transformer",
            ) from None
