"""What a request for an evaluation says beside its configuration: which options are the run's, and where its data are."""

from __future__ import annotations

import re
from pathlib import Path

from sslcli import console
from sslcli.config import Config, instantiate, registry
from sslcli.config.overrides import override_keys, refuse_unused
from sslcli.evals.base.evaluation import Report, evaluate
from sslcli.evals.inputs.label_file import is_file
from sslcli.runs import Record

FROM_RUN = ("backbone", "augmentation", "method", "optimizer", "schedule", "train", "init")


def evaluate_request(
    values: Config, name: str, overrides: list[str], report: Report | None = None
) -> dict[str, Record]:
    """Runs the evaluator `name` as requested: the record of its result, by its name.

    - `values`: the resolved configuration that the overrides compose.
    - `overrides`: of the request; saved with the result.
    - `report`: see `evaluate`.

    Raises RequestError where an override would have no effect.
    """
    values = {**values, "evaluator": with_seeds(values["evaluator"], values["seeds"], overrides)}
    _warn_unused(name, overrides, [Path(f) for f in instantiate.trusted_folders()])
    check_overrides(values, overrides)
    given = [o for o in overrides if o.partition("=")[0] not in ("evaluator", "run")]
    return evaluate(with_data_keys(values, overrides), {name: values["evaluator"]}, overrides=given, report=report)


def with_seeds(evaluator: Config, seeds: int, overrides: list[str]) -> Config:
    """The configuration of an evaluator with the draws of `seeds=`, also where its number of draws has another default than the key
    `seeds`."""
    keys = override_keys(overrides)
    if "seeds" not in keys or "evaluator.seeds" in keys or "seeds" not in evaluator:
        return evaluator
    return {**evaluator, "seeds": seeds}


def _warn_unused(name: str, overrides: list[str], folders: list[Path]) -> None:
    """`labels=`, `seeds=`, `picks=` and `text=` reach an evaluator through its YAML; where that does not refer to them they have no
    effect, except that labels of a file are those of the data set for all evaluators."""
    path = registry.choices("evaluator", folders).get(name)
    text = path.read_text(encoding="utf-8") if path else ""
    for key in ("labels", "seeds", "picks", "text"):
        override = next((o for o in overrides if o.startswith(f"{key}=")), None)
        if key == "labels" and is_file((override or "").partition("=")[2]):
            continue
        if override and path and not re.search(rf"\$\{{(oc\.select:)?{key}\b", text):
            has_key = re.search(rf"^{key}:", text, re.MULTILINE)
            if key == "seeds" and has_key:  # see `with_seeds`
                continue
            console.warn(f"{override} has no effect on {name}", f"evaluator.{override}" if has_key else None)


def with_data_keys(values: Config, overrides: list[str]) -> Config:
    """`values` with what the command line says about the run's data: `data_given` after dataset=NAME, with its keys of the data set
    in `data_keys`, and `data_path` after dataset.path=NEW alone."""
    keys = override_keys(overrides)
    if values["run"] == "none":
        return values
    if "dataset" in keys:
        given = [key.split(".")[1] for key in keys if key.startswith("dataset.")]
        return {**values, "data_given": True, "data_keys": given}
    return {**values, "data_path": values["dataset"].get("path")} if "dataset.path" in keys else values


def check_overrides(values: Config, overrides: list[str]) -> None:
    """RequestError for an override that the configuration of the run would replace."""
    if values["run"] == "none":
        return
    overrides = [o for o in overrides if not o.startswith("train.devices=")]
    refuse_unused(
        overrides,
        FROM_RUN,
        "that comes from the run",
        "leave it out; what the evaluator does is set by evaluator.KEY, such as evaluator.epochs of finetune "
        "(sslcli eval NAME --help); run=none evaluates an untrained backbone",
    )
    if "dataset" not in override_keys(overrides):
        refuse_unused(
            [o for o in overrides if override_keys([o]) != ["dataset.path"]],
            ("dataset",),
            "the data set comes from the run",
            "to evaluate on another one: dataset=NAME dataset.KEY=...; where the data moved: dataset.path=NEW",
        )
