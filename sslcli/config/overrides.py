"""Python values as Hydra overrides: `{"train": {"epochs": 5}}` as `train.epochs=5`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from sslcli.errors import RequestError

_BARE = re.compile(r"[A-Za-z_/][\w./@%+-]*", re.ASCII)  # needs no quotes, and Hydra reads it as text
_ESCAPED = re.compile(r"\\[\\()\[\]{}:=, \t]")  # in a value without quotes
_NOT_TEXT = {"null", "true", "false", "nan", "inf"}


def to_overrides(options: Mapping[str, Any]) -> list[str]:
    """One override for each option. The keys of a mapping are keys of its group; mappings inside are dictionaries of Hydra.

    Raises RequestError for a value that YAML has no type for.
    """
    overrides = []
    for key, value in options.items():
        if isinstance(value, Mapping):
            overrides += [f"{key}.{inner}={to_text(v, f'{key}.{inner}')}" for inner, v in value.items()]
        else:
            overrides.append(f"{key}={to_text(value, key)}")
    return overrides


def to_text(value: object, key: str) -> str:
    """A value in the grammar of Hydra's overrides. `key` is named in the RequestError."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, str | PurePath):
        return _quoted(str(value))
    if isinstance(value, list | tuple):
        return f"[{','.join(to_text(v, key) for v in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_quoted(str(k))}:{to_text(v, key)}" for k, v in value.items()) + "}"
    raise RequestError(f"`{key}`: expected a number, a string, a list or a mapping, got {type(value).__name__}")


def _quoted(text: str) -> str:
    if _BARE.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    escaped = re.sub(r"(\\+)(?=$|')", r"\1\1", text).replace("'", "\\'")  # Hydra reads \\ as one only before a quote
    return f"'{escaped}'"


def takes_path(key: str, value: str) -> bool:
    """Whether the value of a key is a path, or a text, that may be typed without the quotes of Hydra's grammar."""
    is_text = key in ("text", "evaluator.text") and not value.startswith(('["', "['"))  # those begin a list of texts
    is_file = key == "labels" and value.lower().endswith((".csv", ".tsv", ".txt"))
    is_folder = key.startswith(("hydra.run.", "hydra.sweep."))  # of one run, or one sweep
    return is_text or is_file or is_folder or key in ("run", "init", "dataset.exclude") or key.endswith(".path")


def as_typed(override: str) -> str:
    """An override as Hydra records it, as it can be typed: the command line quotes paths itself, and would take the backslash of
    `dataset.path=my\\ images` for a part of the name."""
    key, _, value = override.partition("=")
    if not takes_path(key.lstrip("+"), value) or value[:1] in ("'", '"'):
        return override
    return f"{key}={re.sub(_ESCAPED, lambda m: m[0][1:], value)}"


def refuse_unused(overrides: list[str], groups: tuple[str, ...], why: str, hint: str) -> None:
    """RequestError for an override of one of these groups, which would have no effect."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.split(".")[0] in groups:
            raise RequestError(f"{override}: {why}", hint)


def override_keys(overrides: list[str]) -> list[str]:
    """`+train.steps=5` -> `train.steps`."""
    return [o.lstrip("+").partition("=")[0] for o in overrides]


def with_optional_keys(overrides: list[str]) -> list[str]:
    """`dataset.exclude=FILE` adds that key, which every data set takes: without it, configurations and their hashes are those of
    earlier versions."""
    return [f"++{o}" if o.startswith("dataset.exclude=") else o for o in overrides]


def canonical(overrides: list[str]) -> list[str]:
    """The overrides with the names that keys have in the configuration: `init` is a text, and `init.download` no key of it."""
    return [f"init_download={o.partition('=')[2]}" if o.startswith("init.download=") else o for o in overrides]


def allow_data_path(overrides: list[str]) -> list[str]:
    """`dataset.path=NEW` alone gives the new location of the run's data. The composed data set is not the run's and may lack
    that key, so it is added as a new one."""
    given = override_keys(overrides)
    if "dataset" in given or "run=none" in overrides:
        return overrides
    return [f"++{o}" if o.startswith("dataset.path=") else o for o in overrides]
