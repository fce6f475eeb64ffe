"""From words to a checked configuration.

Three nets catch a mistake before any work: the schema (for keys we own), Hydra's struct flag (keys of a chosen YAML), and
`build.check` (arguments of the class that a YAML names); `check_values` looks at ranges.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sslcli.config.dotted import flatten
from sslcli.config.messages import rewrite_error, unknown_choice
from sslcli.config.registry import GROUPS, choices, config_dir, describe, search_override
from sslcli.config.schema import register
from sslcli.errors import RequestError, first_line
from sslcli.runtime.folders import runs_root


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
        raise rewrite_error(e, word, overrides, extra or []) from None
    return cfg


@contextlib.contextmanager
def hydra_mode(cfg: Any) -> Iterator[None]:
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
    from omegaconf import OmegaConf

    for key, value in flatten(OmegaConf.to_container(cfg.hydra, resolve=False), "hydra", lists=True).items():
        if key.endswith((".()", "._target_")) and not str(value).startswith(HYDRA_OWN):
            raise RequestError(f"`{key}={value}`: only hydra's own classes and its plug-ins' are built there")
        if key.endswith(".level") and isinstance(value, str) and not isinstance(logging.getLevelName(value), int):
            raise RequestError(f"`{key}={value}` is no level of Python's logging", f"{key}=INFO")
    folders = {f"hydra.{key}.dir": folder_of(cfg, key) for key in ("run", "sweep")}
    for key, folder in folders.items():
        if folder == Path():  # where we are: eval, which makes no folder
            continue
        if not folder.is_absolute() and not folder.resolve().is_relative_to(runs_root().resolve()):
            raise RequestError(
                f"{key}={folder} leaves {runs_root()}/",
                "SSLCLI_RUNS=FOLDER says where runs go; a folder elsewhere is given in full, from /",
            )


def folder_of(cfg: Any, mode: str = "run") -> Path:
    """The output folder that a composed configuration names, for one run or (`sweep`) a sweep."""
    from hydra.core.hydra_config import HydraConfig

    instance = HydraConfig.instance()
    before, instance.cfg = instance.cfg, cfg  # for ${hydra:...} in the names of folders
    try:
        return Path(str(cfg.hydra[mode].dir))
    finally:
        instance.cfg = before


def hydra_files(cfg: Any, hydra: Any) -> dict[str, str]:
    """Content of the files that Hydra writes to `.hydra/` of a run folder. `cfg`: the composed configuration without Hydra's part;
    `hydra`: that part, below the key `hydra`."""
    from omegaconf import OmegaConf

    parts = {"config": cfg, "hydra": hydra, "overrides": hydra.hydra.overrides.task}
    return {f"{name}.yaml": OmegaConf.to_yaml(part) for name, part in parts.items()}


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


def to_container(node: Any) -> Any:
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
        raise RequestError(f"a value cannot be resolved: {first_line(e)}") from None


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
