"""Checks of a resolved configuration: known keys, types and ranges of the groups that sslcli owns."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import Any, get_type_hints

from sslcli.config import Config, typecheck
from sslcli.config.batch_size import check_batch_size
from sslcli.config.dotted import flatten
from sslcli.config.messages import unknown_key
from sslcli.config.registry import GROUPS, SYNONYMS
from sslcli.config.schema import SCHEMAS, Device, Train, with_defaults
from sslcli.errors import RequestError, nearest


def check_values(cfg: Config, command: str = "pretrain") -> None:
    """RequestError for an unknown key, a wrong type or a value out of range, of a resolved configuration of `command`."""
    for key in cfg:
        if key not in {f.name for f in fields(SCHEMAS[command])}:
            raise unknown_key(key, command)
    require_groups(cfg)
    log_every = cfg["logger"].get("log_every")
    if not (typecheck.matches_type(log_every, int) and log_every >= 1):
        raise RequestError(
            f"logger.log_every: expected an integer of at least 1, got '{log_every}'", "logger.log_every=50"
        )
    cfg = with_defaults(cfg)
    for key, kind in (("seed", int), ("init", str | None)):
        if not typecheck.matches_type(cfg[key], kind):
            raise RequestError(f"{key}: expected {typecheck.describe_type(kind)}, got '{cfg[key]}'")
    groups = {group: _check_types(group, kind, cfg[group]) for group, kind in (("train", Train), ("device", Device))}
    for key, (minimum, *others) in _MINIMUM.items():
        value = groups[key.partition(".")[0]][key.partition(".")[2]]
        if value not in others and not (
            typecheck.matches_type(value, float) and math.isfinite(value) and value >= minimum
        ):
            alternative = "".join(f"{'null' if other is None else other}, " for other in others)
            alternative += "or " if others else ""
            raise RequestError(f"{key}: expected {alternative}a number of at least {minimum}, got '{value}'")
    for key, allowed in _ALLOWED.items():
        _check_allowed(key, groups[key.partition(".")[0]][key.partition(".")[2]], allowed)
    _check_length(groups["train"], cfg["init"])
    _check_optimizer(cfg["optimizer"])
    plan = cfg["method"].get("plan")
    if plan is not None and not typecheck.matches_type(plan, dict[str, int]):
        raise RequestError(
            f"method.plan: expected the number of views of each kind, got '{plan}'", "method.plan={global: 2}"
        )
    for key, value in [
        item for group in ("method", "backbone") for item in flatten(cfg[group], group, lists=True).items()
    ]:
        if _POSITIVE.search(key) and isinstance(value, (int, float)) and value <= 0:
            raise RequestError(f"{key}: expected a positive number, got '{value}'")
    for key, value in flatten(cfg, lists=True).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{key}: expected a finite number, got '{value}'")
        if value == "":
            raise RequestError(f"{key} has no value", f"give {key}=VALUE, or {key}=null for none")


def require_groups(cfg: Config) -> None:
    """RequestError where a configuration lacks a group that every run has."""
    for group in GROUPS:
        if group != "experiment" and not isinstance(cfg.get(group), dict):
            raise RequestError(
                f"missing group: {group}", f"choose one: {group}=NAME (`sslcli pretrain --help` lists them)"
            )


# The smallest value of a key, and the values that it may have instead of a number.
_MINIMUM: dict[str, tuple[Any, ...]] = {
    "train.epochs": (0, None),
    "train.steps": (0, None),
    "train.batch_size": (1, "auto"),
    "train.accumulate": (1,),
    "train.keep": (1,),
    "train.freeze": (0, "statistics", "all"),
    "train.lora": (0,),
    "train.eval_every": (0, "auto"),
    "train.devices": (1, "auto"),
    "device.workers": (0, "auto"),
    "device.threads": (1, None),
}
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "train.strategy": ("ddp", "fsdp"),
    "train.on_collapse": ("warn", "stop"),
    "device.type": ("auto", "cpu", "cuda", "mps"),
    "device.precision": ("auto", "fp32", "bf16"),
    "device.channels_last": ("auto", True, False),
    "device.native": ("auto", True, False),
    "device.compile": ("auto", True, False),
}
_POSITIVE = re.compile(r"[._](width|heads|patch|temperature|queue)$")  # sizes that a network cannot do without


def _check_length(train: Config, init: str | None) -> None:
    """The length of a run, its batches and the interval of its checkpoints."""
    clip, batch, accumulate = train["clip"], train["batch_size"], train["accumulate"]
    if clip is not None and not (math.isfinite(clip) and clip > 0):
        raise RequestError(f"train.clip: expected a positive number or null, got '{clip}'")
    if batch != "auto":
        check_batch_size(batch, accumulate)
    if not 0 < train["layer_decay"] <= 1:
        raise RequestError(
            f"train.layer_decay={train['layer_decay']}: expected a factor above 0 and at most 1",
            "train.layer_decay=0.75",
        )
    if train["lora"] and train["strategy"] == "fsdp":
        raise RequestError("train.lora does not support train.strategy=fsdp", "train.strategy=ddp")
    if not any(train[k] is not None for k in ("epochs", "steps", "budget")):
        raise RequestError("the length of training is missing", "give train.epochs, train.steps or train.budget")
    if 0 in (train["epochs"], train["steps"]) and not init:
        raise RequestError(
            "training for 0 steps leaves random weights",
            "init=RUN|FILE|timm:NAME gives weights that a run can keep as they are",
        )
    if train["budget"] is not None:
        parse_duration(train["budget"], "train.budget")
    every = train["save_every"]
    if isinstance(every, str):
        parse_duration(every, "train.save_every")
    elif not (typecheck.matches_type(every, int) and every >= 1):  # a float might be seconds or steps
        raise RequestError(
            f"train.save_every: expected a duration or a positive number of steps, got '{every}'",
            "train.save_every=5m, or train.save_every=1000",
        )


def _check_optimizer(node: Config) -> None:
    for key in ("lr", "weight_decay", "lr_batch"):
        value = node.get(key)
        if value is None and key == "lr_batch":
            continue  # the learning rate is not scaled with the batch
        if value is None or value == "":
            raise RequestError(f"optimizer.{key} has no value", f"give optimizer.{key}=NUMBER")
        if not typecheck.matches_type(value, float):
            raise RequestError(f"optimizer.{key}: expected a number, got '{value}'")
        if not math.isfinite(value) or value < 0 or (key != "weight_decay" and value == 0):
            kind = "non-negative" if key == "weight_decay" else "positive"
            raise RequestError(f"optimizer.{key}: expected a {kind} number, got '{value}'")


def _check_types(group: str, schema: type, values: Config) -> Config:
    """The keys of a group with a schema, each of its type. RequestError."""
    types = get_type_hints(schema)
    for key, value in values.items():
        if key not in types:
            raise unknown_key(f"{group}.{key}")
        if not typecheck.matches_type(value, types[key]):
            raise RequestError(f"{group}.{key}: expected {typecheck.describe_type(types[key])}, got '{value}'")
    return values


def _check_allowed(key: str, value: object, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        names = [str(a).lower() for a in allowed]
        synonym = SYNONYMS.get(str(value))
        close = synonym if synonym in names else nearest(str(value), names)
        raise RequestError(
            f"{key}: expected one of {', '.join(names)}, got '{value}'",
            f"did you mean `{key}={close}`?" if close else None,
        )


def parse_duration(value: object, key: str) -> float:
    """Seconds of a duration: 90, `90s`, `20m`, `1h30m`, `2d`. Only a single number may lack its unit: `1h30` is ambiguous.

    RequestError, which names `key`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        total = float(value)
    else:
        number = r"(\d+(?:\.\d+)?)"
        parts = re.fullmatch(rf"(?:{number}d)?(?:{number}h)?(?:{number}m)?(?:{number}s)?", str(value).strip())
        parts = parts or re.fullmatch(rf"()()(){number}", str(value).strip())
        if not parts or not any(parts.groups()):
            raise RequestError(f"{key}: expected a duration, got '{value}'", "90s, 20m and 1h30m are durations")
        total = sum(float(p or 0) * unit for p, unit in zip(parts.groups(), (86400, 3600, 60, 1), strict=True))
    if not (math.isfinite(total) and total > 0):
        raise RequestError(f"{key}: expected a positive duration, got '{value}'")
    return total
