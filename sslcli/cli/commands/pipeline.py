"""sslcli pipeline: pretrain, evaluate, and write the report, on one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sslcli import console
from sslcli.cli.commands import eval as eval_command
from sslcli.cli.commands import pretrain
from sslcli.cli.hydra_task import Outcome, hydra_task
from sslcli.config import Config, compose, registry

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

    from sslcli.training.setup import TrainingSetup

OWN_KEYS = ("stages", "labels", "seeds", "report")  # not part of the run's configuration


def resolve(cfg: DictConfig, hydra: HydraConf) -> tuple[Config, Config]:
    """The configuration of the run, and that of each evaluator in `stages` by name."""
    from omegaconf import OmegaConf

    from sslcli.evals.base.request import with_seeds

    stages = list(cfg.stages)
    eval_command.require_stages(stages, registry.choices("evaluator"))
    root = OmegaConf.masked_copy(cfg, [str(k) for k in cfg if k != "hydra"])
    evaluators = {
        name: compose.to_container(compose.load_choice("evaluator", name, root), "evaluator") for name in stages
    }
    evaluators = {name: with_seeds(node, cfg.seeds, list(hydra.overrides.task)) for name, node in evaluators.items()}
    values = pretrain.resolve(cfg, hydra)
    return {k: v for k, v in values.items() if k not in OWN_KEYS}, evaluators


def check_evaluators(evaluators: Config) -> None:
    from sslcli.config import instantiate

    for node in evaluators.values():
        instantiate.check("evaluator", node, given=["backbone", "data"])


def check(cfg: DictConfig) -> None:
    from sslcli.training import setup

    values, evaluators = resolve(cfg, cfg.hydra)
    setup.check(values)
    check_evaluators(evaluators)


def check_data(cfgs: list[DictConfig]) -> None:
    from sslcli.training.setup import check_batch_sizes

    check_batch_sizes([resolve(cfg, cfg.hydra)[0] for cfg in cfgs])


def dry_run(cfg: DictConfig) -> int:
    from sslcli.training import dry_run

    values, evaluators = resolve(cfg, cfg.hydra)
    check_evaluators(evaluators)
    dry_run.dry_run(values)
    return 0


def prepare(cfg: DictConfig) -> Callable[[DictConfig], float | None]:
    from sslcli.training import setup

    values, evaluators = resolve(cfg, cfg.hydra)
    check_evaluators(evaluators)
    prepared = [setup.prepare(values)]

    @hydra_task
    def run_prepared(cfg: DictConfig) -> Outcome:
        return run_stages(prepared.pop(), evaluators, cfg)  # popped, so that the stages have its memory

    return run_prepared


@hydra_task
def run(cfg: DictConfig) -> Outcome:
    from hydra.core.hydra_config import HydraConfig

    from sslcli.training import setup

    values, evaluators = resolve(cfg, HydraConfig.get())
    return run_stages(setup.prepare(values), evaluators, cfg)


def run_stages(setup: TrainingSetup, evaluators: Config, cfg: DictConfig) -> Outcome:
    """Train what was prepared from `cfg`, then evaluate and report."""
    from sslcli.evals.base.evaluation import evaluate

    values = setup.cfg
    path = pretrain.train(setup, cfg).path
    assert path is not None
    del setup
    records = evaluate(
        {**values, "labels": cfg.labels, "run": str(path)}, evaluators, reuse=True, report=eval_command.report
    )
    if cfg.report:
        from sslcli.report.write import write_report

        console.say(f"report  {write_report(path)}")
    return eval_command.outcome(records, None if console.flag(console.JSON) else path)
