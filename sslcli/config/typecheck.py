"""Does a value that somebody typed fit an annotation, and what was wanted, in words. Knows plain types and their unions."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "null",
}
MOST_BITS = 512  # of an integer: one that is longer has no use, and is no float either
_LISTS = (list, tuple, Sequence)
_TABLES = (dict, Mapping)


def matches_type(value: Any, kind: Any) -> bool:
    """Whether `value`, as YAML gives it, is of the annotated type. An annotation that is not known here fits anything."""
    return not _known(kind) or any(_is(value, k) for k in _alternatives(kind))


def describe_type(kind: Any) -> str:
    """`int | None` -> `a whole number or null`."""
    return " or ".join(dict.fromkeys(_word(k) for k in _alternatives(kind) if _known(k)))


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (type(None),) if kind is None else (kind,)


def _known(kind: Any) -> bool:
    plain = (*_WORDS, *_LISTS, *_TABLES)
    return any(k in plain or typing.get_origin(k) in (*_LISTS, *_TABLES, typing.Literal) for k in _alternatives(kind))


def _is(value: Any, kind: Any) -> bool:
    origin, args = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is typing.Literal:
        return value in args
    if kind in (int, float):
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
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
    if origin in _TABLES:
        return isinstance(value, Mapping) and (not args or all(matches_type(v, args[1]) for v in value.values()))
    return isinstance(kind, type) and isinstance(value, kind)


def _word(kind: Any) -> str:
    origin, args = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is typing.Literal:
        return " or ".join(map(str, args))
    if origin in _TABLES:
        return "keys with values"
    if origin in _LISTS:
        return f"a list like [{_example(args)}]"
    return _WORDS[kind]


def _example(args: tuple[Any, ...]) -> str:
    one = {int: "1", float: "0.5", str: "a", bool: "true"}
    items = [one.get(a, "...") for a in args if a is not Ellipsis] or ["..."]
    return ",".join(items if len(items) > 1 else items * 2)
