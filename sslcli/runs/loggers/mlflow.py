"""MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.config import Config
from sslcli.config.dotted import flatten
from sslcli.runs.loggers.base import Logger, load_id
from sslcli.runs.run import Run


class MLflow(Logger):
    """MLflow. `uri`: of the tracking server; null: MLFLOW_TRACKING_URI, or the default of MLflow."""

    package = "mlflow"

    def __init__(self, experiment: str = "sslcli", uri: str | None = None):
        self.experiment, self.uri = experiment, uri

    def open(self, run: Run, cfg: Config, step: int) -> None:
        for key, value in (("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")):
            os.environ.setdefault(key, value)  # by default a call to a dead server takes minutes
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client: Any = MlflowClient(self.uri)

        def new() -> dict[str, str]:
            known = self.client.get_experiment_by_name(self.experiment)
            where = known.experiment_id if known else self.client.create_experiment(self.experiment)
            run_id = self.client.create_run(where, run_name=run.path.name).info.run_id
            words = [Param(key, str(value)[:500]) for key, value in flatten(cfg).items()]
            for start in range(0, len(words), 100):
                self.client.log_batch(run_id, params=words[start : start + 100])
            return {"run_id": run_id}

        self.id = load_id(run, "mlflow", new)["run_id"]
        self.client.update_run(self.id, status="RUNNING")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        stamp = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(key, value, stamp, step) for key, value in values.items()])

    def result(self, name: str, numbers: Mapping[str, float], images: Mapping[str, Path], step: int) -> None:
        self.log(step, {f"eval/{name}/{key}": value for key, value in numbers.items()})
        for path in images.values():
            self.client.log_artifact(self.id, str(path), f"eval/{name}")

    def close(self) -> None:
        self.client.set_terminated(self.id)
