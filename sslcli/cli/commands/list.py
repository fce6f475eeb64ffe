"""sslcli list KIND: the choices of a config group, read from the YAML files alone."""

from __future__ import annotations

import shutil
import sys

from sslcli import console
from sslcli.cli.arguments import Request, subcommand_of
from sslcli.cli.command_table import COMMANDS
from sslcli.config import registry

COLUMNS = {"method": ("family", "modality", "needs", "source")}
DEFAULTS = {"modality": "any"}  # the meaning of a key that a YAML file leaves out


def main(request: Request) -> int:
    kinds = COMMANDS["list"].subcommands
    singular = {kind.name.removesuffix("s"): kind.name for kind in kinds}
    request.positional[:1] = [singular.get(name, name) for name in request.positional[:1]]
    group = registry.KINDS[subcommand_of(request, COMMANDS["list"])]
    files = registry.choices(group, request.config_dirs)
    choices = {name: registry.describe(path, group) for name, path in sorted(files.items())}
    keys = (*COLUMNS.get(group, ()), "summary")
    if console.flag(console.JSON):
        keys = ("summary", *COLUMNS.get(group, ()))
        rows = [{"name": name, **{key: node.get(key) for key in keys}} for name, node in choices.items()]
        console.out_json({"kind": group, "choices": rows})
        return 0
    body = [[name, *(cell(node.get(key) or DEFAULTS.get(key)) for key in keys)] for name, node in choices.items()]
    if sys.stdout.isatty():
        body.sort(key=lambda row: row[1:2] if group in COLUMNS else [])  # by family, then by name
        width = shutil.get_terminal_size().columns
        for line in console.table(["name", *keys], body):
            console.out(line[:width])
    else:  # for other programs: one line each, the name first (`cut -f1`)
        console.out(*("\t".join(" ".join(text.split()) for text in row) for row in body))
    return 0


def cell(value: object) -> str:
    """A value of a YAML file as the text of a table cell."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
