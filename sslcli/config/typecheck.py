"""Type checks for config values: whether a value matches an annotation, and a description of the expected type.

Supports int, float, bool, str, Path, None, Literal, lists, tuples, mappings and unions of these."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NAMES = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    Path: "a path",
    type(None): "null",
}
MAX_BITS = 512  # of an integer: a longer one has no use, and does not convert to a float
_LISTS = (list, tuple, Sequence)
_MAPPINGS = (dict, Mapping)


def matches_type(value: object, kind: object) -> bool:
    """Whether `value`, as read from YAML, has the annotated type. An annotation that is not supported matches any value."""
    return not _is_supported(kind) or any(_has_type(value, k) for k in _alternatives(kind))


def describe_type(kind: object) -> str:
    """`int | None` -> `an integer or null`."""
    return " or ".join(dict.fromkeys(_name(k) for k in _alternatives(kind) if _is_supported(k)))


def _alternatives(kind: object) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (type(None),) if kind is None else (kind,)


def _is_supported(kind: object) -> bool:
    plain = (*_NAMES, *_LISTS, *_MAPPINGS)
    return any(k in plain or typing.get_origin(k) in (*_LISTS, *_MAPPINGS, typing.Literal) for k in _alternatives(kind))


def _has_type(value: object, kind: object) -> bool:
    origin, args = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is typing.Literal:
        return value in args
    if kind in (int, float):
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            return False
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    if kind is Path:
        return isinstance(value, (str, Path))
    if origin in _LISTS:
        if not isinstance(value, (list, tuple)):
            return False
        if origin is tuple and args and args[-1] is not Ellipsis:
            return len(value) == len(args) and all(map(matches_type, value, args))
        return not args or all(matches_type(v, args[0]) for v in value)
    if origin in _MAPPINGS:
        return isinstance(value, Mapping) and (not args or all(matches_type(v, args[1]) for v in value.values()))
    return isinstance(kind, type) and isinstance(value, kind)


def _name(kind: Any) -> str:
    origin, args = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(map(str, args))
    if origin in _MAPPINGS:
        return "a mapping"
    if origin in _LISTS:
        return f"a list like [{_example(args)}]"
    return _NAMES[kind]


def _example(args: tuple[Any, ...]) -> str:
    one = {int: "1", float: "0.5", str: "a", bool: "true"}
    items = [one.get(a, "...") for a in args if a is not Ellipsis] or ["..."]
    return ",".join(items if len(items) > 1 else items * 2)
