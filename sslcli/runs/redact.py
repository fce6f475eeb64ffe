"""Redaction of secrets: values of keys, and of environment variables, whose names state that they are secret.

Values are hidden in the data, before it becomes JSON or YAML: no quoting can hide one from the search, and a path that
merely contains one stays whole."""

from __future__ import annotations

import json
import os
import re
from typing import Any

_NAMES = re.compile(
    r"(?:(?:^|[_.-])(?:token|credential|(?:api|access|private)_?key)|secret|password|passwd|passphrase)s?(?:$|[_.-])"
    r"|[a-z0-9][_-](?:key|pass|pat|pwd|pw)$",
    re.I,
)
_SHORTEST = 8  # a shorter value of a variable may well be an ordinary word
HIDDEN = "***"


def redacted(node: object, key: str = "", values: list[str] | None = None) -> Any:
    """Plain data with secrets replaced by `***`: values of secret keys, and `values` (default: of the environment)."""
    values = secret_values() if values is None else values
    if isinstance(node, dict):
        return {k: redacted(v, str(k), values) for k, v in node.items()}
    if isinstance(node, (list, tuple)):
        return [redacted(v, key, values) for v in node]
    if not isinstance(node, str) or not node or key == "_target_":
        return node
    if _NAMES.search(key):
        return HIDDEN
    for value in values:
        if value in node and not _is_path(node, value):
            node = node.replace(value, HIDDEN)
    return node


def redacted_overrides(words: list[str]) -> list[str]:
    """A command line: `logger.api_key=abc` becomes `logger.api_key=***`."""
    split = [(word, *word.partition("=")) for word in words]
    return [f"{key}={redacted(value, key)}" if equals else redacted(word) for word, key, equals, value in split]


def hide(text: str) -> str:
    """A text without the values of secret environment variables, also where they are quoted in it."""
    for value in secret_values():
        for spelled in {value, json.dumps(value)[1:-1], repr(value)[1:-1]}:
            text = text.replace(spelled, HIDDEN)
    return text


def secret_values() -> list[str]:
    """The values of environment variables with secret names (`${oc.env:WANDB_API_KEY}`), longest first."""
    values = {v for name, v in os.environ.items() if len(v) >= _SHORTEST and _NAMES.search(name)}
    return sorted(values, key=lambda v: (-len(v), v))


def _is_path(text: str, value: str) -> bool:
    """Whether a text that contains a secret's value names a file: POSTGRES_PASSWORD=postgres, path=postgres/x.npz."""
    rest = text.replace(value, "")
    return os.path.exists(text) or ("/" in rest and "://" not in text and "@" not in text)
