"""sslcli pipeline: pretrain, then the stages, then the report, on one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.cli.commands import eval as eval_command
from sslcli.cli.commands import pretrain
from sslcli.cli.hydra_task import Outcome, hydra_task
from sslcli.config import compose, registry

FOLLOWING = ("stages", "labels", "seeds", "report")  # keys of the pipeline that are not the pretraining's


def split(cfg: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the pretraining's configuration, evaluator name -> its configuration)."""
    from omegaconf import OmegaConf

    stages = list(cfg.stages)
    eval_command.require_stages(stages, registry.choices("evaluator"))
    root = OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"])
    evaluators = {}
    for name in stages:
        node = compose.load_choice("evaluator", name, root)
        evaluators[name] = compose.plain(node)
    values = pretrain.plain(cfg)
    return {k: v for k, v in values.items() if k not in FOLLOWING}, evaluators


def look(cfg: Any) -> None:
    from sslcli.config import instantiate
    from sslcli.training.setup import check

    values, evaluators = split(cfg)
    pretrain.check_resume(cfg)
    pretrain.check_rate(values, cfg.hydra)
    check(values)
    for node in evaluators.values():
        instantiate.check("evaluator", node, given=["backbone", "data"])


def look_at_data(requests: list[Any]) -> None:
    from sslcli.training.setup import check_batches

    check_batches([split(cfg)[0] for cfg in requests])


def preview(cfg: Any) -> None:
    look(cfg)
    pretrain.prepare_ahead(split(cfg)[0])


def dry_run(cfg: Any) -> int:
    look(cfg)
    return pretrain.try_one_batch(split(cfg)[0])


@hydra_task
def run(cfg: Any) -> Outcome:
    from hydra.core.hydra_config import HydraConfig

    from sslcli.evals.base.evaluation import evaluate

    pretrain.check_resume(cfg)
    values, evaluators = split(cfg)
    pretrain.check_rate(values, HydraConfig.get())
    path = pretrain.shorten(Path(HydraConfig.get().runtime.output_dir))
    trained = pretrain.pretrain(values, path, auto=cfg.resume == "auto", request=cfg)
    stages = {**values, "labels": cfg.labels, "run": str(trained.path)}
    results = evaluate(stages, evaluators, reuse=True, report=eval_command.report)
    if cfg.report:
        from sslcli import report

        console.say(f"report  {report.write(trained.path)}")
    return eval_command.outcome(results, None if console.flag(console.JSON) else trained.path)
