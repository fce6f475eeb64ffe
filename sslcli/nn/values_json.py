"""The description of values that is stored beside the weights of an encoder, read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from sslcli.nn.values import Columns, Continuous, Tokens, Values

KINDS: dict[str, type[Values]] = {kind.kind: kind for kind in (Continuous, Tokens, Columns)}
_CHECKS: dict[str, Callable[[Any], bool]] = {  # annotations of the fields
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "int | None": lambda v: v is None or _CHECKS["int"](v),
    "str": lambda v: isinstance(v, str),
    "float": lambda v: _CHECKS["int"](v) or isinstance(v, float),
    "tuple[int, ...]": lambda v: isinstance(v, tuple) and all(map(_CHECKS["int"], v)),
    "tuple[float, ...]": lambda v: isinstance(v, tuple) and all(map(_CHECKS["float"], v)),
}


def values_from_json(content: Mapping[str, Any]) -> Values:
    """The object that `to_json` described. ValueError for an unknown kind or other fields, or fields of another type."""
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items() if key != "kind"}
    kind = KINDS.get(str(content.get("kind")))
    if kind is None:
        raise ValueError(f"unknown kind of values {content.get('kind')!r}: expected one of {', '.join(KINDS)}")
    types = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    if wrong := [key for key, v in given.items() if key not in types or not _CHECKS[types[key]](v)]:
        raise ValueError(f"invalid values of kind {kind.kind}: {', '.join(map(str, wrong))}")
    try:
        return kind(**given)
    except TypeError as e:
        raise ValueError(f"invalid values of kind {kind.kind}: {e}") from None
