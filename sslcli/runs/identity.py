"""The identity of a run: which keys of its configuration determine what it computes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sslcli.config import registry
from sslcli.config.dotted import flatten
from sslcli.runs.redact import masked

# How a run is executed, not what it computes: these keys may change when a run is resumed.
_TRAIN_EXECUTION = ("devices", "strategy", "save_every", "save_in_background", "keep", "on_collapse")
EXECUTION_KEYS = ("device", "logger", *(f"train.{key}" for key in _TRAIN_EXECUTION))
LOCATION_KEYS = ("dataset.path",)  # where the data are stored; the fingerprint decides whether they are the same
LENGTH_KEYS = ("train.epochs", "train.steps", "train.budget")  # a run may be extended; its identity then changes


def identity_config(cfg: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that determines what a run computes, as `dotted.key -> value`.

    `EXECUTION_KEYS` are left out, secrets are masked, and each `_target_` has the name under which it was first published."""
    return {
        key: registry.first_name(value) if key.endswith("._target_") else value
        for key, value in flatten(masked(cfg)).items()
        if not is_below(key, EXECUTION_KEYS)
    }


def is_below(key: str, parents: tuple[str, ...]) -> bool:
    """Whether a dotted key is one of `parents` or a key inside one of them."""
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def config_hash(cfg: dict[str, Any]) -> str:
    """A hash of 16 hexadecimal digits, equal for two runs that compute the same."""
    text = json.dumps(identity_config(cfg), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
