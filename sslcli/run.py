"""A run is a folder. This file makes, finds, locks and fills it; checkpoints have their own file.

config.yaml   status.json   metrics.jsonl   events.jsonl   log.txt   checkpoints/   encoder.safetensors   encoder.json   eval/
"""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sslcli import __version__, config
from sslcli.errors import RequestError, RunInUseError, StorageError, TrainingError, listing, nearest

FORMAT = 1  # of the run folder; a newer one than we know is refused
_SECRET = ("token", "secret", "password", "api_key", "apikey", "credential")


class Run:
    """An open run folder of this process."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self._lock: int | None = None
        self._metrics: int | None = None

    def __str__(self) -> str:
        return str(self.path)

    # ------------------------------------------------------------------------------------------------------ make and open

    @classmethod
    def create(cls, path: Path, cfg: dict[str, Any]) -> Run:
        """Makes the folder ours. `status.json` is opened exclusively: two processes in one folder is an error."""
        run = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            with open(path / "status.json", "x") as f:
                f.write("{}")
        except FileExistsError:
            raise RequestError(f"{path} is a run already", f"sslcli resume {path}") from None
        except OSError as e:
            raise StorageError(
                f"cannot write to {path}: {e.strerror}", "set SSLCLI_RUNS to a folder with room"
            ) from None
        run.lock()
        import yaml

        text = yaml.safe_dump(masked(cfg), sort_keys=False, allow_unicode=True)
        replace_file(path / "config.yaml", "# Resolved: enough to rebuild this run.\n" + text)
        run.set_status("running", created=now(), **environment())
        _point_latest(path)
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        status = read_json(path / "status.json")
        if status.get("format", FORMAT) > FORMAT:
            raise RequestError(f"{path} was written by a newer sslcli ({status.get('sslcli')})", "upgrade sslcli")
        return cls(path)

    @property
    def config(self) -> dict[str, Any]:
        import yaml

        try:
            return yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as e:
            raise RequestError(f"{self.path} has no readable config.yaml: {e}") from None

    # -------------------------------------------------------------------------------------------------------------- lock

    def lock(self) -> None:
        """Holds `.lock` until the process ends. `lockf` and not `flock`: a forked worker does not keep it alive."""
        import fcntl

        fd = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            holder = _parse(os.read(fd, 4096).decode(errors="replace"))
            os.close(fd)
            who = f"pid {holder.get('pid', '?')} on {holder.get('host', '?')} since {holder.get('since', '?')}"
            raise RunInUseError(f"{self.path} is in use by {who}", "wait for it, or stop that process") from None
        os.ftruncate(fd, 0)
        os.write(fd, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now()}).encode())
        self._lock = fd

    def close(self) -> None:
        for fd in (self._metrics, self._lock):
            if fd is not None:
                os.close(fd)
        self._metrics = self._lock = None

    # ------------------------------------------------------------------------------------------------------------ status

    @property
    def status(self) -> dict[str, Any]:
        return read_json(self.path / "status.json")

    def set_status(self, state: str | None = None, **values: Any) -> None:
        """Merges into status.json, atomically; `heartbeat` is the time of the last call."""
        status = self.status | values | {"heartbeat": now(), "format": FORMAT}
        if state is not None:
            status["status"] = state
        replace_file(self.path / "status.json", json.dumps(status, indent=2) + "\n")

    # ----------------------------------------------------------------------------------------------------------- metrics

    def log(self, step: int, epoch: float, seconds: float, values: dict[str, float]) -> None:
        """One line of metrics.jsonl, written by one `write`. Non-finite numbers become null and are named."""
        bad = [k for k, v in values.items() if not math.isfinite(v)]
        line: dict[str, Any] = {"step": step, "epoch": round(epoch, 4), "seconds": round(seconds, 3)}
        line |= {k: None if k in bad else float(v) for k, v in values.items()}
        if bad:
            line["nonfinite"] = bad
        if self._metrics is None:
            self._metrics = os.open(self.path / "metrics.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(self._metrics, (json.dumps(line, allow_nan=False) + "\n").encode())

    def metrics_offset(self) -> int:
        """Bytes of metrics.jsonl that are safely on disk: a checkpoint remembers it."""
        if self._metrics is not None:
            os.fsync(self._metrics)
        path = self.path / "metrics.jsonl"
        return path.stat().st_size if path.exists() else 0

    def cut_metrics(self, offset: int) -> None:
        """Back to what the checkpoint saw: no line twice, no torn line."""
        path = self.path / "metrics.jsonl"
        if path.exists() and path.stat().st_size > offset:
            os.truncate(path, offset)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines that parse; a torn last one is left out."""
        try:
            lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [parsed for line in lines if (parsed := _parse(line))]

    def event(self, kind: str, **values: Any) -> None:
        """Something worth remembering: a warning, a skipped step, a save, a signal."""
        line = json.dumps({"time": now(), "event": kind, **values}, default=str) + "\n"
        with open(self.path / "events.jsonl", "a", encoding="ascii") as f:
            f.write(line)

    def write_log(self, text: str) -> None:
        with open(self.path / "log.txt", "a", encoding="utf-8", errors="backslashreplace") as f:
            f.write(f"{now()} {text}\n")

    # ------------------------------------------------------------------------------------------------------------ results

    def save_eval(self, name: str, result: dict[str, Any]) -> Path:
        path = self.path / "eval" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        replace_file(path, json.dumps(result, indent=2, default=str) + "\n")
        return path

    @property
    def evals(self) -> dict[str, dict[str, Any]]:
        return {p.stem: read_json(p) for p in sorted((self.path / "eval").glob("*.json"))}


# --------------------------------------------------------------------------------------------------------------- all runs


def all_runs(root: Path | None = None) -> list[Path]:
    """Run folders below the root (and below sweeps), oldest first."""
    root = root or config.runs_root()
    found = [p.parent for pattern in ("*/status.json", "sweep/*/*/status.json") for p in root.glob(pattern)]
    return sorted((p for p in found if not p.is_symlink()), key=lambda p: (created(p), p.name))


def created(path: Path) -> str:
    return str(read_json(path / "status.json").get("created", ""))


def find(spec: str, root: Path | None = None) -> Path:
    """A run by path, by `latest`, or by a unique prefix (or part) of its name. RequestError otherwise."""
    root = root or config.runs_root()
    runs = all_runs(root)
    if spec == "latest":
        if not runs:
            raise RequestError(f"there is no run in {root}/ yet", "sslcli pretrain makes one")
        return runs[-1]
    direct = Path(spec)
    if (direct / "status.json").is_file():
        return direct.resolve() if direct.is_symlink() else direct
    if (root / spec / "status.json").is_file():
        return root / spec
    if direct.is_file() and (direct.parent / "status.json").is_file():
        raise RequestError(f"{spec} is a file in a run", f"did you mean run={direct.parent}?")
    hits = [p for p in runs if p.name.startswith(spec)] or [p for p in runs if spec and spec in p.name]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise RequestError(
            f"`{spec}` fits {len(hits)} runs: {listing([p.name for p in hits], 5)}", "give more of the name"
        )
    close = nearest(spec, [p.name for p in runs])
    raise RequestError(
        f"there is no run `{spec}` in {root}/", f"did you mean `{close}`?" if close else "`sslcli runs` lists them"
    )


def _point_latest(path: Path) -> None:
    """runs/latest -> the newest run. A convenience for people; nothing of ours reads it."""
    root = config.runs_root()
    link = root / "latest"
    try:
        target = os.path.relpath(path.resolve(), root.resolve())
        temporary = root / f".latest-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        os.replace(temporary, link)
    except OSError:  # a file system without links, or a real folder of that name: not worth failing for
        return


# ------------------------------------------------------------------------------------------------------------------ files


def replace_file(path: Path, text: str) -> None:
    """Writes beside, then renames: a reader sees the old text or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {e.strerror}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or {} where the file is absent or torn."""
    try:
        return _parse(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}


def _parse(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def masked(node: Any, key: str = "") -> Any:
    """The configuration with secrets hidden."""
    if isinstance(node, dict):
        return {k: masked(v, str(k)) for k, v in node.items()}
    if isinstance(node, list):
        return [masked(v, key) for v in node]
    return "***" if isinstance(node, str) and node and any(s in key.lower() for s in _SECRET) else node


def environment() -> dict[str, Any]:
    """What a number may depend on: versions, host, processor, git commit of the working folder."""
    import subprocess
    import sys
    from importlib.metadata import version

    packages = {name: version(name) for name in ("torch", "torchvision", "numpy", "pillow")}
    git = (
        subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
        if _has_git()
        else None
    )
    return {
        "sslcli": __version__,
        "python": platform.python_version(),
        "packages": packages,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "git": git.stdout.strip() if git is not None and git.returncode == 0 else None,
        "argv": sys.argv,
    }


def _has_git() -> bool:
    import shutil

    return shutil.which("git") is not None


def age(stamp: str) -> float:
    """Seconds since an ISO time stamp."""
    try:
        return time.time() - datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return math.inf


def require_done(run: Run) -> None:
    if not (run.path / "encoder.safetensors").exists():
        raise TrainingError(
            f"{run.path} has no encoder yet (status: {run.status.get('status')})", f"sslcli resume {run.path}"
        )
