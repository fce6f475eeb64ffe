"""Nested configurations as flat mappings of dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(node: Any, key: str = "") -> dict[str, Any]:
    """A nested mapping as `dotted.key -> value`. Lists and empty mappings are values."""
    if not isinstance(node, Mapping) or not node:
        return {key: node}
    parts = (flatten(value, f"{key}.{name}" if key else str(name)) for name, value in node.items())
    return {k: v for part in parts for k, v in part.items()}
