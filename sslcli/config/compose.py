"""From words to a checked configuration.

Three nets catch a mistake before any work: the schema (for keys we own), Hydra's struct flag (keys of a chosen YAML), and
`build.check` (arguments of the class that a YAML names); `check_values` looks at ranges.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from sslcli.config import typecheck
from sslcli.config.messages import explain, unknown_choice, unknown_key
from sslcli.config.registry import (
    GROUPS,
    SCHEMAS,
    Device,
    Train,
    choices,
    config_dir,
    describe,
    filled,
    one_line,
    register,
    runs_root,
    search_override,
)
from sslcli.errors import RequestError, nearest


def compose(word: str, overrides: list[str], extra: list[Path] | None = None) -> Any:
    """The configuration of `word` with `overrides`, as a DictConfig. Mistakes raise RequestError with a hint."""
    import hydra

    register()
    refuse_paths(overrides)
    search = search_override(extra or [])
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            cfg = hydra.compose(word, overrides=[*search, *overrides], return_hydra_config=True)
            check_hydra(cfg)
    except RequestError:
        raise
    except Exception as e:  # composing touches nothing but words and YAML: whatever fails here, the words were wrong
        raise explain(e, word, overrides, extra or []) from None
    return cfg


@contextlib.contextmanager
def mode_is_known(cfg: Any) -> Iterator[None]:
    """Hydra composes a configuration, reads `hydra.mode` in it, and composes it once more to run it. It is told what `cfg` says,
    composed of the same words; where it asks otherwise than Hydra 1.3 does, it finds out by itself."""
    from hydra._internal.hydra import Hydra

    asks = getattr(Hydra, "get_mode", None)
    if asks is None:
        yield
        return
    Hydra.get_mode = lambda *_, **__: cfg.hydra.mode  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = asks  # type: ignore[method-assign]


def refuse_paths(overrides: Iterable[str]) -> None:
    """A choice is a name and not a path, and YAML from elsewhere comes by --config-dir, where it is looked at first. No
    configuration lacks a group or a key at the top."""
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if not key:
            raise RequestError(f"`{override}` has no key", "an override is key=value")
        if override.startswith("~") and not {".", "/"} & set(key):
            raise RequestError(f"`{key}` cannot be taken out", f"{key}={'NAME' if key in GROUPS else 'VALUE'} sets it")
        if key == "hydra.searchpath":
            raise RequestError(f"`{override}` is not taken", "--config-dir FOLDER adds a folder of YAML files")
        listed = f"{value[:1]}{value[-1:]}" == "[]" and key not in (
            "logger",
            "experiment",
        )  # of these there may be several
        if key in GROUPS and (listed or ".yaml" in value or any(part in value for part in ("/", "\\", ".."))):
            raise unknown_choice(key, value, choices(key))


HYDRA_OWN = ("hydra.", "hydra_plugins.", "optuna.samplers.", "optuna.pruners.")  # the last two: of its optuna sweeper


def check_hydra(cfg: Any) -> None:
    """Hydra's own part: it builds only what Hydra or its plug-ins bring, and the run folder stays among the runs."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    for key, value in _walk(OmegaConf.to_container(cfg.hydra, resolve=False), "hydra"):
        if key.endswith((".()", "._target_")) and not str(value).startswith(HYDRA_OWN):
            raise RequestError(f"`{key}={value}`: only hydra's own classes and its plug-ins' are built there")
        if key.endswith(".level") and isinstance(value, str) and not isinstance(logging.getLevelName(value), int):
            raise RequestError(f"`{key}={value}` is no level of Python's logging", f"{key}=INFO")
    here = HydraConfig.instance()
    before, here.cfg = here.cfg, cfg  # for ${hydra:...} in the names of folders
    try:
        folders = {f"hydra.{key}.dir": Path(str(cfg.hydra[key].dir)) for key in ("run", "sweep")}
    finally:
        here.cfg = before
    for key, folder in folders.items():
        if folder == Path():  # where we are: eval, which makes no folder
            continue
        if not folder.is_absolute() and not folder.resolve().is_relative_to(runs_root().resolve()):
            raise RequestError(
                f"{key}={folder} leaves {runs_root()}/",
                "SSLCLI_RUNS=FOLDER says where runs go; a folder elsewhere is given in full, from /",
            )


def load_choice(group: str, name: str, root: Any, extra: Iterable[Path] = ()) -> Any:
    """One YAML of a group under a composed root (so that `${labels}` resolves); for stages that are chosen in a list."""
    from omegaconf import OmegaConf

    known = choices(group, extra)
    if name not in known:
        raise unknown_choice(group, name, known)
    merged: Any = OmegaConf.merge(root, {group: None})
    OmegaConf.set_struct(merged, False)
    merged[group] = OmegaConf.load(known[name])
    return merged[group]


def plain(node: Any) -> Any:
    """Resolved, as plain dicts, lists, numbers and strings. A missing or unresolvable value is a RequestError."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

    if not isinstance(node, (DictConfig, ListConfig)):
        return node
    try:
        missing = sorted(OmegaConf.missing_keys(node))
        if missing:
            path = node._get_full_key(None)
            key = f"{path}.{missing[0]}" if path else missing[0]
            raise RequestError(f"`{key}` must be given", f"add {key}=...")
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except InterpolationKeyError as e:
        name = re.search(r"key '([^']+)' not found", str(e))
        at = f"`{e.full_key}`: " if e.full_key else ""
        hint = (
            "while training measures the online evaluator, the others `sslcli eval NAME`"
            if "`evaluator." in at
            else None
        )
        raise RequestError(f"{at}`${{{name[1] if name else '?'}}}` names no key", hint) from None
    except OmegaConfBaseException as e:
        raise RequestError(f"a value cannot be resolved: {one_line(e)}") from None


def expand_tasks(cfg: dict[str, Any], extra: Iterable[Path] = ()) -> dict[str, Any]:
    """`method.tasks`, a list of methods, becomes name -> the method's YAML, with the keys that `method.settings` has for it; and
    `method.plan` holds, for each kind of view, the most that any task wants. What is expanded already stays. RequestError."""
    method = cfg.get("method")
    tasks = method.get("tasks") if isinstance(method, dict) else None
    if isinstance(tasks, str):
        raise RequestError(f"`method.tasks={tasks}`: expected a list, got `{tasks}`", f"'method.tasks=[{tasks}]'")
    if not isinstance(method, dict) or not isinstance(tasks, list):
        return cfg
    known, settings = choices("method", extra), method.get("settings") or {}
    names = [str(name) for name in tasks]
    if not names or len(set(names)) < len(names):
        raise RequestError("`method.tasks` names one method or more, each once", "'method.tasks=[simclr,autoencoder]'")
    nodes: dict[str, dict[str, Any]] = {}
    plan: dict[str, int] = {}
    for name in names:
        if name not in known:
            raise unknown_choice("method", name, known)
        nodes[name] = {**describe(known[name], "method")["method"], **(settings.get(name) or {})}
        for kind, count in (nodes[name].get("plan") or {}).items():
            plan[kind] = max(count, plan.get(kind, 0))
    for name in settings:
        if name not in nodes:
            raise RequestError(f"`method.settings.{name}`: {name} is not among the tasks ({', '.join(names)})")
    rest = {k: v for k, v in method.items() if k != "settings"}
    return {**cfg, "method": {**rest, "tasks": nodes, "plan": {**plan, **(method.get("plan") or {})}}}


# ------------------------------------------------------------------------------------------------------------ values


def seconds(value: Any, key: str) -> float:
    """A duration: 90, `90s`, `20m`, `1h30m`, `2d`. A number without a unit stands alone: `1h30` might mean minutes or
    seconds. Raises RequestError naming `key`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        total = float(value)
    else:
        number = r"(\d+(?:\.\d+)?)"
        parts = re.fullmatch(rf"(?:{number}d)?(?:{number}h)?(?:{number}m)?(?:{number}s)?", str(value).strip())
        parts = parts or re.fullmatch(rf"()()(){number}", str(value).strip())
        if not parts or not any(parts.groups()):
            raise RequestError(f"`{key}={value}` is no duration", "write it as 90s, 20m or 1h30m")
        total = sum(float(p or 0) * unit for p, unit in zip(parts.groups(), (86400, 3600, 60, 1), strict=True))
    if not (math.isfinite(total) and total > 0):
        raise RequestError(f"`{key}={value}` must be more than nothing")
    return total


def check_values(cfg: dict[str, Any], word: str = "pretrain") -> None:
    """Ranges of what we own. Raises RequestError."""
    for key in cfg:
        if key not in {f.name for f in fields(SCHEMAS[word])}:
            raise unknown_key(key, word)
    require_groups(cfg)
    log_every = cfg["logger"].get("log_every")
    if not (typecheck.fits(log_every, int) and log_every >= 1):
        raise RequestError(f"`logger.log_every={log_every}` must be a number of at least 1", "logger.log_every=50")
    cfg = filled(cfg)
    for key, kind in (("seed", int), ("init", str | None)):
        if not typecheck.fits(cfg[key], kind):
            raise RequestError(f"`{key}={cfg[key]}`: expected {typecheck.wanted(kind)}, got `{cfg[key]}`")
    own = {group: _typed(group, kind, cfg[group]) for group, kind in (("train", Train), ("device", Device))}
    for key, (least, instead) in _LEAST.items():
        value = own[key.partition(".")[0]][key.partition(".")[2]]
        if value != instead and not (typecheck.fits(value, float) and math.isfinite(value) and value >= least):
            other = f"{'null' if instead is None else instead}, or " if instead != "" else ""
            raise RequestError(f"`{key}={value}` must be {other}a number of at least {least}")
    for key, allowed in _ONE_OF.items():
        _one_of(key, own[key.partition(".")[0]][key.partition(".")[2]], allowed)
    _check_length(own["train"])
    _check_optimizer(cfg["optimizer"])
    plan = cfg["method"].get("plan")
    if plan is not None and not typecheck.fits(plan, dict[str, int]):
        raise RequestError(f"`method.plan={plan}`: expected how many views of which kind", "method.plan={global: 2}")
    for key, value in [*_walk(cfg["method"], "method"), *_walk(cfg["backbone"], "backbone")]:
        if _POSITIVE.search(key) and isinstance(value, (int, float)) and value <= 0:
            raise RequestError(f"`{key}={value}` must be more than 0")
    for key, value in _walk(cfg, ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"`{key}={value}` is not a finite number")
        if value == "":
            raise RequestError(f"`{key}=` has no value", f"give {key}=VALUE, or {key}=null for none")


def require_groups(cfg: dict[str, Any]) -> None:
    """RequestError where a configuration lacks a group that every run has."""
    for group in GROUPS:
        if group != "experiment" and not isinstance(cfg.get(group), dict):
            raise RequestError(
                f"there is no {group}", f"choose one: {group}=NAME (`sslcli pretrain --help` lists them)"
            )


_LEAST: dict[
    str, tuple[int, str | None]
] = {  # the least value of a key, and what may stand there instead ("": nothing)
    "train.epochs": (1, None),
    "train.steps": (1, None),
    "train.batch_size": (1, "auto"),
    "train.accumulate": (1, ""),
    "train.keep": (1, ""),
    "train.eval_every": (0, "auto"),
    "train.devices": (1, "auto"),
    "device.workers": (0, "auto"),
    "device.threads": (1, None),
}
_ONE_OF: dict[str, tuple[Any, ...]] = {
    "train.strategy": ("ddp", "fsdp"),
    "train.on_collapse": ("warn", "stop"),
    "device.type": ("auto", "cpu", "cuda", "mps"),
    "device.precision": ("auto", "fp32", "bf16"),
    "device.channels_last": ("auto", True, False),
    "device.native": ("auto", True, False),
}
_POSITIVE = re.compile(r"[._](width|heads|patch|temperature|queue)$")  # nothing can be built of none of these


def _check_length(train: dict[str, Any]) -> None:
    """How long, in what portions, saved how often."""
    clip, batch, accumulate = train["clip"], train["batch_size"], train["accumulate"]
    if clip is not None and not (math.isfinite(clip) and clip > 0):
        raise RequestError(f"`train.clip={clip}` must be a positive number, or null")
    if batch != "auto" and batch % accumulate:
        raise RequestError(
            f"train.batch_size={batch} is not divisible by train.accumulate={accumulate}",
            "batch_size is the whole batch of one optimizer step",
        )
    if not any(train[k] is not None for k in ("epochs", "steps", "budget")):
        raise RequestError("nothing says how long to train", "give train.epochs, train.steps or train.budget")
    if train["budget"] is not None:
        seconds(train["budget"], "train.budget")
    every = train["save_every"]
    if isinstance(every, str):
        seconds(every, "train.save_every")
    elif not (typecheck.fits(every, int) and every >= 1):  # a float might be seconds or steps
        raise RequestError(
            f"`train.save_every={every}` must be a time, or a whole number of steps of at least 1",
            "train.save_every=5m, or train.save_every=1000",
        )


def _check_optimizer(node: dict[str, Any]) -> None:
    for key in ("lr", "weight_decay", "lr_batch"):
        value = node.get(key)
        if value is None and key == "lr_batch":
            continue  # the rate is not scaled with the batch
        if value is None or value == "":
            raise RequestError(f"`optimizer.{key}` has no value", f"give optimizer.{key}=NUMBER")
        if not typecheck.fits(value, float):
            raise RequestError(f"`optimizer.{key}={value}`: expected a number, got `{value}`")
        if not math.isfinite(value) or value < 0 or (key != "weight_decay" and value == 0):
            kind = "non-negative" if key == "weight_decay" else "positive"
            raise RequestError(f"`optimizer.{key}={value}` must be a {kind} number")


def _typed(group: str, schema: type, values: dict[str, Any]) -> dict[str, Any]:
    """The keys of a group that we own, each of its type."""
    types = get_type_hints(schema)
    for key, value in values.items():
        if key not in types:
            raise unknown_key(f"{group}.{key}")
        if not typecheck.fits(value, types[key]):
            raise RequestError(f"`{group}.{key}={value}`: expected {typecheck.wanted(types[key])}, got `{value}`")
    return values


def _walk(node: Any, path: str) -> Iterable[tuple[str, Any]]:
    if isinstance(node, dict):
        for k, v in node.items():
            yield from _walk(v, f"{path}.{k}" if path else str(k))
    elif isinstance(node, list):
        for i, v in enumerate(node):
            yield from _walk(v, f"{path}.{i}")
    else:
        yield path, node


def _one_of(key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        names = [str(a).lower() for a in allowed]
        close = nearest(str(value), names)
        raise RequestError(
            f"`{key}={value}` is not one of {', '.join(names)}", f"did you mean `{key}={close}`?" if close else None
        )
