"""sslcli list KIND: the choices of a config group, read from the YAML files alone."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from sslcli import console
from sslcli.cli.main import Request
from sslcli.config import registry
from sslcli.errors import RequestError, nearest

COLUMNS = {"method": ("family", "modality", "needs", "source")}
ABSENT = {"modality": "any"}  # what a YAML means that does not say it


def main(request: Request) -> int:
    if len(request.words) != 1:
        raise RequestError("list what?", f"sslcli list {'|'.join(registry.KINDS)}")
    kind = request.words[0]
    group = registry.KINDS.get(kind) or registry.KINDS.get(f"{kind}s")
    if group is None:
        close = nearest(kind, registry.KINDS)
        raise RequestError(
            f"there are no `{kind}`",
            f"did you mean `sslcli list {close}`?" if close else f"kinds: {', '.join(registry.KINDS)}",
        )
    found = {
        name: registry.describe(path, group)
        for name, path in sorted(registry.choices(group, request.config_dirs).items())
    }
    if console.flag(console.JSON):
        keys = ("summary", *COLUMNS.get(group, ()))
        console.out_json(
            {"kind": group, "choices": [{"name": n, **{k: d.get(k) for k in keys}} for n, d in found.items()]}
        )
        return 0
    keys = (*COLUMNS.get(group, ()), "summary")
    body = [[name, *(told(d.get(k) or ABSENT.get(k)) for k in keys)] for name, d in found.items()]
    if sys.stdout.isatty():
        body.sort(key=lambda row: row[1:2] if group in COLUMNS else [])  # by family, then by name
        width = shutil.get_terminal_size().columns
        for line in console.table(["name", *keys], body):
            console.out(line[:width])
    else:  # for other programs: a line each, the name first (`cut -f1`)
        console.out(*("\t".join(" ".join(cell.split()) for cell in row) for row in body))
    return 0


def told(value: Any) -> str:
    """What a YAML says of itself, in a cell."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
