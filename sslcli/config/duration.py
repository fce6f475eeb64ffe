"""Durations in a configuration: `90s`, `20m`, `1h30m`, `2d`."""

from __future__ import annotations

import math
import re
from typing import Any

from sslcli.errors import RequestError


def parse_duration(value: Any, key: str) -> float:
    """Seconds of a duration: 90, `90s`, `20m`, `1h30m`, `2d`. Only a single number may lack its unit: `1h30` is ambiguous.

    RequestError, which names `key`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        total = float(value)
    else:
        number = r"(\d+(?:\.\d+)?)"
        parts = re.fullmatch(rf"(?:{number}d)?(?:{number}h)?(?:{number}m)?(?:{number}s)?", str(value).strip())
        parts = parts or re.fullmatch(rf"()()(){number}", str(value).strip())
        if not parts or not any(parts.groups()):
            raise RequestError(f"{key}: expected a duration, got '{value}'", "90s, 20m and 1h30m are durations")
        total = sum(float(p or 0) * unit for p, unit in zip(parts.groups(), (86400, 3600, 60, 1), strict=True))
    if not (math.isfinite(total) and total > 0):
        raise RequestError(f"{key}: expected a positive duration, got '{value}'")
    return total
