"""Dotted keys of a nested configuration: `{"train": {"epochs": 1}}` has the keys `train` and `train.epochs`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def walk(node: object, key: str = "", lists: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield `(dotted.key, value)` of everything below `node`, each mapping before its content.

    Args:
        key: The key of `node` itself, a prefix of all others.
        lists: Whether entries of lists have keys too (`a.0`). Otherwise a list is a value.
    """
    if isinstance(node, Mapping):
        children = [(str(k), v) for k, v in node.items()]
    else:
        children = [(str(i), v) for i, v in enumerate(node)] if lists and isinstance(node, list) else []
    for name, value in children:
        path = f"{key}.{name}" if key else name
        yield path, value
        yield from walk(value, path, lists)


def flatten(node: object, key: str = "", lists: bool = False) -> dict[str, Any]:
    """`dotted.key -> value` of all leaves. An empty mapping or list is a leaf."""
    inner = (Mapping, list) if lists else (Mapping,)
    return {k: v for k, v in walk(node, key, lists) if not v or not isinstance(v, inner)}
