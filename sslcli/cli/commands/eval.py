"""sslcli eval NAME: evaluate a frozen backbone, beside its baselines, under a recorded protocol."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from sslcli import console
from sslcli.cli.hydra_task import Outcome, hydra_task
from sslcli.errors import RequestError
from sslcli.runs import Record, results
from sslcli.training.configuration import resolve

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sslcli.runs.run import Run


def prepare(cfg: DictConfig) -> Callable[[DictConfig], float | None]:
    """An evaluation creates no run folder, so its task makes the checks."""
    return run


def check(cfg: DictConfig) -> None:
    from sslcli.config import instantiate
    from sslcli.runs.find import find

    values = resolve(cfg)
    instantiate.check("evaluator", values["evaluator"], given=["backbone", "data"])
    if values["run"] != "none":
        find(values["run"])


def dry_run(cfg: DictConfig) -> int:
    from sslcli.config import instantiate
    from sslcli.evals.base.evaluation import open_run
    from sslcli.evals.base.request import check_overrides, with_data_keys

    values, overrides = resolve(cfg), list(cfg.hydra.overrides.task)
    check_overrides(values, overrides)
    open_run(with_data_keys(values, overrides))
    instantiate.check("evaluator", values["evaluator"], given=["backbone", "data"])
    console.say("dry run: the evaluation can start")
    return 0


@hydra_task
def run(cfg: DictConfig) -> Outcome:
    from hydra.core.hydra_config import HydraConfig

    from sslcli.evals.base.request import evaluate_request

    values = resolve(cfg)
    name, overrides = HydraConfig.get().runtime.choices["evaluator"], list(HydraConfig.get().overrides.task)
    return outcome(evaluate_request(values, name, overrides, report))


def outcome(records: dict[str, Record], path: Path | None = None) -> Outcome:
    """The first `top1` of several results is what a sweeper may maximize."""
    value = next((r["numbers"]["top1"] for r in records.values() if "top1" in r["numbers"]), None)
    return Outcome(value, path, {f"{name}.{key}": v for name, r in records.items() for key, v in r["numbers"].items()})


def report(name: str, record: Record, run: Run | None) -> None:
    """Prints a result to stdout. Lines begin with the evaluator (and the data set), without its labels; JSON has the whole
    name as well."""
    from sslcli.evals.metrics.interval import SUFFIX, format_interval, format_metrics

    result, name = name, results.without_labels(name, record)
    if console.flag(console.JSON):
        console.out_json({"eval": name, "result": result, "run": str(run.path) if run is not None else None, **record})
        return
    for line in record.get("answers", []):
        console.out(console.escape(line, keep="\t"))
    for key, value in format_metrics(record["numbers"], record.get("intervals", {})).items():
        console.out(f"{name}.{key} {value}")
    for key, (low, high) in record.get("intervals", {}).items():
        if "." not in key:  # those of the baselines are in the record
            console.say(f"{name}.{key.removesuffix(SUFFIX)} 95 % interval {format_interval(low, high)}")


def require_stages(stages: list[str], known: Collection[str]) -> None:
    if not stages:
        raise RequestError("`stages` is empty", f"stages=[{','.join(sorted(set(known) - {'online'}))}]")
