"""Compose configurations with Hydra, and check the overrides first.

Errors are found before any work: unknown keys by the schema (`schema.py`) and by Hydra's struct flag, arguments of classes by
`instantiate.check`, types and ranges by `checks.check_values`.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sslcli.config import Config
from sslcli.config.dotted import flatten
from sslcli.config.messages import rewrite_error, unknown_choice
from sslcli.config.overrides import with_optional_keys
from sslcli.config.registry import GROUPS, choices, config_dir, describe, search_override
from sslcli.config.schema import register
from sslcli.errors import RequestError, first_line, nearest
from sslcli.runtime.folders import runs_root

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

SEVERAL_CHOICES = ("logger", "experiment")  # groups with more than one choice at a time
HYDRA_TARGETS = (
    "hydra.",
    "hydra_plugins.",
    "optuna.samplers.",
    "optuna.pruners.",
)  # the last two: of the optuna sweeper


def compose(command: str, overrides: list[str], config_dirs: list[Path] | None = None) -> DictConfig:
    """The configuration of a command with `overrides`, a DictConfig that includes Hydra's part. RequestError with a hint."""
    import hydra

    register()
    overrides = with_optional_keys(overrides)
    check_overrides(overrides)
    search = search_override(config_dirs or [])
    try:
        with hydra.initialize_config_dir(str(config_dir()), job_name=command, version_base="1.3"):
            cfg = hydra.compose(command, overrides=[*search, *overrides], return_hydra_config=True)
            check_hydra(cfg)
    except RequestError:
        raise
    except Exception as e:  # composing reads only overrides and YAML, so any failure is an error of the request
        raise rewrite_error(e, command, overrides, config_dirs or []) from None
    return cfg


@contextlib.contextmanager
def composed_already(cfg: DictConfig) -> Iterator[None]:
    """Let Hydra run a job with `cfg`, which was composed from the same overrides.

    Hydra composes a configuration to read `hydra.mode`, and again to run it. Its private `load_configuration` is replaced inside,
    which saves both; a version of Hydra without it composes (docs/explanation/decisions/0014)."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    load = getattr(ConfigLoaderImpl, "load_configuration", None)
    if load is None or cfg.hydra.mode == RunMode.MULTIRUN:  # a sweep composes each of its jobs
        yield
        return
    OmegaConf.clear_cache(cfg)  # of ${now:...}: a run has the time of its start in its name
    ConfigLoaderImpl.load_configuration = lambda *_, **__: cfg  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]


def check_overrides(overrides: Iterable[str]) -> None:
    """RequestError for a path instead of the name of a choice, for a search path, and for the removal of a top-level key.

    YAML from outside the package comes from --config-dir, where it is checked first."""
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if not key:
            raise RequestError(f"'{override}' has no key", "an override is key=value")
        if override.startswith("~") and not {".", "/"} & set(key):
            raise RequestError(f"`{key}` cannot be removed", f"{key}={'NAME' if key in GROUPS else 'VALUE'} sets it")
        if key == "hydra.searchpath":
            raise RequestError(f"`{key}` cannot be set", "--config-dir FOLDER adds a folder of YAML files")
        is_list = f"{value[:1]}{value[-1:]}" == "[]" and key not in SEVERAL_CHOICES
        if key in GROUPS and (is_list or ".yaml" in value or any(part in value for part in ("/", "\\", ".."))):
            raise unknown_choice(key, value, choices(key))


def check_hydra(cfg: DictConfig) -> None:
    """RequestError where Hydra's part builds classes of others, or a relative run folder is outside the folder of runs."""
    from omegaconf import OmegaConf

    for key, value in flatten(OmegaConf.to_container(cfg.hydra, resolve=False), "hydra", lists=True).items():
        if key.endswith((".()", "._target_")) and not str(value).startswith(HYDRA_TARGETS):
            raise RequestError(f"{key}={value}: only classes of Hydra and its plug-ins are allowed")
        if key.endswith(".level") and isinstance(value, str) and not isinstance(logging.getLevelName(value), int):
            raise RequestError(f"{key}: expected a level of Python's logging, got '{value}'", f"{key}=INFO")
    folders = {f"hydra.{key}.dir": folder_of(cfg, key) for key in ("run", "sweep")}
    for key, folder in folders.items():
        if folder == Path():  # the working folder: an evaluation creates none
            continue
        if not folder.is_absolute() and not folder.resolve().is_relative_to(runs_root().resolve()):
            raise RequestError(
                f"{key}={folder} is outside {runs_root()}/",
                "SSLCLI_RUNS=FOLDER sets the folder of runs; another folder requires an absolute path",
            )


def folder_of(cfg: DictConfig, mode: str = "run") -> Path:
    """The output folder that a composed configuration names, for one run or (`sweep`) a sweep."""
    from hydra.core.hydra_config import HydraConfig

    instance = HydraConfig.instance()
    before, instance.cfg = instance.cfg, cast("HydraConf", cfg)  # for ${hydra:...} in the names of folders
    try:
        return Path(str(cfg.hydra[mode].dir))
    finally:
        instance.cfg = before


def is_named_by_time(hydra: HydraConf) -> bool:
    """Whether the name of the run folder has the time of the start, as it has unless `hydra.run.dir` or a sweep gives another."""
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    run = cast("dict[str, Any]", OmegaConf.to_container(cast("DictConfig", hydra), resolve=False))["run"]
    return hydra.mode is not RunMode.MULTIRUN and "${now:" in str(run["dir"])


def hydra_files(cfg: DictConfig, hydra: Any) -> dict[str, str]:
    """Content of the files that Hydra writes to `.hydra/` of a run folder. `cfg`: the composed configuration without Hydra's part;
    `hydra`: that part, below the key `hydra`."""
    from omegaconf import OmegaConf

    parts = {"config": cfg, "hydra": hydra, "overrides": hydra.hydra.overrides.task}
    return {f"{name}.yaml": OmegaConf.to_yaml(part) for name, part in parts.items()}


def load_choice(group: str, name: str, root: DictConfig, config_dirs: Iterable[Path] = ()) -> Any:
    """One YAML of a group, below a composed root so that `${labels}` resolves: for `stages`, a list of choices. RequestError."""
    from omegaconf import OmegaConf

    known = choices(group, config_dirs)
    if name not in known:
        raise unknown_choice(group, name, known)
    merged: Any = OmegaConf.merge(root, {group: None})
    OmegaConf.set_struct(merged, False)
    merged[group] = OmegaConf.load(known[name])
    return merged[group]


def to_container(node: object, key: str = "") -> Any:
    """A node as dicts, lists, numbers and strings, with interpolations resolved.

    `key`: the key of the node, for messages. RequestError where a value is missing or cannot be resolved."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

    if not isinstance(node, (DictConfig, ListConfig)):
        return node
    try:
        missing = sorted(OmegaConf.missing_keys(node))
        if missing:
            name = f"{key}.{missing[0]}" if key else missing[0]
            raise RequestError(f"missing value: {name}", f"add {name}=...")
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except InterpolationKeyError as e:
        unknown = re.search(r"key '([^']+)' not found", str(e))
        at = f"`{e.full_key}`: " if e.full_key else ""
        hint = (
            "training runs the evaluator `online`; the others run with `sslcli eval NAME`"
            if "`evaluator." in at
            else None
        )
        raise RequestError(f"{at}`${{{unknown[1] if unknown else '?'}}}` refers to no key", hint) from None
    except OmegaConfBaseException as e:
        raise RequestError(f"a value cannot be resolved: {first_line(e)}") from None


def expand_method(cfg: Config, config_dirs: Iterable[Path] = ()) -> Config:
    """The configuration with those that its method names, see `expand_tasks` and `expand_tower`."""
    cfg = expand_tasks(cfg, config_dirs)
    method = cfg.get("method")
    if not isinstance(method, dict):
        return cfg
    tasks = method.get("tasks")
    if isinstance(tasks, dict):
        method = {**method, "tasks": {name: expand_tower(node, config_dirs) for name, node in tasks.items()}}
    return {**cfg, "method": expand_tower(method, config_dirs)}


def expand_tower(method: Config, config_dirs: Iterable[Path] = ()) -> Config:
    """Expand `method.tower`, the name of a backbone, into its configuration with the keys of `method.tower_settings`. A run or a
    pretrained encoder stays as it is. RequestError."""
    if "tower_settings" not in method:
        return method
    rest = {key: value for key, value in method.items() if key != "tower_settings"}
    tower, settings = method.get("tower"), method["tower_settings"] or {}
    if not isinstance(tower, str):
        raise RequestError(
            f"method.tower: expected a backbone, a run or hf:FOLDER, got {tower}", "method.tower=bert_tiny"
        )
    if not isinstance(settings, dict):
        raise RequestError(
            f"method.tower_settings: expected keys of a backbone, got {settings}",
            "method.tower_settings='{width: 128}'",
        )
    known = choices("backbone", config_dirs)
    if tower in known:
        return {**rest, "tower": {**describe(known[tower], "backbone"), **settings}}
    if settings:
        raise RequestError(
            f"method.tower_settings: {tower} is no backbone, and the settings of other encoders are their own",
            f"method.tower={nearest(tower, known) or 'bert_tiny'}, or leave method.tower_settings out",
        )
    return rest


def expand_tasks(cfg: Config, config_dirs: Iterable[Path] = ()) -> Config:
    """Expand `method.tasks`, a list of method names, into `name -> configuration of the method` with the keys of `method.settings`.

    `method.plan` becomes, for each kind of view, the largest count of any task. An expanded configuration is returned as it is.
    RequestError."""
    method = cfg.get("method")
    tasks = method.get("tasks") if isinstance(method, dict) else None
    if isinstance(tasks, str):
        raise RequestError(f"method.tasks: expected a list, got '{tasks}'", f"'method.tasks=[{tasks}]'")
    if not isinstance(method, dict) or not isinstance(tasks, list):
        return cfg
    known, settings = choices("method", config_dirs), method.get("settings") or {}
    names = [str(name) for name in tasks]
    if not names or len(set(names)) < len(names):
        raise RequestError(
            "method.tasks: expected one or more different methods", "'method.tasks=[simclr,autoencoder]'"
        )
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
            raise RequestError(f"method.settings.{name}: {name} is not among the tasks ({', '.join(names)})")
    rest = {k: v for k, v in method.items() if k != "settings"}
    return {**cfg, "method": {**rest, "tasks": nodes, "plan": {**plan, **(method.get("plan") or {})}}}
