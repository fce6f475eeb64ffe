"""YAML files from outside the package: limits on size, aliases, nodes and depth, checked before OmegaConf reads them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sslcli.errors import RequestError, first_line

# An alias bomb of 242 bytes costs OmegaConf half a minute.
MAX_YAML_BYTES, MAX_YAML_ALIASES, MAX_YAML_NODES, MAX_YAML_DEPTH = 1_000_000, 50, 20_000, 50
LONG_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-F_xob:]{100,}")  # what YAML reads as an integer
MAX_ENTRIES = 50_000  # files and folders below a --config-dir


def check_yaml_folder(folder: Path) -> None:
    """`check_yaml` for every YAML file below a folder. RequestError."""
    entries = 0
    for root, folders, files in os.walk(folder):  # follows no links
        folders.sort()
        entries += len(files) + len(folders)
        if entries > MAX_ENTRIES:
            raise RequestError(
                f"{folder} has more than {MAX_ENTRIES:,} files", "give the folder of the YAML files itself"
            )
        for name in sorted(f for f in files + folders if f.endswith(".yaml")):
            check_yaml(Path(root, name))


def check_yaml(path: Path) -> None:
    """RequestError for a YAML file that is too large, binary, or expands too far. No object is constructed from it.

    A FIFO, a device or a folder is never opened."""
    import stat

    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise RequestError(f"{path} is not a regular file")
        if about.st_size > MAX_YAML_BYTES:
            raise RequestError(f"{path} is {about.st_size:,} bytes; the limit for a config file is {MAX_YAML_BYTES:,}")
        content = path.read_bytes()
    except OSError as e:
        raise RequestError(f"{path} cannot be read: {e.strerror}") from None
    decode_yaml(content, path)


def decode_yaml(content: bytes, path: Path) -> str:
    """The text of a YAML file, within the limits on aliases, nodes and depth. `path` is for messages. RequestError."""
    import yaml

    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as e:
        raise RequestError(f"{path} is not UTF-8 text (byte {e.start})", "save it as UTF-8") from None
    if text.startswith("\ufeff"):
        raise RequestError(f"{path} starts with a byte-order mark", "save it as UTF-8 without BOM")
    aliases = nodes = depth = 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            aliases += isinstance(event, yaml.AliasEvent)
            nodes += isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent))
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.ScalarEvent) and LONG_NUMBER.fullmatch(event.value):
                raise RequestError(f"{path} has a number of {len(event.value):,} digits: {event.value[:20]}...")
            for name, n, limit in (
                ("aliases", aliases, MAX_YAML_ALIASES),
                ("nodes", nodes, MAX_YAML_NODES),
                ("levels", depth, MAX_YAML_DEPTH),
            ):
                if n > limit:
                    raise RequestError(f"{path} has too many {name} (over {limit:,})")
    except yaml.YAMLError as e:
        raise RequestError(f"{path} is not valid YAML: {first_line(e)}", _position(e)) from None
    return text


def _position(e: Exception) -> str | None:
    mark = getattr(e, "problem_mark", None)
    return f"see line {mark.line + 1}, column {mark.column + 1}" if mark is not None else None
