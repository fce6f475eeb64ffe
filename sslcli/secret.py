"""What is never written down: values of keys that name a secret, and of environment variables that do."""

from __future__ import annotations

import os
import re
from typing import Any

_NAMES = re.compile(
    r"(?:^|[_.-])(?:token|secret|password|passwd|credential|(?:api|access|private)_?key)s?(?:$|[_.-])", re.I
)
_SHORTEST = 8  # a shorter value of a variable is too likely to be an ordinary word
HIDDEN = "***"


def masked(node: Any, key: str = "") -> Any:
    """A configuration with its secrets hidden, by the names of their keys."""
    if isinstance(node, dict):
        return {k: masked(v, str(k)) for k, v in node.items()}
    if isinstance(node, list):
        return [masked(v, key) for v in node]
    return HIDDEN if isinstance(node, str) and node and _NAMES.search(key) else node


def masked_words(words: list[str]) -> list[str]:
    """A command line: `logger.api_key=abc` becomes `logger.api_key=***`."""
    split = [(word, *word.partition("=")) for word in words]
    return [f"{key}={HIDDEN}" if equals and _NAMES.search(key) else word for word, key, equals, _ in split]


def hide(text: str) -> str:
    """Without the values of environment variables whose names say that they are secret (`${oc.env:WANDB_API_KEY}`)."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMES.search(name):
            text = text.replace(value, HIDDEN)
    return text
