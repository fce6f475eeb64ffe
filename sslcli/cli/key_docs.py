"""The documentation of configuration keys: their defaults and meanings, read from the text of the YAML files.

The meaning of a key is the comment beside it, or the comment above it. PyYAML is not needed, which keeps `--help` fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sslcli.cli.command import Command
from sslcli.config import registry

_NOT_KEYS = {"_target_", "hydra", "defaults", *registry.FACT_KEYS[""], *registry.FACT_KEYS["evaluator"]}


class KeyDoc(NamedTuple):
    name: str  # in full, such as train.epochs
    default: str
    meaning: str


def read_keys(path: Path, prefix: str = "") -> list[KeyDoc]:
    """The keys at the top level of a YAML file, in its order."""
    keys, above = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        key, colon, rest = line.partition(":")
        if line.startswith("#"):
            above = line.lstrip("# ")
        elif colon and key.isidentifier() and key not in _NOT_KEYS:
            value, _, comment = rest.partition(" #")
            keys.append(KeyDoc(prefix + key, value.strip(), comment.strip() or above))
            above = ""
    return keys


def command_keys(command: Command) -> list[KeyDoc]:
    """The keys of a command that Hydra runs, besides those of its groups: of configs/COMMAND.yaml and of configs/base.yaml."""
    if not command.hydra:
        return []
    folder = registry.config_dir()
    shared = [k for k in read_keys(folder / "base.yaml") if k.name in command.shared]
    return [*read_keys(folder / f"{command.name}.yaml"), *shared]


def shared_keys(command: Command) -> dict[str, list[KeyDoc]]:
    """Config group -> those of its keys that the command takes, for the groups whose keys do not depend on a choice."""
    sections = {}
    for group, file in (("train", "default"), ("device", "auto")):
        keys = read_keys(registry.config_dir() / group / f"{file}.yaml", f"{group}.")
        if taken := [k for k in keys if group in command.shared or k.name in command.shared]:
            sections[group] = taken
    return sections
