"""Run evaluators on a backbone and save their results in its run folder.

`evaluate` is what `sslcli eval` and `sslcli pipeline` call; it needs a resolved configuration and no Hydra.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.builders import require_fingerprint
from sslcli.classifier.files import write_classifier
from sslcli.config import Config, instantiate
from sslcli.data.label_warnings import held_out_notes
from sslcli.errors import RequestError
from sslcli.evals.artefacts.tables import clips_of, tables_of
from sslcli.evals.base import cross_validation
from sslcli.evals.base.evaluated_model import EvaluatedModel, load_model
from sslcli.evals.base.result import Result
from sslcli.evals.classifier.imbalance import add_imbalance
from sslcli.evals.inputs.label_file import FEW, measured_notes
from sslcli.runs import Record, loggers, results
from sslcli.runs.encoder import read_info
from sslcli.runs.find import find, run_command, short_name
from sslcli.runs.identity import config_hash
from sslcli.runs.listing import UNFINISHED, run_state
from sslcli.runs.redact import redacted_overrides
from sslcli.runs.run import Run, now, require_done
from sslcli.runtime import folders, processes, progress

Report = Callable[[str, Record, Run | None], None]  # receives the name of a result, its record and the run


def evaluate(
    values: Config,
    evaluators: dict[str, dict[str, Any]],
    *,
    reuse: bool = False,
    overrides: list[str] | None = None,
    report: Report | None = None,
) -> dict[str, Record]:
    """Runs evaluators on one backbone and returns the record of each, by the name of the evaluator.

    - `values`: the configuration of the evaluation, resolved; see `open_run` and `load_model` for its keys.
    - `evaluators`: the configuration of each evaluator, by name.
    - `reuse`: a saved result with the same configuration, weights and data is returned instead of computed again.
    - `overrides`: saved with the result, secrets masked.
    - `report`: called with each record as soon as it is computed, before it is saved.
    """
    run, run_cfg = open_run(values)
    loggers.Loggers(values["logger"]).check()
    for node in evaluators.values():
        instantiate.check("evaluator", node, given=["backbone", "data"])
    model = load_model(values, run_cfg, run.path if run is not None else None)
    say_held_out(model, list(evaluators.values()))
    unfinished = unfinished_note(run, model.step) if run is not None else ""
    if run is not None and unfinished:
        hint = (
            ""
            if run_state(run.path, run.status) == "running"
            else run_command(run.path, "resume", short_name(run.path))
        )
        console.warn(unfinished, hint)
    console.rows(_screen(model, evaluators, run))
    job = {
        "command": "eval",
        "values": values,
        "run_cfg": run_cfg,
        "folders": instantiate.trusted_folders(),
        "run": str(run.path) if run is not None else None,
        "fingerprint": model.dataset.fingerprint,
    }
    records: dict[str, Record] = {}
    with (
        processes.launch(model.runtime.process, model.runtime.device, job, run_worker),
        attach_loggers(run, values, run_cfg, model.step),
    ):
        for name, node in evaluators.items():
            labels = node.get("labels", model.labels_file or "all")
            title = results.result_name(name, labels, model.dataset.name if model.other_data else "")
            origin = provenance(model, node, values, run_cfg)
            known = run.evals.get(title, {}) if run is not None and reuse else {}
            if known and _without_summary(known, origin) == _without_summary(origin, origin):
                console.say(f"{title}: reusing the result with the same configuration, weights and data")
                records[name] = known
                if report is not None:
                    report(title, known, run)
                continue
            start = time.perf_counter()
            with progress.task(name):
                result = run_evaluator(node, model)
            if unfinished:
                result.protocol["notes"] = [*result.protocol.get("notes", []), unfinished]
            origin |= {"seconds": round(time.perf_counter() - start, 3)}
            if overrides is not None:
                origin |= {"overrides": redacted_overrides(overrides)}
            records[name] = make_record(result, origin)
            if report is not None:
                report(title, records[name], run)
            if run is not None and not result.answers:
                _save_and_log(title, result, records[name], run)
        model.data.stop_serving()
    return records


def open_run(values: Config) -> tuple[Run | None, Config]:
    """The run that `values["run"]` names, and its configuration, with the data set of `values` where `data_given` is true.

    `run: none` means a backbone with the weights of `init`, or an untrained one: (None, values). Raises RequestError where no
    such run exists, TrainingError where it has no encoder yet.
    """
    if values["run"] == "none":
        namesake = folders.runs_root() / "none"
        if (namesake / "status.json").is_file():
            console.warn("run=none is an untrained backbone, and not the run of that name", f"run={namesake}")
        return None, values
    run = Run.open(find(values["run"]))
    require_done(run)
    if values.get("data_given"):
        return run, {**run.valid_config, "dataset": values["dataset"]}
    if values.get("data_path") and "path" not in run.valid_config["dataset"]:
        raise RequestError(f"the data set of {run.path} has no path", "leave dataset.path out")
    return run, run.valid_config


def unfinished_note(run: Run, step: int) -> str:
    """What a result of an unfinished run must state; "" for a finished one."""
    state = run_state(run.path, run.status)
    if state not in UNFINISHED:
        return ""
    return f"the run is unfinished ({state}): its weights are of step {step:,}, before the end of its schedule"


def say_held_out(model: EvaluatedModel, nodes: list[Config]) -> None:
    """Logs that no samples are held out, where one of the evaluators tests samples."""
    if not all(_predicts_items(node) for node in nodes):
        for note in held_out_notes(model.dataset):
            console.say(note)


def _predicts_items(node: Config) -> bool:
    """Whether an evaluator tests the last items of users, which are held out also where no users are."""
    return "next_items" in (node.get("needs") or [])


def _screen(model: EvaluatedModel, evaluators: dict[str, Config], run: Run | None) -> list[tuple[str, str]]:
    dataset, backbone = model.dataset, model.backbone
    sizes = f"{len(dataset.train):,} train, {0 if dataset.test is None else len(dataset.test):,} test"
    if all(cross_validation.applies(node, model.data) for node in evaluators.values()):
        sizes = f"{len(dataset.train) + len(dataset.test or ()):,} samples, divided into folds"
    elif dataset.next_items is not None and all(map(_predicts_items, evaluators.values())):
        sizes = f"{len(dataset.next_items.events):,} users; {dataset.next_items.rule}"
    state = f"step {model.step:,}" if run is not None else f"weights of {model.init}" if model.init else "untrained"
    rows = [
        ("what", f"{', '.join(evaluators)} of {type(backbone).__name__} (dim {backbone.dim}), {state}"),
        ("data", f"{dataset.name}: {sizes}"),
        ("where", model.runtime.describe()),
    ]
    return [*rows, *([("run", str(run.path))] if run is not None else [])]


def run_worker(job: Record) -> None:
    """Another process of an evaluation: computes its share of all features."""
    instantiate.trust_folders(job.get("folders", []))
    model = load_model(job["values"], job["run_cfg"], Path(job["run"]) if job["run"] else None)
    require_fingerprint(model.dataset, job["fingerprint"])
    processes.join_group(model.runtime.device)
    model.data.serve_features(model.backbone)


def run_evaluator(node: Config, model: EvaluatedModel) -> Result:
    """The result of the evaluator that `node` configures, in cross-validation where labels are few; warns of few test samples."""
    function = instantiate.partial("evaluator", node, "backbone", "data")
    folds = cross_validation.applies(node, model.data)
    measured = measured_notes(model.dataset, folds)
    for note in measured:
        console.say(note)
    if folds:
        result = cross_validation.cross_validated(function, model.backbone, model.data, node.get("seeds", 1))
    else:
        result = function(model.backbone, model.data)
    if result.fitted is not None and result.fitted.temperature:
        result.protocol["temperature"] = result.fitted.temperature
        console.say(f"temperature {result.fitted.temperature}")
    if doubt := add_imbalance(result, model.dataset.classes, node.get("class_weight")):
        result.protocol.setdefault("notes", []).append(doubt)
        console.warn(doubt, imbalance_hint(node))
    result.artefacts |= clips_of(result.artefacts)
    if model.labels_file:
        result.protocol.setdefault(
            "labels", model.labels_file
        )  # part of the name, also where labels are only compared with
    if measured:
        result.protocol.setdefault("notes", []).extend(measured)
    splits = result.protocol.get("splits", {})
    if "labelled" in splits and 0 < (n := splits.get("test", 0)) < FEW:
        doubt = f"{n} labelled test samples are few: another {n} may give quite different numbers"
        result.protocol.setdefault("notes", []).append(doubt)
        few = model.dataset.details.get("labels", {}).get("few") and not folds
        console.warn(doubt, "label more samples" + ("; probe and knn test each of them" if few else ""))
    return result


def imbalance_hint(node: Config) -> str:
    """What to do where an accuracy is no better than that of the most frequent class."""
    if "class_weight" in node and node["class_weight"] is None:
        return "evaluator.class_weight=balanced weights the classes equally; balanced_top1 is the mean over classes"
    return "balanced_top1 is the mean over classes; label more samples of the rare ones"


def attach_loggers(run: Run | None, values: Config, run_cfg: Config, step: int) -> AbstractContextManager[None]:
    """Inside this context, saved results also go to the loggers of `values` and to the TensorBoard files of the run."""
    return loggers.attached(run, loggers.of_evaluation(run_cfg["logger"], values["logger"]), run_cfg, step)


def provenance(model: EvaluatedModel, node: Config, values: Config, run_cfg: Config) -> Record:
    """Everything that a result depends on. A saved result with equal provenance need not be computed again."""
    return {
        "evaluator": instantiate.without_facts("evaluator", node),
        "step": model.step,
        "seed": model.seed,
        "sha256": model.sha256,
        "config_hash": config_hash(run_cfg),
        "dataset": model.dataset.name,
        "fingerprint": model.dataset.fingerprint,
        "draws": values["seed"],
    }


def _without_summary(record: Record, keys: dict[str, Any]) -> Record:
    """The entries `keys` of a record; the evaluator's summary, a text that may be reworded, is left out, and so are its settings
    that are null, which results of earlier versions may lack."""
    entries = {key: record.get(key) for key in keys}
    settings = {**(entries.get("evaluator") or {}), "summary": None}
    return {**entries, "evaluator": {key: value for key, value in settings.items() if value is not None}}


def make_record(result: Result, origin: Record) -> Record:
    """The content of eval/NAME.json, in plain JSON types. `origin`: see `provenance`."""
    return {
        "numbers": result.metrics,
        "intervals": result.intervals,
        "protocol": result.protocol,
        "details": result.details,
        **({"answers": result.answers} if result.answers else {}),
        **({"tables": tables} if (tables := tables_of(result.artefacts)) else {}),
        "artefacts": {file: artefact.caption for file, artefact in result.artefacts.items()},
        **origin,
        "time": now(),
    }


def save(name: str, result: Result, record: Record, run: Run) -> None:
    """Writes a result and its artefacts into the run folder and to its loggers. Raises StorageError."""
    folder = run.make_folder("eval")
    results.make_room(run.path, name)
    for file, artefact in result.artefacts.items():
        artefact.save(folder / f"{name}_{file}")
    run.save_eval(name, record)
    if result.fitted is not None and record["sha256"] == read_info(run.path)["sha256"]:  # not of another checkpoint
        about = {key: record[key] for key in ("dataset", "fingerprint", "step", "time")}
        write_classifier(run.path, result.fitted.make(), {"result": name, **about})
    run.write_log(f"eval {name}: {result.metrics}")
    if run.sink is not None:
        images = {
            f.removesuffix(".png"): run.path / "eval" / f"{name}_{f}" for f in result.artefacts if f.endswith(".png")
        }
        run.sink.result(name, result.metrics, images, record["step"])


def _save_and_log(name: str, result: Result, record: Record, run: Run) -> None:
    """`save`, then a log line with the settings in which the replaced result differs."""
    old, new = (r.get("evaluator") or {} for r in (run.evals.get(name, {}), record))
    save(name, result, record, run)
    differ = [f"{key}={old[key]}" for key in old if key in new and old[key] != new[key]]
    replaced = f"; it replaces the result with {', '.join(differ)}" if differ else ""
    console.say(f"saved as {name} in {run.path / 'eval'}{replaced}")
