"""Commands of sslcli in children of a process that has imported everything and computed nothing.

Importing torch takes seconds, a fork milliseconds. A process that ran no tensor operation has no thread pool, so its
children may run them; one thread each.

    children, from here          spawn([...], folder, log)
    from a process with threads  Zygote(), which talks to `python benchmarks/zygote.py` (a server of such children)
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[1]
OTHERS = (
    "torch._dynamo",
    "sklearn.datasets",
    "safetensors.torch",
    "PIL.PngImagePlugin",
    "hydra._internal.hydra",
    "hydra._internal.config_loader_impl",
    "hydra._internal.core_plugins.basic_launcher",
    "hydra.core.override_parser.overrides_parser",
)


def preload() -> None:
    """All of sslcli, and what it imports while it runs."""
    sys.path[:0] = [str(HOME), str(HOME / "benchmarks")]  # a safe path has no folder of the script
    import sslcli

    names = [m.name for m in pkgutil.walk_packages(sslcli.__path__, "sslcli.") if not m.name.endswith("__main__")]
    for name in (*OTHERS, *names):
        importlib.import_module(name)


def spawn(
    argv: list[str],
    folder: Path,
    log: Path,
    before: Callable[[], Any] | None = None,
    errors: Path | None = None,
    module: str = "sslcli.cli",
) -> int:
    """Runs `sslcli argv`, or the `main` of another module, in a forked child, in `folder`, in a session of its own, its words in
    `log`; with `errors`, those of stderr there. Returns the pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(n, signal.default_int_handler if n == signal.SIGINT else signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        words, problems = (
            os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) for file in (log, errors or log)
        )
        for target, source in ((0, nothing), (1, words), (2, problems)):
            os.dup2(source, target)
        if before is not None:
            before()
        sys.argv = ["sslcli", *argv]
        code = importlib.import_module(module).main(argv) or 0  # None: of torchrun
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


VOLATILE = ("seconds", "train/samples_per_s", "train/data_wait")


def outcome(run: Path) -> dict[str, Any]:
    """Everything of a finished run that must be the same for two equal runs: hashes of tensors, counters, metrics."""
    from sslcli.runs import checkpoint
    from sslcli.runs.run import Run

    newest = checkpoint.existing(run / "checkpoints")[0]
    assert checkpoint.verify(newest) is None
    state = json.loads((newest / "state.json").read_bytes())
    files = json.loads((newest / "manifest.json").read_bytes())["files"]
    return {
        **{name: value["sha256"] for name, value in files.items() if name.endswith(".safetensors")},
        "state": {k: v for k, v in state.items() if k not in ("seconds", "metrics_bytes")},
        "encoder": hashlib.sha256((run / "encoder.safetensors").read_bytes()).hexdigest(),
        "metrics": [{k: v for k, v in line.items() if k not in VOLATILE} for line in Run(run).metrics],
        "status": Run(run).status["status"],
    }


# ------------------------------------------------------------------------------------------------------------------ server


def fork_workers() -> None:
    """The workers of a multi-process run are then forks of its first process, which has imported everything."""
    import multiprocessing

    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get_context("fork" if method == "spawn" else method)


def serve() -> None:
    """Reads {"argv", "folder", "log", ...} lines, answers {"pid"}; and {"pid", "code"} when a child has ended."""
    preload()
    tell(ready=True)
    left = b""
    while True:
        if select.select([0], [], [], 0.005)[0]:
            got = os.read(0, 65536)
            if not got:
                return
            *lines, left = (left + got).split(b"\n")
            for line in lines:
                tell(pid=spawn_asked(**json.loads(line)))
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            tell(pid=pid, code=os.waitstatus_to_exitcode(status))


def spawn_asked(
    argv: list[str], folder: str, log: str, errors: str | None, forks: bool, environment: dict[str, str], module: str
) -> int:
    def before() -> None:
        os.environ.update(environment)
        tempfile.tempdir = None  # read TMPDIR again
        if forks:
            fork_workers()

    return spawn(argv, Path(folder), Path(log), before, Path(errors) if errors else None, module)


def tell(**values: Any) -> None:
    os.write(1, json.dumps(values).encode() + b"\n")


class Zygote:
    """The other end of `serve`."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self.codes: dict[int, int] = {}
        assert self.listen() == {"ready": True}

    def listen(self) -> dict[str, Any]:
        assert self.server.stdout is not None
        return json.loads(self.server.stdout.readline())

    def start(
        self,
        argv: list[str],
        folder: Path,
        log: Path,
        errors: Path | None = None,
        forks: bool = False,
        environment: dict[str, str] | None = None,
        module: str = "sslcli.cli",
    ) -> int:
        """The pid of `sslcli argv`: see `spawn`, and `fork_workers` for `forks`."""
        assert self.server.stdin is not None
        asked = {"argv": argv, "folder": folder, "log": log, "errors": errors, "forks": forks}
        asked |= {"environment": environment or {}, "module": module}
        self.server.stdin.write(json.dumps(asked, default=str).encode() + b"\n")
        self.server.stdin.flush()
        while True:
            said = self.listen()
            if "code" not in said:
                return said["pid"]
            self.codes[said["pid"]] = said["code"]

    def wait(self, pid: int) -> int:
        """The exit code; minus the number of the signal that killed it."""
        while pid not in self.codes:
            said = self.listen()
            self.codes[said["pid"]] = said["code"]
        return self.codes.pop(pid)

    def run(self, argv: list[str], folder: Path, log: Path, module: str = "sslcli.cli") -> int:
        return self.wait(self.start(argv, folder, log, module=module))

    def close(self) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.wait(30)
        self.server.stdout.close()


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Looks every millisecond until it is true; AssertionError when it never is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.001)
    raise AssertionError(f"not within {seconds:g} s")


if __name__ == "__main__":
    serve()
