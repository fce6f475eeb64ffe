"""From a checked configuration to the objects of one job, each built once, and every derived number with its derivation."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcli import builders, console, optim
from sslcli.backbones.convnet import ConvNet
from sslcli.config import checks, instantiate
from sslcli.console import human_count, plural
from sslcli.data.dataset import Dataset
from sslcli.data.images.options import MAX_SIZE
from sslcli.data.label_warnings import label_notes
from sslcli.data.loading.loader import Loader
from sslcli.data.record import DataRecord
from sslcli.data.subset import unlabelled_only
from sslcli.errors import DataError, RequestError
from sslcli.methods.base import Batch, Method
from sslcli.nn.norm import synchronised
from sslcli.rng import Draw
from sslcli.runs.encoder import write_encoder
from sslcli.runs.identity import config_hash
from sslcli.runs.loggers import Loggers
from sslcli.runs.run import Run
from sslcli.runtime import device as runtime
from sslcli.runtime import processes
from sslcli.runtime.device import Runtime
from sslcli.views import Views, native

ONLINE = (
    "backbone",
    "dataset",
    "device",
    "workers",
    "autocast",
    "channels_last",
)  # what the trainer hands its evaluator


def check(cfg: dict[str, Any]) -> None:
    """Everything that can be said about a configuration without touching the data. RequestError."""
    checks.check_values(cfg)
    builders.check_method(cfg["method"])
    instantiate.check("backbone", cfg["backbone"], given=["input_shape"])
    instantiate.check("dataset", cfg["dataset"])
    instantiate.check("optimizer", cfg["optimizer"], given=["params"])
    instantiate.partial("schedule", cfg["schedule"], "progress")(0.0)  # it refuses values out of range
    instantiate.check("evaluator", cfg["evaluator"], given=ONLINE)


@dataclass
class Job:
    """All that one pretraining needs."""

    cfg: dict[str, Any]
    dataset: Dataset
    runtime: Runtime
    views: Views
    loader: Loader
    method: Method
    optimizer: torch.optim.Optimizer
    lr: float
    steps: int | None  # None: the budget decides
    derived: dict[str, str] = field(default_factory=dict)
    record: DataRecord | None = None  # of the run's data, where the run is resumed

    @property
    def config_hash(self) -> str:
        return config_hash(self.cfg)


LARGEST_AUTO_BATCH = 256


def settled(cfg: dict[str, Any], dataset: Dataset, world_size: int = 1) -> dict[str, Any]:
    """The configuration with a number for `train.batch_size: auto`: 256, or for fewer samples the largest power of two of which two
    make an epoch, in portions that processes and micro-batches can share. RequestError where a number is too large."""
    train, n = cfg["train"], len(dataset.pretrain)
    largest = max(2, 1 << max(0, n.bit_length() - 2))  # at most n / 2
    portions = train["accumulate"] * world_size
    if train["batch_size"] == "auto":
        batch = LARGEST_AUTO_BATCH if n >= LARGEST_AUTO_BATCH else largest
        train = {**train, "batch_size": max(1, batch // portions) * portions}
    if n < 2:
        raise DataError(f"{dataset.name} has {plural(n, 'training sample')}: two at least are needed")
    if train["batch_size"] > n:
        raise RequestError(
            f"train.batch_size={train['batch_size']} is more than the {n:,} training samples of {dataset.name}",
            f"train.batch_size=auto, or {largest}",
        )
    return {**cfg, "train": train}


def check_batches(requests: list[dict[str, Any]]) -> None:
    """Whether the batch sizes of several configurations fit their data, each data set loaded once. RequestError."""
    loaded: dict[str, Dataset] = {}
    for cfg in requests:
        if cfg["train"]["batch_size"] != "auto":
            key = json.dumps([cfg["dataset"], cfg["train"].get("classes")], sort_keys=True, default=str)
            if key not in loaded:
                loaded[key] = builders.load_dataset(cfg)
            settled(cfg, loaded[key])


def prepare(cfg: dict[str, Any], rehearsal: bool = True, record: DataRecord | None = None) -> Job:
    """Checks and builds. Every mistake of the request comes out here, before any folder is made.

    `record`: of the data of the run that is resumed.
    `rehearsal=False` in a process that follows another: a forward pass there would wait for the others."""
    began = time.perf_counter()
    check(cfg)
    if rehearsal:  # only who leads tells others
        Loggers(cfg["logger"]).check()
    seed = cfg["seed"]
    if rehearsal and cfg["dataset"].get("path"):
        console.say(f"reading {cfg['dataset']['path']}")  # a sign of life: many files take a while
    dataset = builders.load_dataset(cfg, record)
    console.detail(f"data ready after {time.perf_counter() - began:.2f} s (fingerprint {dataset.fingerprint[:12]})")
    process = processes.process_info(cfg["train"]["devices"], runtime.kind_of(cfg["device"]))
    asked, cfg = cfg["train"]["batch_size"], settled(cfg, dataset, process.world_size)
    train = cfg["train"]
    if process.world_size == 1 and train["strategy"] == "fsdp":
        raise RequestError(
            "train.strategy=fsdp shards over several devices, and there is one", "add train.devices=auto"
        )
    images = len(dataset.shape) == 3
    machine = runtime.start(cfg["device"], images=images, process=process)
    machine.native = native.configure(cfg["device"].get("native", "auto"), machine.device, images)
    source, batch = dataset.pretrain, train["batch_size"]
    targets = builders.classes(cfg["method"])
    facts = builders.data_info_of(cfg, dataset)
    for target in targets:
        if dataset.modality not in target.modalities:
            raise RequestError(
                f"{target.__name__} is for data of kind {' or '.join(target.modalities)}; {dataset.name} is {dataset.modality}",
                f"`sslcli list methods` says what each takes; method=simclr takes {dataset.modality} too",
            )
        if target.uses_labels and not facts.classes:
            raise RequestError(
                f"{target.__name__} learns from labels, and {dataset.name} has none",
                "choose a method that needs none: method=simclr; or give it labels: as dataset.path a list path,label,split, where "
                "any label may be missing",
            )
    smallest = max(t.min_batch for t in targets) * train["accumulate"] * process.world_size
    if batch < smallest:
        raise RequestError(
            f"train.batch_size={batch}: {targets[0].__name__} needs at least {smallest} samples at a time"
        )
    backbone = builders.new_backbone(cfg, dataset.shape, seed)
    for target in targets:
        if target.needs_tokens and not hasattr(backbone, "patchify"):
            raise RequestError(
                f"{target.__name__} needs a backbone with tokens; {type(backbone).__name__} has none",
                "use backbone=vit_tiny",
            )
    started = None
    if cfg.get("init"):
        started = builders.start_from(backbone, cfg["init"])
    views = Views(cfg["method"].get("plan") or {}, cfg["augmentation"], dataset)
    method = builders.new_method(cfg["method"], backbone, facts, seed, dataset)
    if rehearsal:
        rehearse(method, views, dataset)
    machine.place(method)
    if process.world_size > 1 and train["sync_batchnorm"]:
        synchronised(method)
    lr, derivation = optim.scaled_lr(cfg["optimizer"]["lr"], batch, cfg["optimizer"].get("lr_batch"))
    optimizer = optim.make(cfg["optimizer"], method, lr, machine.compile)
    loader = Loader(
        source,
        views,
        batch_size=batch,
        seed=seed,
        device=machine.device,
        workers=machine.workers,
        accumulate=train["accumulate"],
        rank=process.rank,
        world_size=process.world_size,
        labels=method.uses_labels,
    )
    job = Job(cfg, dataset, machine, views, loader, method, optimizer, lr, None, record=record)
    per_epoch = loader.steps_per_epoch
    if train["budget"] is None:
        job.steps = train["steps"] or max(1, train["epochs"] * per_epoch)
    job.derived = {
        **({"init": started} if started else {}),
        "learning rate": derivation,
        "batch": f"{batch} = {batch // train['accumulate'] // process.world_size} x {train['accumulate']} accumulation x "
        + ("1 device" if process.world_size == 1 else f"{process.world_size} devices")
        + (f"; chosen for {len(source):,} samples" if asked == "auto" and batch < LARGEST_AUTO_BATCH else ""),
        "steps": f"{per_epoch} an epoch = {len(source):,} samples // {batch}",
        "compared": compared(targets, batch, batch // train["accumulate"]),
        "chosen": chosen(cfg, dataset),
        **{k: str(v) for k, v in method.describe().items()},
    }
    console.detail(f"all built after {time.perf_counter() - began:.2f} s; config hash {job.config_hash}")
    return job


def compared(methods: list[type[Method]], batch: int, together: int) -> str:
    """What a loss that compares samples sees of a batch that is accumulated `together` samples at a time; else nothing."""
    if together == batch or not any(m.compares for m in methods):
        return ""
    each = max(m.negatives for m in methods)
    negatives = f": {each * (together - 1):,} negatives, not {each * (batch - 1):,}" if each else ""
    return f"the loss sees {together:,} samples at a time, not {batch:,}{negatives} (train.accumulate)"


def chosen(cfg: dict[str, Any], dataset: Dataset) -> str:
    """What the defaults chose because a processor does the work, and how to have what a GPU gets; else nothing."""
    limit, side = cfg["dataset"].get("max_size", MAX_SIZE), dataset.shape[-1]
    if cfg["dataset"].get("image_size") is not None or limit >= MAX_SIZE or side < limit:
        return ""
    small = instantiate.resolve("backbone", cfg["backbone"]["_target_"]) is ConvNet
    what = f"image size {side}" + (" and a small convolutional network" if small else "")
    other = f"dataset.image_size={MAX_SIZE}" + (" backbone=resnet18" if small else "")
    return f"{what} suit a processor; what a GPU gets by default: {other}"


def rehearse(method: Method, views: Views, dataset: Dataset) -> None:
    """One forward of a copy on a few blank samples: a plan, a shape or a width that does not fit comes out before any work."""
    n = max(2, method.min_batch)
    draw = Draw(0, 0, torch.arange(n))
    blank = [torch.zeros(n, *shape) for shape in views.shapes]
    labels = torch.zeros(n, dtype=torch.int64) if method.uses_labels else None
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        copy.deepcopy(method)(Batch(blank, views.kinds, draw, labels))


def screen(job: Job, path: Path | str | None) -> list[tuple[str, str]]:
    """The start screen: what, plan, where."""
    cfg, dataset = job.cfg, job.dataset
    total = sum(p.numel() for p in job.method.parameters())
    own = sum(p.numel() for p in job.method.backbone.parameters())
    shape = "x".join(str(n) for n in dataset.shape)
    test = f", {len(dataset.test):,} test" if dataset.test is not None else ""
    word = "unlabelled" if cfg["train"].get("classes") is None else "of them pretrained on"
    alone = unlabelled_only(dataset)
    unlabelled = f", {len(alone):,} {word}" if alone is not None else ""
    shown = "shown" if job.method.uses_labels else "not shown"
    classes = f", {len(dataset.classes)} classes ({shown} to the method)" if dataset.classes else ", no labels"
    train = cfg["train"]
    if job.steps is None:
        length = f"budget {train['budget']}, steps from the measured speed"
    else:
        epochs = f"{job.steps / job.loader.steps_per_epoch:.4g}"
        length = f"{plural(job.steps, 'step')}, {epochs} epoch{'' if epochs == '1' else 's'}"
    rows = [
        (
            "what",
            f"{type(job.method).__name__} ({human_count(total)} parameters) on {type(job.method.backbone).__name__}"
            f" ({human_count(own)}, dim {job.method.backbone.dim})",
        ),
        (
            "data",
            f"{dataset.name}: {len(dataset.train):,} train{unlabelled}{test}, {dataset.modality} {shape}{classes}",
        ),
        *(("", note) for note in (*dataset.notes, *label_notes(dataset), *job.views.notes)),
        *([("", job.derived["init"])] if "init" in job.derived else []),
        ("plan", f"{length}; {job.derived['steps']}"),
        ("", f"batch {job.derived['batch']}"),
        *(("", job.derived[key]) for key in ("compared", "chosen") if job.derived[key]),
        (
            "",
            f"lr {job.derived['learning rate']}, {type(job.optimizer).__name__}, weight decay {cfg['optimizer']['weight_decay']:g}",
        ),
        *(("", f"{k} {v}") for k, v in job.method.describe().items()),
        ("where", job.runtime.describe()),
    ]
    if path is not None:
        rows.append(("run", str(path)))
    return rows


# ---------------------------------------------------------------------------------------------------------------- encoder


def save_encoder(run: Run, job: Job, step: int, weights: dict[str, Tensor]) -> None:
    """The run's encoder: the `weights` of its backbone alone, and how to build it."""
    info = {
        "backbone": job.cfg["backbone"],
        "input_shape": list(job.dataset.shape),
        "dim": job.method.eval_backbone.dim,
        "mean": list(job.dataset.mean),
        "std": list(job.dataset.std),
        "range": job.dataset.details.get("range"),  # of values of more than 8 bits: which of them are 0 and 255
        "modality": job.dataset.modality,
        "dataset": job.dataset.name,
        "method": job.cfg["method"]["_target_"],
        "step": step,
        "facts": asdict(builders.data_info_of(job.cfg, job.dataset)),
    }
    write_encoder(run.path, weights, info)
