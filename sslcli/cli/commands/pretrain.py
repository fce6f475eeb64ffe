"""sslcli pretrain: train a method on unlabeled data, into a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sslcli.cli.hydra_task import Outcome, hydra_task
from sslcli.config import Config
from sslcli.training import configuration

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

    from sslcli.runs.run import Run
    from sslcli.training.setup import TrainingSetup


def resolve(cfg: DictConfig, hydra: HydraConf) -> Config:
    """The configuration of the run, after the checks that need the request. `hydra`: Hydra's part of `cfg`."""
    values = configuration.resolve(cfg)
    configuration.check_resume(cfg)
    configuration.check_learning_rate(values, hydra)
    return values


def check(cfg: DictConfig) -> None:
    from sslcli.training import setup

    setup.check(resolve(cfg, cfg.hydra))


def check_data(cfgs: list[DictConfig]) -> None:
    from sslcli.training.setup import check_batch_sizes

    check_batch_sizes([resolve(cfg, cfg.hydra) for cfg in cfgs])


def dry_run(cfg: DictConfig) -> int:
    from sslcli.training import dry_run

    dry_run.dry_run(resolve(cfg, cfg.hydra))
    return 0


def prepare(cfg: DictConfig) -> Callable[[DictConfig], float | None]:
    from sslcli.training import setup

    prepared = setup.prepare(resolve(cfg, cfg.hydra))

    @hydra_task
    def run_prepared(cfg: DictConfig) -> Outcome:
        return train(prepared, cfg)

    return run_prepared


@hydra_task
def run(cfg: DictConfig) -> Outcome:
    from hydra.core.hydra_config import HydraConfig

    from sslcli.training import setup

    return train(setup.prepare(resolve(cfg, HydraConfig.get())), cfg)


def train(setup: TrainingSetup, cfg: DictConfig) -> Outcome:
    """Train what was prepared from `cfg`, inside the Hydra task."""
    from hydra.core.hydra_config import HydraConfig

    from sslcli.config.compose import hydra_files, is_named_by_time
    from sslcli.runtime.folders import shorten
    from sslcli.training.pretrain import pretrain

    path = shorten(Path(HydraConfig.get().runtime.output_dir))
    files, numbered = hydra_files(cfg, HydraConfig.instance().cfg), is_named_by_time(HydraConfig.get())
    run = pretrain(setup, path, auto=cfg.resume == "auto", hydra_files=files, numbered=numbered)
    return Outcome(objective(run), run.path)


def objective(run: Run) -> float | None:
    """The value that a sweeper maximizes: the last online k-NN accuracy, else the negative training loss."""
    for key, sign in (("eval/knn/top1", 1.0), ("train/loss", -1.0)):
        for line in reversed(run.metrics):
            if line.get(key) is not None:
                return sign * float(line[key])
    return None
