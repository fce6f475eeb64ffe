"""sslcli eval NAME: evaluate a frozen backbone, beside its baselines, under a recorded protocol."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.cli.arguments import refuse_unused
from sslcli.cli.hydra_task import Outcome, hydra_task
from sslcli.config import registry
from sslcli.errors import RequestError
from sslcli.runs import results
from sslcli.training.configuration import resolve

FROM_RUN = ("backbone", "augmentation", "method", "optimizer", "schedule", "train", "init")


def moved_data(overrides: list[str]) -> list[str]:
    """`dataset.path=NEW` alone gives the new location of the run's data. The composed data set is not the run's and may lack
    that key, so it is added as a new one."""
    given = _keys(overrides)
    if "dataset" in given or "run=none" in overrides:
        return overrides
    return [f"++{o}" if o.startswith("dataset.path=") else o for o in overrides]


def prepare(cfg: Any) -> Callable[[Any], float | None]:
    """An evaluation creates no run folder, so its task makes the checks."""
    return run


def check(cfg: Any) -> None:
    from sslcli.config import instantiate
    from sslcli.runs.find import find

    values = resolve(cfg)
    instantiate.check("evaluator", values["evaluator"], given=["backbone", "data"])
    if values["run"] != "none":
        find(values["run"])


def dry_run(cfg: Any) -> int:
    from sslcli.config import instantiate
    from sslcli.evals.base.evaluation import open_run

    values, overrides = resolve(cfg), list(cfg.hydra.overrides.task)
    check_overrides(values, overrides)
    open_run(with_data_keys(values, overrides))
    instantiate.check("evaluator", values["evaluator"], given=["backbone", "data"])
    console.say("dry run: the evaluation can start")
    return 0


@hydra_task
def run(cfg: Any) -> Outcome:
    from hydra.core.hydra_config import HydraConfig

    from sslcli.config import instantiate
    from sslcli.evals.base.evaluation import evaluate

    values = resolve(cfg)
    name, overrides = HydraConfig.get().runtime.choices["evaluator"], list(HydraConfig.get().overrides.task)
    warn_unused(name, overrides, [Path(f) for f in instantiate.trusted_folders()])
    check_overrides(values, overrides)
    given = [o for o in overrides if o.partition("=")[0] not in ("evaluator", "run")]
    values = with_data_keys(values, overrides)
    return outcome(evaluate(values, {name: values["evaluator"]}, overrides=given, report=report))


def outcome(records: dict[str, dict[str, Any]], path: Path | None = None) -> Outcome:
    """The first `top1` of several results is what a sweeper may maximize."""
    return Outcome(next((r["numbers"]["top1"] for r in records.values() if "top1" in r["numbers"]), None), path)


def warn_unused(name: str, overrides: list[str], folders: list[Path]) -> None:
    """`labels=` and `seeds=` reach an evaluator through its YAML; where that does not refer to them they have no effect."""
    path = registry.choices("evaluator", folders).get(name)
    text = path.read_text(encoding="utf-8") if path else ""
    for key in ("labels", "seeds"):
        override = next((o for o in overrides if o.startswith(f"{key}=")), None)
        if override and path and f"${{{key}}}" not in text:
            has_key = re.search(rf"^{key}:", text, re.MULTILINE)
            console.warn(f"{override} has no effect on {name}", f"evaluator.{override}" if has_key else None)


def _keys(overrides: list[str]) -> list[str]:
    return [o.lstrip("+").partition("=")[0] for o in overrides]


def with_data_keys(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """`values` with what the command line says about the run's data: `data_given` after dataset=NAME, and `data_path` after
    dataset.path=NEW alone."""
    keys = _keys(overrides)
    if values["run"] == "none":
        return values
    if "dataset" in keys:
        return {**values, "data_given": True}
    return {**values, "data_path": values["dataset"].get("path")} if "dataset.path" in keys else values


def check_overrides(values: dict[str, Any], overrides: list[str]) -> None:
    """RequestError for an override that the configuration of the run would replace."""
    if values["run"] == "none":
        return
    overrides = [o for o in overrides if not o.startswith("train.devices=")]
    refuse_unused(
        overrides, FROM_RUN, "that comes from the run", "leave it out, or evaluate an untrained backbone with run=none"
    )
    if "dataset" not in _keys(overrides):
        refuse_unused(
            [o for o in overrides if _keys([o]) != ["dataset.path"]],
            ("dataset",),
            "the data set comes from the run",
            "to evaluate on another one: dataset=NAME dataset.KEY=...; where the data moved: dataset.path=NEW",
        )


def report(name: str, record: dict[str, Any], run: Any) -> None:
    """Prints a result to stdout. Lines begin with the evaluator (and the data set), without its labels; JSON has the whole
    name as well."""
    from sslcli.evals.metrics.interval import SUFFIX, between, of_lines

    result, name = name, results.without_labels(name, record)
    if console.flag(console.JSON):
        console.out_json({"eval": name, "result": result, "run": str(run.path) if run is not None else None, **record})
        return
    for key, value in of_lines(record["numbers"], record.get("intervals", {})).items():
        console.out(f"{name}.{key} {value}")
    for key, (low, high) in record.get("intervals", {}).items():
        if "." not in key:  # those of the baselines are in the record
            console.say(f"{name}.{key.removesuffix(SUFFIX)} 95 % interval {between(low, high)}")


def require_stages(stages: list[str], known: dict[str, Any]) -> None:
    if not stages:
        raise RequestError("`stages` is empty", f"stages=[{','.join(sorted(set(known) - {'online'}))}]")
