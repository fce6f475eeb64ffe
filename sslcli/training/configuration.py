"""The configuration of a run: from what Hydra composed to plain values, and checks of how it was requested. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcli.config import Config, compose, instantiate, registry, schema
from sslcli.errors import RequestError
from sslcli.runs.find import find

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

REQUEST_KEYS = ("hydra", "experiment", "resume", "init_download")  # how a run was requested, not what it computes
schema.register_resolvers()  # a process of a launcher unpickles the Hydra task, which imports this, before it composes


def resolve(cfg: DictConfig) -> Config:
    """The configuration of a run as plain values: interpolations, `method.tasks` and `latest` resolved.

    RequestError where a value is missing or cannot be resolved."""
    from omegaconf import OmegaConf, open_dict

    overrides = request_overrides(cfg)
    cfg = OmegaConf.create(cfg) if not OmegaConf.is_config(cfg) else cfg.copy()
    download = bool(cfg.get("init_download"))
    with open_dict(cfg):
        for key in REQUEST_KEYS:
            cfg.pop(key, None)
    folders = map(Path, instantiate.trusted_folders())
    return with_pretrained(
        resolve_latest(compose.expand_method(compose.to_container(cfg), folders)), overrides, download
    )


def request_overrides(cfg: DictConfig) -> list[str]:
    """The overrides of the command line that composed `cfg`, by Hydra's part of it, or inside a Hydra task by Hydra's own."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if "hydra" not in cfg and not HydraConfig.initialized():
        return []
    given = (cfg.hydra if "hydra" in cfg else HydraConfig.get()).overrides.task
    # as typed: an interpolation in one of them is resolved later, or refused with its key
    texts = OmegaConf.to_container(given, resolve=False) if OmegaConf.is_config(given) else given
    return [str(text) for text in texts or []]


def with_pretrained(values: Config, overrides: list[str], download: bool = False) -> Config:
    """The configuration with the backbone, the normalization, and what the data set must have, of the pretrained encoder that
    `init` names, and with the specs of pretrained encoders as they mean the same in another folder.

    `download`: whether weights that are not on this machine may be downloaded."""
    if "experiment=adapt" in overrides and not values.get("init"):
        raise RequestError(
            "experiment=adapt continues pretrained weights, and init names none",
            "init=timm:NAME, hf:FOLDER, FILE or RUN",
        )
    method = values.get("method") or {}
    others = {key: spec for key in ("teacher", "tower") if isinstance(spec := method.get(key), str)}
    if not values.get("init") and not others:
        return values
    from sslcli.formats.registry import pretrained

    for key, spec in others.items():
        if (encoder := pretrained(spec, download)) is not None:
            values = {**values, "method": {**values["method"], key: encoder.resolved()}}
    encoder = pretrained(values.get("init"), download)
    return values if encoder is None else {**encoder.configure(values, overrides), "init": encoder.resolved()}


def resolve_latest(values: Config) -> Config:
    """Replace what could mean another run when the run is resumed: `latest` inside `method` becomes the path of the run that is the
    latest now."""

    def walk(node: object) -> Any:
        if isinstance(node, dict):
            return {k: walk(v) for k, v in node.items()}
        return str(find("latest").resolve()) if node == "latest" else node

    return {**values, "method": walk(values["method"])} if "method" in values else values


def check_learning_rate(values: Config, hydra: HydraConf) -> None:
    """RequestError where the optimizer was replaced and the learning rate is still that of the method's optimizer.

    `hydra`: Hydra's part of the composed configuration."""
    chosen, method = hydra.runtime.choices["optimizer"], hydra.runtime.choices["method"]
    given = [o.partition("=")[0].lstrip("+") for o in hydra.overrides.task]
    if "optimizer" not in given or "optimizer.lr" in given:
        return
    files = (registry.choices(group).get(name) for group, name in (("method", method), ("optimizer", chosen)))
    method_file, optimizer_file = files
    recipe = registry.describe(method_file, "method").get("defaults", []) if method_file else []
    default_lr = registry.describe(optimizer_file, "optimizer").get("lr") if optimizer_file else None
    lr = values["optimizer"]["lr"]
    if {"override /optimizer": chosen} not in recipe and default_lr is not None and lr != default_lr:
        raise RequestError(
            f"optimizer={chosen}: the learning rate {lr:g} was set by method={method} for another optimizer",
            f"give optimizer.lr=... (configs/optimizer/{chosen}.yaml has {default_lr:g})",
        )


def check_resume(cfg: DictConfig) -> None:
    """RequestError unless `resume` is `auto` or null, and, with `auto`, where `init` may mean another run tomorrow."""
    if cfg.resume is None:
        return
    if cfg.resume != "auto":
        raise RequestError(
            f"resume={cfg.resume}: expected auto or null",
            "to resume a run by its name: sslcli resume RUN (its folder, its name, or latest)",
        )
    if cfg.init == "latest":
        raise RequestError("resume=auto with init=latest: the latest run changes", "name the run: init=RUN")
