"""From a checked configuration to the objects of one job, each built once, and every derived number with its derivation."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslcli import build, compose, console, optim, runtime
from sslcli.console import human_count
from sslcli.data import talk
from sslcli.data.loader import Loader
from sslcli.data.source import Dataset
from sslcli.errors import RequestError, TrainingError
from sslcli.methods.base import Batch, Method
from sslcli.rng import Draw, derive
from sslcli.run import Run, find, read_json, replace_file
from sslcli.runtime import Runtime
from sslcli.views import Views

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
    compose.check_values(cfg)
    build.check("method", cfg["method"], given=["backbone"])
    build.check("backbone", cfg["backbone"], given=["input_shape"])
    build.check("dataset", cfg["dataset"])
    build.check("optimizer", cfg["optimizer"], given=["params"])
    build.check("schedule", cfg["schedule"], given=["progress"])
    build.check("evaluator", cfg["evaluator"], given=ONLINE)


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

    @property
    def config_hash(self) -> str:
        return config_hash(self.cfg)


def config_hash(cfg: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(cfg, sort_keys=True, default=str).encode()).hexdigest()[:16]


def load_dataset(cfg: dict[str, Any]) -> Dataset:
    """The data set, its progress and warnings told on stderr."""
    talk.connect(say=console.say, progress=console.Counter())
    return build.build("dataset", cfg["dataset"])


def new_backbone(cfg: dict[str, Any], shape: tuple[int, ...], seed: int) -> nn.Module:
    """A backbone with random weights: a function of the seed alone, whatever was built before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        return build.build("backbone", cfg["backbone"], input_shape=shape)


def prepare(cfg: dict[str, Any]) -> Job:
    """Checks and builds. Every mistake of the request comes out here, before any folder is made."""
    began = time.perf_counter()
    check(cfg)
    train, seed = cfg["train"], cfg["seed"]
    dataset = load_dataset(cfg)
    console.detail(f"data ready after {time.perf_counter() - began:.2f} s (fingerprint {dataset.fingerprint[:12]})")
    machine = runtime.start(cfg["device"], images=len(dataset.shape) == 3)
    source, batch = dataset.pretrain, train["batch_size"]
    if batch > len(source):
        fits = 1 << (len(source).bit_length() - 1)
        raise RequestError(
            f"train.batch_size={batch} is more than the {len(source)} training samples of {dataset.name}",
            f"use train.batch_size={max(2, fits // 2)}",
        )
    target = build.resolve(cfg["method"]["_target_"])
    if not (isinstance(target, type) and issubclass(target, Method)):
        raise RequestError(
            f"`{cfg['method']['_target_']}` is not a Method", "derive it from sslcli.methods.base.Method"
        )
    smallest = target.min_batch * train["accumulate"]
    if batch < smallest:
        raise RequestError(f"train.batch_size={batch}: {target.__name__} needs at least {smallest} samples at a time")
    backbone = new_backbone(cfg, dataset.shape, seed)
    if target.needs_tokens and not hasattr(backbone, "patchify"):
        raise RequestError(
            f"{target.__name__} needs a backbone with tokens; {type(backbone).__name__} has none",
            "use backbone=vit_tiny",
        )
    if cfg.get("init"):
        start_from(backbone, cfg["init"])
    views = Views(cfg["method"].get("plan") or {}, cfg["augmentation"], dataset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "heads"))
        method: Method = build.build("method", cfg["method"], backbone=backbone)
    rehearse(method, views, dataset)
    machine.place(method)
    lr, derivation = optim.scaled_lr(cfg["optimizer"]["lr"], batch, cfg["optimizer"].get("lr_batch"))
    groups = optim.parameter_groups(method, cfg["optimizer"]["weight_decay"])
    optimizer = build.build("optimizer", {**cfg["optimizer"], "lr": lr}, groups)
    loader = Loader(
        source,
        views,
        batch_size=batch,
        seed=seed,
        device=machine.device,
        workers=machine.workers,
        accumulate=train["accumulate"],
        labels=method.uses_labels,
    )
    job = Job(cfg, dataset, machine, views, loader, method, optimizer, lr, None)
    per_epoch = loader.steps_per_epoch
    if train["budget"] is None:
        job.steps = train["steps"] or max(1, train["epochs"] * per_epoch)
    job.derived = {
        "learning rate": derivation,
        "batch": f"{batch} = {batch // train['accumulate']} x {train['accumulate']} accumulation x 1 device",
        "steps": f"{per_epoch} an epoch = {len(source):,} samples // {batch}",
        **{k: str(v) for k, v in method.describe().items()},
    }
    console.detail(f"all built after {time.perf_counter() - began:.2f} s; config hash {job.config_hash}")
    return job


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
    unlabelled = f", {len(dataset.unlabelled):,} unlabelled" if dataset.unlabelled is not None else ""
    classes = f", {len(dataset.classes)} classes (not shown to the method)" if dataset.classes else ", no labels"
    train = cfg["train"]
    if job.steps is None:
        length = f"budget {train['budget']}, steps from the measured speed"
    else:
        length = f"{job.steps:,} steps, {job.steps / job.loader.steps_per_epoch:.4g} epochs"
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
        *(("", note) for note in (*dataset.notes, *job.views.notes)),
        ("plan", f"{length}; {job.derived['steps']}"),
        ("", f"batch {job.derived['batch']}"),
        (
            "",
            f"lr {job.derived['learning rate']}, {type(job.optimizer).__name__}, weight decay {cfg['optimizer']['weight_decay']:g}",
        ),
        *(("", f"{k} {v}") for k, v in job.method.describe().items()),
        ("where", job.runtime.words()),
    ]
    if path is not None:
        rows.append(("run", str(path)))
    return rows


# ---------------------------------------------------------------------------------------------------------------- encoder


def save_encoder(run: Run, job: Job, step: int) -> None:
    """encoder.safetensors + encoder.json: the backbone alone, and how to build it."""
    from safetensors.torch import save

    backbone = job.method.eval_backbone
    content = save({k: v.detach().to("cpu", copy=True).contiguous() for k, v in backbone.state_dict().items()})
    temporary = run.path / ".encoder.safetensors.tmp"
    temporary.write_bytes(content)
    temporary.replace(run.path / "encoder.safetensors")
    info = {
        "backbone": job.cfg["backbone"],
        "input_shape": list(job.dataset.shape),
        "dim": backbone.dim,
        "mean": list(job.dataset.mean),
        "std": list(job.dataset.std),
        "modality": job.dataset.modality,
        "dataset": job.dataset.name,
        "method": job.cfg["method"]["_target_"],
        "step": step,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    replace_file(run.path / "encoder.json", json.dumps(info, indent=2) + "\n")


def load_encoder(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The backbone of a run folder, verified against the SHA-256 in encoder.json. TrainingError when absent or damaged."""
    from safetensors.torch import load

    from sslcli.checkpoint import load_strictly

    info = read_json(path / "encoder.json")
    file = path / "encoder.safetensors"
    if not info or not file.exists():
        raise TrainingError(f"{path} has no encoder", f"sslcli resume {path} finishes the run and writes it")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != info.get("sha256"):
        raise TrainingError(
            f"{file} does not match the SHA-256 in encoder.json", f"sslcli resume {path} writes it anew"
        )
    backbone = build.build("backbone", info["backbone"], input_shape=tuple(info["input_shape"]))
    load_strictly(backbone, load(content), str(file))
    return backbone, info


def start_from(backbone: nn.Module, spec: str) -> None:
    """`init=RUN`: the weights of a run's backbone; everything else starts anew."""
    from sslcli.checkpoint import load_strictly

    other, _ = load_encoder(find(spec))
    load_strictly(backbone, other.state_dict(), f"init={spec}")
