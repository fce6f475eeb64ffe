"""Files of a Hugging Face folder, which may come from an untrusted source: regular files of bounded size, bounded JSON.

Symbolic links are followed, because the cache of the Hub consists of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sslcli.console import escape, human_bytes
from sslcli.errors import DataError, RequestError
from sslcli.runs import Record
from sslcli.runs.files import parse

CONFIG = "config.json"
MAX_CONFIG = 1 << 20  # bytes of config.json and the like
MAX_TOKENIZER = 128 << 20  # bytes of tokenizer.json or vocab.txt


def exists(folder: Path, name: str) -> bool:
    """Whether a folder has something of this name other than a folder; what is no regular file is reported when it is read."""
    return os.path.lexists(folder / name) and not (folder / name).is_dir()


def require_file(folder: Path, name: str, most: int) -> Path:
    """The path of a regular file of at most `most` bytes. RequestError where there is none, DataError for anything else."""
    path = folder / name
    try:
        about = os.stat(path)
    except FileNotFoundError:
        raise RequestError(f"{escape(str(folder))} has no {name}") from None
    except OSError as e:
        raise DataError(f"{escape(str(path))} cannot be read: {e.strerror or e}") from None
    if not stat.S_ISREG(about.st_mode):
        raise DataError(f"{escape(str(path))} is not a regular file")
    if about.st_size > most:
        raise DataError(
            f"{escape(str(path))} has {human_bytes(about.st_size)}, and at most {human_bytes(most)} are read"
        )
    return path


def read_bytes(folder: Path, name: str, most: int = MAX_CONFIG) -> bytes:
    """The content of a file. RequestError, DataError."""
    path = require_file(folder, name, most)
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except OSError as e:
        raise DataError(f"{escape(str(path))} cannot be read: {e.strerror or e}") from None


def read_object(folder: Path, name: str, most: int = MAX_CONFIG) -> Record:
    """The object of a JSON file. RequestError where there is no file, DataError where it holds no object, or too deep a one."""
    content = parse(read_bytes(folder, name, most))
    if not content:
        raise DataError(f"{escape(str(folder / name))} does not hold a JSON object", "copy the file again")
    return content


def read_optional(folder: Path, name: str) -> Record:
    """As `read_object`; {} where there is no such file."""
    return read_object(folder, name) if exists(folder, name) else {}
