"""Loggers besides metrics.jsonl and eval/, which are always written: TensorBoard, Weights & Biases, MLflow.

`logger=wandb` chooses one, `logger=[tensorboard,wandb]` several: each YAML of configs/logger holds the options of one under its
name. A logger never ends a run: one that fails is reported once and then left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.config import Config
from sslcli.errors import RequestError, SslError, first_line, nearest
from sslcli.runs.loggers.base import Logger
from sslcli.runs.loggers.mlflow import MLflow
from sslcli.runs.loggers.tensorboard import TensorBoard
from sslcli.runs.loggers.wandb import WandB
from sslcli.runs.redact import hide, redacted
from sslcli.runs.run import Run

OWN_KEY = "log_every"  # of configs/logger, read by the trainer
LOCAL = "tensorboard"  # the only logger that writes nothing outside the run folder


KINDS: dict[str, Callable[..., Logger]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


class Loggers:
    """The chosen loggers; `node` is the configuration's `logger`."""

    def __init__(self, node: Mapping[str, Any]):
        self.each: dict[str, Logger] = {}
        for name, options in node.items():
            if name == OWN_KEY:
                continue
            if name not in KINDS or not isinstance(options or {}, Mapping):
                close = nearest(name, [OWN_KEY, *KINDS])
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

    def open(self, run: Run, cfg: Config, step: int) -> None:
        hidden = redacted(cfg)

        def begin(logger: Logger) -> None:
            logger.check()  # a run may be evaluated on a machine without the logger of its training
            logger.open(run, hidden, step)

        self._all("open", begin)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        finite = {key: float(value) for key, value in values.items() if math.isfinite(value)}
        self._all("log", lambda logger: logger.log(step, finite))

    def result(self, name: str, numbers: Mapping[str, float], images: Mapping[str, Path], step: int) -> None:
        finite = {key: float(value) for key, value in numbers.items() if math.isfinite(value)}
        self._all("log", lambda logger: logger.result(name, finite, images, step))

    def close(self) -> None:
        self._all("close", lambda logger: logger.close())
        self.each = {}

    def _all(self, what: str, do: Callable[[Logger], None]) -> None:
        for name, logger in list(self.each.items()):
            try:
                do(logger)
            except Exception as e:  # third-party code: none of its errors may end the run
                del self.each[name]
                why = e.message if isinstance(e, SslError) else f"{type(e).__name__}: {first_line(e)}"
                console.warn(
                    f"logger={name} is left out from here on, it failed to {what}: {hide(why)}",
                    "metrics.jsonl and eval/ in the run folder have everything",
                )


def of_evaluation(node: Mapping[str, Any], requested: Mapping[str, Any]) -> dict[str, Any]:
    """The loggers of an evaluation: the requested ones, and TensorBoard if the run (`node`) was logged with it.

    A run may come from an untrusted source: its configuration does not choose a server that results are sent to."""
    remote = [name for name in node if name in KINDS and name not in (LOCAL, *requested)]
    for name in remote:
        console.say(f"the run was logged to {name} too; logger={name} sends these results there")
    return {**{k: v for k, v in node.items() if k in (OWN_KEY, LOCAL)}, **requested}


@contextmanager
def attached(run: Run | None, node: Mapping[str, Any], cfg: Config, step: int) -> Iterator[None]:
    """Context in which metrics and results of `run` also go to the loggers of `node`."""
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
