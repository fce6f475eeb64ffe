"""sslcli list KIND: the choices of a config group, read from the YAML files alone.

`list methods` has a column for each modality: whether the method runs on it (`sslcli.config.modalities`).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from typing import Any

from sslcli import console
from sslcli.cli.arguments import Request, subcommand_of
from sslcli.cli.command_table import COMMANDS
from sslcli.config import modalities, registry

COLUMNS = {
    "method": ("family", "needs", "source"),
    "modality": ("provides", "unusual"),
    "experiment": ("measured", "published", "time"),
}
MARKS = {modalities.PLAIN: "●", modalities.UNUSUAL: "○", modalities.REFUSED: "-"}
LEGEND = "● runs   ○ runs, but is no usual choice   - the data lack what the method requires"


def main(request: Request) -> int:
    kinds = COMMANDS["list"].subcommands
    singular = {kind.name.removesuffix("s"): kind.name for kind in kinds} | {"modality": "modalities"}
    request.positional[:1] = [singular.get(name, name) for name in request.positional[:1]]
    group = registry.KINDS[subcommand_of(request, COMMANDS["list"])]
    nodes = describe(group, request)
    keys = (*COLUMNS.get(group, ()), "summary")
    matrix = supported(nodes, describe("modality", request)) if group == "method" else {}
    if console.flag(console.JSON):
        rows = []
        for name, node in nodes.items():
            entry: dict[str, Any] = {"name": name, **{key: node.get(key) for key in ("summary", *keys[:-1])}}
            if group == "method":
                entry |= {"requires": sorted(modalities.requires(node, nodes)), "modalities": matrix[name]}
            rows.append(entry)
        console.out_json({"kind": group, "choices": rows})
        return 0
    names = list(next(iter(matrix.values()), {}))
    header = ["name", *keys]
    header[2:2] = names
    body = []
    for name, node in nodes.items():
        row = [name, *(cell(node.get(key)) for key in keys)]
        row[2:2] = [MARKS[matrix[name][m]] for m in names]
        body.append(row)
    if sys.stdout.isatty() and group == "experiment":  # sentences, too long for columns
        for name, node in nodes.items():
            console.out(f"{name}  {node.get('summary')}")
            console.out(*(f"    {key:<9}  {node[key]}" for key in COLUMNS[group] if key in node))
    elif sys.stdout.isatty():
        body.sort(key=lambda row: row[1:2] if group == "method" else [])  # by family, then by name
        width = shutil.get_terminal_size().columns
        for line in console.table(header, body):
            console.out(line[:width])
        if matrix:
            console.out("", LEGEND)
    else:  # for other programs: one line each, the name first (`cut -f1`)
        console.out(*("\t".join(" ".join(text.split()) for text in row) for row in body))
    return 0


def describe(group: str, request: Request) -> dict[str, dict[str, Any]]:
    """Name -> YAML file of each choice, by name."""
    files = registry.choices(group, request.config_dirs)
    return {name: registry.describe(path, group) for name, path in sorted(files.items())}


def supported(
    methods: Mapping[str, Mapping[str, Any]], kinds: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """Method -> modality -> `plain`, `unusual` or `refused`."""
    return {
        name: {kind: modalities.support(name, modalities.requires(node, methods), of) for kind, of in kinds.items()}
        for name, node in methods.items()
    }


def cell(value: object) -> str:
    """A value of a YAML file as the text of a table cell."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")
