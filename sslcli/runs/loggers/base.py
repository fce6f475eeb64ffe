"""The interface of a logger, and the ID under which an external logger knows a run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from sslcli.config import Config, typecheck
from sslcli.errors import MachineError
from sslcli.runs import Record
from sslcli.runs.files import read_json, write_json
from sslcli.runs.run import Run

ID_FILE = "loggers.json"  # in the run folder: the IDs of this run in external loggers


class Logger:
    """A destination of metrics. `open` is called first, then `log` and `result`, `close` last; any exception may be raised."""

    package: ClassVar[str]  # the Python package that it imports

    def check(self) -> None:
        """Raises MachineError, before a run begins, where the logger cannot work on this machine."""
        name = type(self).__name__.lower()
        try:
            importlib.import_module(self.package)
        except ImportError as e:
            raise MachineError(
                f"logger={name} needs a package that is not installed ({e})", f"pip install 'sslcli[{name}]'"
            ) from None

    def open(self, run: Run, cfg: Config, step: int) -> None:
        """Starts logging. `cfg`: the configuration, secrets masked. `step`: the step from which metrics follow."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def result(self, name: str, numbers: Mapping[str, float], images: Mapping[str, Path], step: int) -> None:
        """Logs the metrics of an evaluation, and its images: PNG files by name."""

    def close(self) -> None: ...


def load_id(run: Run, name: str, make: Callable[[], dict[str, str]]) -> Record:
    """The ID of this run in a logger: from the run folder, or created by `make` and saved there."""
    known = read_json(run.path, ID_FILE)
    if not typecheck.matches_type(known.get(name), dict[str, str]) or not known[name]:
        known[name] = make()
        write_json(run.path, ID_FILE, known)
    return known[name]
