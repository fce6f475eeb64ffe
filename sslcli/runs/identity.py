"""The identity of a run: which keys of its configuration determine what it computes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcli.config import Config, checks, instantiate, registry
from sslcli.config.dotted import flatten
from sslcli.config.overrides import as_typed
from sslcli.errors import RequestError, SslError, listing, nearest
from sslcli.runs.find import restart_command
from sslcli.runs.redact import redacted

if TYPE_CHECKING:
    from sslcli.runs.run import Run

# How a run is executed, not what it computes: these keys may change when a run is resumed.
_TRAIN_EXECUTION = ("devices", "strategy", "save_every", "save_in_background", "keep", "on_collapse")
EXECUTION_KEYS = ("device", "logger", *(f"train.{key}" for key in _TRAIN_EXECUTION))
LOCATION_KEYS = ("dataset.path",)  # where the data are stored; the fingerprint decides whether they are the same
HASH_RULE = "2-"  # hashes of the first rule, which included descriptive keys, have no prefix
LENGTH_KEYS = ("train.epochs", "train.steps", "train.budget")  # a run may be extended; its identity then changes


def identity_config(cfg: Config) -> Config:
    """The part of a configuration that determines what a run computes, as `dotted.key -> value`.

    `EXECUTION_KEYS` and texts about a choice (`is_fact`) are left out, secrets are masked, and each `_target_` has the name
    under which it was first published."""
    return {key: value for key, value in _all_identity_keys(cfg).items() if not is_fact(key)}


def _all_identity_keys(cfg: Config) -> Config:
    return {
        key: registry.first_name(value) if key.endswith("._target_") else value
        for key, value in flatten(redacted(cfg)).items()
        if not is_below(key, EXECUTION_KEYS)
    }


def is_fact(key: str) -> bool:
    """Whether a dotted key is descriptive, such as `method.summary` or `method.tasks.mae.source`, and does not affect what a
    run computes."""
    group, *path = key.split(".")
    if group == "method" and path[:1] == ["tasks"]:
        path = path[2:]
    return len(path) == 1 and any(path[0] in registry.FACT_KEYS.get(name, ()) for name in ("", group))


def is_below(key: str, parents: tuple[str, ...]) -> bool:
    """Whether a dotted key is one of `parents` or a key inside one of them."""
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def config_hash(cfg: Config) -> str:
    """`HASH_RULE` and 16 hexadecimal digits, equal for two runs that compute the same."""
    text = json.dumps(identity_config(cfg), sort_keys=True, default=str)
    return HASH_RULE + hashlib.sha256(text.encode()).hexdigest()[:16]


def has_hash(run: Run, expected: str) -> bool:
    """Whether a run has this configuration hash. A hash of an earlier rule is computed again from the run's configuration."""
    recorded = run.status.get("config_hash")
    if not isinstance(recorded, str) or recorded.startswith(HASH_RULE):
        return recorded == expected
    try:
        return config_hash(run.config) == expected
    except SslError:  # its configuration is missing or damaged
        return False


def with_absent_keys(recorded: Config, cfg: Config) -> Config:
    """The identity `recorded` of a run of an earlier version, with those keys of the configuration `cfg` that did not exist then
    and have their default now: an absent key means the default of the argument."""
    filled = dict(recorded)
    now = identity_config(cfg)
    for group, node in cfg.items():
        new = {key for key in now if key.startswith(f"{group}.") and key.count(".") == 1} - recorded.keys()
        if new and group in registry.GROUPS and isinstance(node, dict) and "_target_" in node:
            defaults = {f"{group}.{k}": v for k, v in instantiate.default_arguments(group, node).items()}
            filled |= {key: defaults[key] for key in new & defaults.keys()}
    return filled


def has_configuration(run: Run, cfg: Config) -> bool:
    """Whether a run, possibly of an earlier version, has the configuration `cfg`; see `with_absent_keys`."""
    try:
        return with_absent_keys(identity_config(run.config), cfg) == identity_config(cfg)
    except SslError:  # its configuration is missing or damaged
        return False


def override_execution(cfg: Config, overrides: dict[str, str], run: str, path: Path) -> bool:
    """Puts `overrides` (key -> text) into the configuration of the run named `run`, in the folder `path`, which is about
    to be resumed.

    Returns whether they change how long it trains: of steps, epochs and budget those not given are then removed.

    Raises:
        RequestError: a key does not exist, determines what the run computes, or its value does not fit.
    """
    import yaml

    for key, text in overrides.items():
        node, leaf = _node_to_override(cfg, key, text, run, path)
        try:
            node[leaf] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RequestError(f"`{key}={text}` is not a value") from None
    longer = any(key in LENGTH_KEYS for key in overrides)
    for key in LENGTH_KEYS if longer else ():
        if key not in overrides:
            cfg["train"][key.partition(".")[2]] = None
    checks.check_values(cfg)
    return longer


def _node_to_override(cfg: Config, key: str, text: str, run: str, path: Path) -> tuple[Config, str]:
    """The mapping in `cfg` that holds a dotted key, and the last part of the key. RequestError."""
    free = (*EXECUTION_KEYS, *LENGTH_KEYS, *LOCATION_KEYS)
    *parents, leaf = key.split(".")
    node: Any = cfg
    for part in parents:
        node = node.get(part) if isinstance(node, dict) else None
    exists = isinstance(node, dict) and leaf in node
    if not is_below(key, free):
        if not exists and (close := nearest(key, free)):
            raise RequestError(f"there is no key `{key}`", f"did you mean `{close}`?")
        raise RequestError(
            f"`{key}` cannot change when resuming ({listing(free, 20)} can)",
            f"to start a new run from its weights: {restart_command(path, run, as_typed(f'{key}={text}'))}",
        )
    if not parents or not exists:
        close = nearest(key, (f"{group}.{k}" for group in ("device", "train", "logger") for k in cfg[group]))
        raise RequestError(f"there is no key `{key}`", f"did you mean `{close}`?" if close else None)
    return node, leaf
