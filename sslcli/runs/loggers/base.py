"""The interface of a logger, and the ID under which an external logger knows a run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from sslcli.config import typecheck
from sslcli.errors import MachineError
from sslcli.runs.files import read_json, write_json
from sslcli.runs.run import Run

ID_FILE = "loggers.json"  # in the run folder: under which name others know this run


class Logger:
    """One place where numbers go. `open` comes first, then any `log` and `result`, `close` last; each may raise anything."""

    package: ClassVar[str]  # what is imported

    def check(self) -> None:
        """MachineError where it cannot work here, before a run begins."""
        name = type(self).__name__.lower()
        try:
            importlib.import_module(self.package)
        except ImportError as e:
            raise MachineError(
                f"logger={name} needs a package that is not there ({e})", f"pip install 'sslcli[{name}]'"
            ) from None

    def open(self, run: Run, cfg: dict[str, Any], step: int) -> None:
        """`cfg`: the configuration, secrets masked. `step`: from where on numbers come; of results only, the last one."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def result(self, name: str, numbers: Mapping[str, float], pictures: Mapping[str, Path], step: int) -> None:
        """Of an evaluation; pictures are PNG files by name."""

    def close(self) -> None: ...


def load_id(run: Run, name: str, make: Callable[[], dict[str, str]]) -> dict[str, Any]:
    """What a logger calls this run: from the run folder, or made now and kept there."""
    known = read_json(run.path, ID_FILE)
    if not typecheck.matches_type(known.get(name), dict[str, str]) or not known[name]:
        known[name] = make()
        write_json(run.path, ID_FILE, known)
    return known[name]
