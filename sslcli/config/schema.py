"""Typed schema of the configuration keys: dataclasses that Hydra's config store and `checks.py` read."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, field
from typing import Any

from sslcli.config import Config
from sslcli.config.modalities import token_backbone


@dataclass
class Train:
    """Length, batches and checkpoints of training. The defaults are in configs/train/default.yaml."""

    epochs: int | None = None
    steps: int | None = None
    budget: Any = None
    batch_size: int | str = "auto"
    accumulate: int = 1
    clip: float | None = None
    save_every: Any = "5m"
    eval_every: Any = "auto"
    save_in_background: bool = False
    keep: int = 2
    on_collapse: str = "warn"
    devices: Any = 1
    strategy: str = "ddp"
    sync_batchnorm: bool = True
    classes: Any = None
    freeze: int | str = 0
    layer_decay: float = 1.0
    lora: int = 0


@dataclass
class Device:
    """Device and precision. The defaults are in configs/device/."""

    type: str = "auto"
    precision: str = "auto"
    channels_last: Any = "auto"
    compile: Any = False
    native: Any = "auto"
    workers: Any = "auto"
    threads: int | None = None


@dataclass
class Common:
    """Keys of all commands that Hydra runs. A group filled by a YAML file is `Any`: the class that it names is its schema."""

    method: Any = None
    backbone: Any = None
    dataset: Any = None
    augmentation: Any = None
    optimizer: Any = None
    schedule: Any = None
    evaluator: Any = None
    logger: Any = None
    device: Device = field(default_factory=Device)
    train: Train = field(default_factory=Train)
    seed: int = 0
    init: str | None = None
    init_download: bool = False
    normalization: Any = None


@dataclass
class Pretrain(Common):
    resume: Any = None


@dataclass
class Eval(Common):
    run: str = "latest"
    labels: Any = "all"
    seeds: int = 1
    picks: str | None = None
    text: Any = None
    allow_data_change: bool = False


@dataclass
class Pipeline(Pretrain):
    stages: list[str] = field(default_factory=list)
    report: bool = True
    labels: Any = "all"
    seeds: int = 1


@dataclass
class Bench(Common):
    repeats: int = 3
    seconds: float = 2.0


SCHEMAS = {"pretrain": Pretrain, "eval": Eval, "pipeline": Pipeline, "bench": Bench}


def with_defaults(cfg: Config) -> Config:
    """A run's configuration, with defaults for the keys that an older or edited config.yaml lacks."""
    defaults = asdict(Common())
    filled = {**cfg, **{key: cfg.get(key, defaults[key]) for key in ("seed", "init", "normalization")}}
    for group in ("device", "train"):
        node = cfg.get(group, {})
        filled[group] = {**defaults[group], **node} if isinstance(node, dict) else node
    return filled


def on_gpu(device: str, yes: Any, no: Any) -> Any:
    """`yes` where `device` (a choice of the group, or device.type) selects a GPU of this machine, else `no`."""
    if device in ("cpu", "cuda", "mps"):
        return no if device == "cpu" else yes
    import torch

    return yes if torch.cuda.is_available() else no


@functools.cache
def register_resolvers() -> None:
    """Register `${on_gpu:${device.type},224,64}` and `${token_backbone:${dataset}}` with OmegaConf, once: defaults that depend
    on the device and on the kind of data.

    In a list of defaults, where no key exists yet, `${device}` is the choice of the group. A composed configuration has the
    resolved value."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("on_gpu", on_gpu)
    OmegaConf.register_new_resolver("token_backbone", token_backbone)


@functools.cache
def register() -> None:
    """Register the schemas with Hydra, once."""
    from hydra.core.config_store import ConfigStore

    register_resolvers()

    for command, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{command}_schema", node=schema)
