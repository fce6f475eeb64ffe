"""Where else the numbers of a run go: TensorBoard, Weights & Biases, MLflow. metrics.jsonl and eval/ are always there.

`logger=wandb` chooses one, `logger=[tensorboard,wandb]` several: each YAML of configs/logger holds the options of one under its
name. Nothing here ends a run: a logger that fails is told of once and left out from then on.
"""

from __future__ import annotations

import importlib
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from sslcli import console
from sslcli.config import typecheck
from sslcli.config.dotted import flatten
from sslcli.errors import MachineError, RequestError, SslError, first_line, nearest
from sslcli.runs.files import checked, read_json, write_json
from sslcli.runs.redact import hide, masked
from sslcli.runs.run import Run

OURS = "log_every"  # of configs/logger, read by the trainer
LOCAL = "tensorboard"  # the logger that writes into the run folder and nowhere else
MEMORY = "loggers.json"  # in the run folder: under which name others know this run


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


class TensorBoard(Logger):
    """Event files in RUN/tensorboard: `tensorboard --logdir runs`."""

    package = "torch.utils.tensorboard"

    def open(self, run: Run, cfg: dict[str, Any], step: int) -> None:
        import yaml
        from torch.utils.tensorboard import SummaryWriter

        begun = (run.path / "tensorboard").is_dir()
        folder = run.make_folder("tensorboard")
        # what an interrupted run logged after its last checkpoint comes again: it is purged
        self.writer: Any = SummaryWriter(str(folder), purge_step=step + 1 if begun else None)
        self.writer.add_text("config", f"```yaml\n{yaml.safe_dump(cfg, sort_keys=False)}\n```")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def result(self, name: str, numbers: Mapping[str, float], pictures: Mapping[str, Path], step: int) -> None:
        import numpy as np
        from PIL import Image

        self.log(step, {f"eval/{name}/{key}": value for key, value in numbers.items()})
        for title, path in pictures.items():
            with Image.open(checked(path.parent, path.name)) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self.writer.add_image(f"eval/{name}/{title}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WandB(Logger):
    """Weights & Biases. Where to and how is said by its own variables: WANDB_API_KEY, WANDB_MODE=offline, WANDB_BASE_URL, ..."""

    package = "wandb"

    def __init__(
        self,
        project: str = "sslcli",
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
    ):
        self.place = {"project": project, "entity": entity, "group": group, "tags": tags}

    def check(self) -> None:
        super().check()
        if os.environ.get("WANDB_MODE", "online") in ("online", "run", "shared") and not self._known():
            raise MachineError(
                "logger=wandb: there is no key for Weights & Biases, and a run never asks for one",
                "wandb login, or WANDB_API_KEY=..., or WANDB_MODE=offline to keep everything here",
            )

    def _known(self) -> bool:
        """Whether W&B has a key to go by; nothing is sent to find out."""
        import netrc
        from urllib.parse import urlparse

        import wandb

        if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
            return True
        host = urlparse(os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url).hostname or ""
        files = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
        for file in (Path(f).expanduser() for f in files if f):
            try:
                if file.is_file() and netrc.netrc(str(file)).authenticators(host):
                    return True
            except (netrc.NetrcParseError, OSError):
                continue
        return False

    def open(self, run: Run, cfg: dict[str, Any], step: int) -> None:
        import wandb

        run.make_folder("wandb")
        own = remembered(run, "wandb", lambda: {"id": secrets.token_hex(4)})
        self.run: Any = wandb.init(
            **self.place,
            id=own["id"],
            resume="allow",
            name=run.path.name,
            dir=str(run.path),
            config=cfg,
            # stdout is data; it would run git, and so what the configuration of a repository names
            settings=wandb.Settings(console="off", silent=True, disable_git=True),
        )
        url = None if getattr(self.run, "offline", False) else self.run.url
        console.say(f"wandb {url or 'keeps its files in ' + str(run.path / 'wandb')}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        # what comes again after a resume has the same values, and W&B drops it
        self.run.log(dict(values), step=step)

    def result(self, name: str, numbers: Mapping[str, float], pictures: Mapping[str, Path], step: int) -> None:
        import wandb

        self.run.summary.update({f"eval/{name}/{key}": value for key, value in numbers.items()})
        if pictures:
            self.run.log({f"eval/{name}/{title}": wandb.Image(str(path)) for title, path in pictures.items()})

    def close(self) -> None:
        self.run.finish()


class MLflow(Logger):
    """MLflow. `uri`: where it keeps runs; null: MLFLOW_TRACKING_URI, or MLflow's own default."""

    package = "mlflow"

    def __init__(self, experiment: str = "sslcli", uri: str | None = None):
        self.experiment, self.uri = experiment, uri

    def open(self, run: Run, cfg: dict[str, Any], step: int) -> None:
        for key, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")):
            os.environ.setdefault(key, value)  # its own patience with a dead server is minutes a call
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client: Any = MlflowClient(self.uri)

        def new() -> dict[str, str]:
            known = self.client.get_experiment_by_name(self.experiment)
            where = known.experiment_id if known else self.client.create_experiment(self.experiment)
            made = self.client.create_run(where, run_name=run.path.name).info.run_id
            words = [Param(key, str(value)[:500]) for key, value in flatten(cfg).items()]
            for start in range(0, len(words), 100):
                self.client.log_batch(made, params=words[start : start + 100])
            return {"run_id": made}

        self.id = remembered(run, "mlflow", new)["run_id"]
        self.client.update_run(self.id, status="RUNNING")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        stamp = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(key, value, stamp, step) for key, value in values.items()])

    def result(self, name: str, numbers: Mapping[str, float], pictures: Mapping[str, Path], step: int) -> None:
        self.log(step, {f"eval/{name}/{key}": value for key, value in numbers.items()})
        for path in pictures.values():
            self.client.log_artifact(self.id, str(path), f"eval/{name}")

    def close(self) -> None:
        self.client.set_terminated(self.id)


KINDS: dict[str, Callable[..., Logger]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


class Loggers:
    """All that were chosen; `node` is the configuration's `logger`."""

    def __init__(self, node: Mapping[str, Any]):
        self.each: dict[str, Logger] = {}
        for name, options in node.items():
            if name == OURS:
                continue
            if name not in KINDS or not isinstance(options or {}, Mapping):
                close = nearest(name, [OURS, *KINDS])
                raise RequestError(f"there is no logger `{name}`", f"did you mean {close}?" if close else None)
            try:
                self.each[name] = KINDS[name](**(options or {}))
            except TypeError as e:
                raise RequestError(
                    f"`logger.{name}`: {e}", f"`sslcli pretrain logger={name} --cfg job` shows its keys"
                ) from None

    def check(self) -> None:
        for logger in self.each.values():
            logger.check()

    def open(self, run: Run, cfg: dict[str, Any], step: int) -> None:
        hidden = masked(cfg)

        def begin(logger: Logger) -> None:
            logger.check()  # a run that was trained with it may be measured where it is not
            logger.open(run, hidden, step)

        self._all("open", begin)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        finite = {key: float(value) for key, value in values.items() if math.isfinite(value)}
        self._all("log", lambda logger: logger.log(step, finite))

    def result(self, name: str, numbers: Mapping[str, float], pictures: Mapping[str, Path], step: int) -> None:
        finite = {key: float(value) for key, value in numbers.items() if math.isfinite(value)}
        self._all("log", lambda logger: logger.result(name, finite, pictures, step))

    def close(self) -> None:
        self._all("close", lambda logger: logger.close())
        self.each = {}

    def _all(self, what: str, do: Callable[[Logger], None]) -> None:
        for name, logger in list(self.each.items()):
            try:
                do(logger)
            except Exception as e:  # somebody else's program: whatever is wrong with it, the run is worth more
                del self.each[name]
                why = e.message if isinstance(e, SslError) else f"{type(e).__name__}: {first_line(e)}"
                console.warn(
                    f"logger={name} is left out from here on, it failed to {what}: {hide(why)}",
                    "metrics.jsonl and eval/ in the run folder have everything",
                )


def of_evaluation(node: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The loggers of an evaluation: those that were asked for, and of the run's own (`node`) the one that stays in its folder.

    A run may come from anyone: its configuration chooses no server that results are sent to."""
    remote = [name for name in node if name in KINDS and name not in (LOCAL, *asked)]
    for name in remote:
        console.say(f"the run was logged to {name} too; logger={name} sends these results there")
    return {**{k: v for k, v in node.items() if k in (OURS, LOCAL)}, **asked}


@contextmanager
def attached(run: Run | None, node: Mapping[str, Any], cfg: dict[str, Any], step: int) -> Iterator[None]:
    """While inside, what is logged to `run` and kept of its evaluations also goes to the loggers of `node`."""
    loggers = Loggers(node)
    if run is None or not loggers.each:
        yield
        return
    loggers.open(run, cfg, step)
    run.sink = loggers
    try:
        yield
    finally:
        run.sink = None
        loggers.close()


def remembered(run: Run, name: str, make: Callable[[], dict[str, str]]) -> dict[str, Any]:
    """What a logger calls this run: from the run folder, or made now and kept there."""
    known = read_json(run.path, MEMORY)
    if not typecheck.matches_type(known.get(name), dict[str, str]) or not known[name]:
        known[name] = make()
        write_json(run.path, MEMORY, known)
    return known[name]
