"""sslcli pipeline: pretrain, then the stages, on one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sslcli import compose, config, console
from sslcli.commands import eval as eval_command
from sslcli.commands import job as hydra_job
from sslcli.commands import pretrain

FOLLOWING = ("stages", "labels", "seeds")  # keys of the pipeline that are not the pretraining's


def split(cfg: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the pretraining's configuration, evaluator name -> its configuration)."""
    from omegaconf import OmegaConf

    stages = list(cfg.stages)
    eval_command.require_stages(stages, config.choices("evaluator"))
    root = OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"])
    evaluators = {}
    for name in stages:
        node = compose.load_choice("evaluator", name, root)
        evaluators[name] = compose.plain(node)
    values = pretrain.plain(cfg)
    return {k: v for k, v in values.items() if k not in FOLLOWING}, evaluators


def preview(cfg: Any) -> None:
    from sslcli import build
    from sslcli.job import config_hash, prepare

    values, evaluators = split(cfg)
    for node in evaluators.values():
        build.check("evaluator", node, given=["backbone", "data"])
    pretrain._prepared[config_hash(values)] = prepare(values)


def dry_run(cfg: Any) -> int:
    split(cfg)
    return pretrain.dry_run({k: v for k, v in cfg.items() if k not in (*FOLLOWING, "hydra")})


@hydra_job
def run(cfg: Any) -> float | None:
    from hydra.core.hydra_config import HydraConfig

    from sslcli.run import Run

    path = pretrain.shorten(Path(HydraConfig.get().runtime.output_dir))
    values, evaluators = split(cfg)
    pretrain.pretrain(values, path, announce=False)
    stages = {**values, "evaluators": evaluators, "run": str(path)}
    results = eval_command.evaluate(stages, Run.open(path), values, list(evaluators))
    if not console.flag(console.JSON):
        console.out(path)
    return next((v for r in results.values() for k, v in r.items() if k == "top1"), None)
