"""The folder of a run: create, open, lock and write it. Checkpoints and the encoder have files of their own.

config.yaml   status.json   metrics.jsonl   events.jsonl   log.txt   checkpoints/   encoder.safetensors   encoder.json   eval/
"""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from sslcli import console
from sslcli.config import Config, checks
from sslcli.errors import RequestError, RunInUseError, StorageError, TrainingError
from sslcli.runs import Record, records
from sslcli.runs.environment import environment
from sslcli.runs.files import (
    append_line,
    make_folder,
    make_run_folder,
    open_file,
    parse,
    replace_file,
    size_of,
    write_json,
)
from sslcli.runs.find import link_latest, resume_command
from sslcli.runs.redact import hide, redacted
from sslcli.runs.results import SavedResult, saved_results
from sslcli.runtime import progress

FORMAT = 1  # of the run folder; newer formats are rejected


class MetricSink(Protocol):
    """A further destination of metrics beside metrics.jsonl."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def result(self, name: str, numbers: Mapping[str, float], images: Mapping[str, Path], step: int) -> None: ...


class Run:
    """An open run folder of this process."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self._lock: int | None = None
        self._metrics: int | None = None
        self._pending = b""  # lines of metrics not yet written because the disk is full
        self._writing = threading.Lock()
        self._end_heartbeat: Callable[[], None] = lambda: None
        self._reported: set[str] = set()  # files that could not be written, each reported once
        self.sink: MetricSink | None = None  # receives the metrics as well: see `loggers.attached`

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # ------------------------------------------------------------------------------------------------------ make and open

    @classmethod
    def create(cls, path: Path, cfg: Config, *, numbered: bool = False) -> Run:
        """Creates the folder. Where it is a run already: RequestError, or `<path>_2`, `<path>_3`, ... with `numbered`."""
        wanted, number = path, 1
        while not make_run_folder(path):
            if not numbered:
                raise RequestError(f"{path} is a run already", resume_command(path))
            number += 1
            path = wanted.with_name(f"{wanted.name}_{number}")
        run = cls(path)
        run.lock()
        run.write_config(cfg)
        run._write_status({"status": "running", "created": now(), **environment()})
        link_latest(path)
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        status = records.status(path)
        if status.get("format", FORMAT) > FORMAT:
            raise RequestError(f"{path} was written by a newer sslcli ({status.get('sslcli')})", "upgrade sslcli")
        return cls(path)

    def write_config(self, cfg: Config) -> None:
        import yaml

        text = yaml.safe_dump(redacted(cfg), sort_keys=False, allow_unicode=True)
        replace_file(self.path, "config.yaml", "# Resolved: enough to rebuild this run.\n" + text)

    @property
    def config(self) -> Config:
        """config.yaml, with the schema's defaults where it lacks a key. RequestError."""
        return records.configuration(self.path)

    @property
    def valid_config(self) -> Config:
        """The configuration with all groups present and all values in their ranges. RequestError."""
        cfg = self.config
        checks.check_values(cfg)
        return cfg

    # -------------------------------------------------------------------------------------------------------------- lock

    def lock(self) -> None:
        """Holds `.lock` until the process ends; RunInUseError. Uses `lockf`: with `flock` a forked worker would keep the lock."""
        import fcntl

        try:
            fd = open_file(self.path, ".lock", os.O_RDWR | os.O_CREAT)
        except OSError as e:
            raise StorageError(f"cannot write {self.path / '.lock'}: {e.strerror}") from None
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            time.sleep(0.1)  # the process that has just locked it has not written its name yet
            holder = parse(os.pread(fd, 4096, 0).decode(errors="replace"))
            os.close(fd)
            if e.errno not in (errno.EACCES, errno.EAGAIN):
                raise StorageError(f"{self.path / '.lock'} cannot be locked: {e.strerror}") from None
            who = f"pid {holder.get('pid', '?')} on {holder.get('host', '?')} since {holder.get('since', '?')}"
            raise RunInUseError(f"{self.path} is in use by {who}", "wait for it, or stop that process") from None
        self._lock = fd
        self._end_heartbeat = progress.start_heartbeat(self._heartbeat)
        try:
            os.ftruncate(fd, 0)
            os.write(fd, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now()}).encode())
        except OSError as e:  # the lock is held; only the description for other processes is missing
            self._complain(".lock", e)

    def _heartbeat(self) -> None:
        """Writes the time into status.json, from a thread of its own."""
        with self._writing:
            if self._lock is not None and self.status:
                try:
                    self._merge_status({})
                except StorageError as e:
                    self._complain("status.json", e)

    def close(self) -> None:
        self._end_heartbeat()
        if self._pending:
            self._flush_metrics()
        with self._writing:  # not while a heartbeat is being written
            for fd in (self._metrics, self._lock):
                if fd is not None:
                    os.close(fd)
            self._metrics = self._lock = None

    # ------------------------------------------------------------------------------------------------------------ status

    @property
    def status(self) -> Record:
        return records.status(self.path)

    def set_status(self, state: str | None = None, **values: Any) -> None:
        """Merges values into status.json atomically; `heartbeat` is the time of the last call. A full disk is reported once."""
        try:
            self._write_status(values | ({} if state is None else {"status": state}))
        except StorageError as e:
            self._complain("status.json", e)

    def _write_status(self, values: dict[str, Any]) -> None:
        with self._writing:  # the heartbeat comes from another thread
            self._merge_status(values)

    def _merge_status(self, values: dict[str, Any]) -> None:
        write_json(self.path, "status.json", self.status | values | {"heartbeat": now(), "format": FORMAT})

    def _complain(self, name: str, e: OSError | StorageError) -> None:
        """Warns once that a file about the run cannot be written. Training continues; only a failed checkpoint ends it."""
        if name not in self._reported:
            self._reported.add(name)
            console.warn(f"cannot write {self.path / name}: {e.strerror}" if isinstance(e, OSError) else e.message)

    # ----------------------------------------------------------------------------------------------------------- metrics

    def log(self, step: int, epoch: float, seconds: float, values: dict[str, float]) -> None:
        """Appends a line to metrics.jsonl with one `write`. Non-finite values become null and are listed in `nonfinite`.

        Lines that do not fit on a full disk are kept in memory and written later."""
        bad = [k for k, v in values.items() if not math.isfinite(v)]
        line: dict[str, Any] = {"step": step, "epoch": round(epoch, 4), "seconds": round(seconds, 3)}
        line |= {k: None if k in bad else float(v) for k, v in values.items()}
        if bad:
            line["nonfinite"] = bad
        self._pending += (json.dumps(line, allow_nan=False) + "\n").encode()
        self._flush_metrics()
        if self.sink is not None:
            self.sink.log(step, values)

    def _flush_metrics(self) -> OSError | None:
        """Writes the pending lines; returns the error where that fails."""
        try:
            if self._metrics is None:
                self._metrics = open_file(self.path, "metrics.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            while self._pending:
                self._pending = self._pending[os.write(self._metrics, self._pending) :]
        except OSError as e:
            self._complain("metrics.jsonl", e)
            return e
        return None

    def metrics_offset(self) -> int:
        """Size of metrics.jsonl in bytes, with all lines flushed to disk, for a checkpoint. StorageError where they are not."""
        error = self._flush_metrics()
        try:
            if error is not None or self._metrics is None:
                raise error or OSError(errno.EIO, "its last lines are not written")
            os.fsync(self._metrics)
            return os.fstat(self._metrics).st_size
        except OSError as e:
            raise StorageError(f"cannot write {self.path / 'metrics.jsonl'}: {e.strerror}") from None

    def cut_metrics(self, offset: int) -> None:
        """Truncates metrics.jsonl to the size recorded in a checkpoint: no duplicate and no incomplete line remains."""
        path = self.path / "metrics.jsonl"
        size = size_of(self.path, "metrics.jsonl") or 0
        if size > offset:
            try:
                fd = open_file(self.path, "metrics.jsonl", os.O_WRONLY)
                os.ftruncate(fd, offset)
                os.close(fd)
            except OSError as e:
                raise StorageError(f"cannot write {path}: {e.strerror}") from None
        elif size < offset:
            console.warn(f"{path} has {size:,} bytes of the {offset:,} that the checkpoint saw: lines are missing")

    @property
    def metrics(self) -> list[Record]:
        """The lines of metrics.jsonl, without an incomplete last one; unreadable lines are counted in a warning."""
        lines, bad = records.metrics(self.path)
        if bad:
            console.warn(f"{bad} of {len(lines) + bad:,} lines of {self.path / 'metrics.jsonl'} cannot be read")
        return lines

    def event(self, kind: str, **values: Any) -> None:
        """Appends to events.jsonl: a warning, a skipped step, a save, a signal."""
        self._append("events.jsonl", json.dumps(redacted({"time": now(), "event": kind, **values}), default=str))

    def write_log(self, text: str) -> None:
        self._append("log.txt", f"{now()} {hide(text)}")

    def _append(self, name: str, line: str) -> None:
        try:
            append_line(self.path, name, line)
        except OSError as e:
            self._complain(name, e)

    # ------------------------------------------------------------------------------------------------------------ results

    def save_eval(self, name: str, result: dict[str, Any]) -> Path:
        """Writes eval/NAME.json. StorageError."""
        self.make_folder("eval/checkpoints" if "/" in name else "eval")
        write_json(self.path, f"eval/{name}.json", result)
        return self.path / "eval" / f"{name}.json"

    def make_folder(self, name: str) -> Path:
        """A folder of the run, created where it is missing. StorageError."""
        try:
            return make_folder(self.path, name)
        except OSError as e:
            raise StorageError(f"cannot write {self.path / name}: {e.strerror}") from None

    @property
    def results(self) -> dict[str, SavedResult]:
        """Saved results by name; see results.py."""
        return saved_results(self.path)

    @property
    def evals(self) -> dict[str, Record]:
        return {name: result.record for name, result in self.results.items()}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def require_done(run: Run) -> None:
    if size_of(run.path, "encoder.safetensors") is None:
        raise TrainingError(
            f"{run.path} has no encoder yet (status: {run.status.get('status')})", resume_command(run.path)
        )
