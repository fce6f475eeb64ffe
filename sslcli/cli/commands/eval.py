"""sslcli eval NAME: numbers of a frozen backbone, with their protocol and their baselines."""

from __future__ import annotations

import functools
import re
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslcli import console
from sslcli.cli.commands.pretrain import plain, refuse_unused
from sslcli.cli.hydra_task import Outcome
from sslcli.cli.hydra_task import job as hydra_job
from sslcli.config import registry
from sslcli.errors import RequestError
from sslcli.runs import results
from sslcli.runtime import progress

if TYPE_CHECKING:
    from sslcli.runs.data_check import Record

FROM_RUN = ("backbone", "augmentation", "method", "optimizer", "schedule", "train", "init")


def moved_data(overrides: list[str]) -> list[str]:
    """`dataset.path=NEW` alone says where the data of the run lie now: the composed data set, which is not theirs, takes it
    as a new key."""
    given = {o.lstrip("+").partition("=")[0] for o in overrides}
    if "dataset" in given or "run=none" in overrides:
        return overrides
    return [f"++{o}" if o.startswith("dataset.path=") else o for o in overrides]


def preview(cfg: Any) -> None:
    """Nothing to do: an evaluation makes no folder, so its own checks come early enough."""


def look(cfg: Any) -> None:
    from sslcli.config import instantiate
    from sslcli.runs.run import find

    values = plain(cfg)
    instantiate.check("evaluator", values["evaluator"], given=["backbone", "data"])
    if values["run"] != "none":
        find(values["run"])


def dry_run(cfg: Any) -> int:
    from sslcli.config import instantiate

    values = plain(cfg)
    subject(with_data_words(values, list(cfg.hydra.overrides.task)), list(cfg.hydra.overrides.task))
    instantiate.check("evaluator", values["evaluator"], given=["backbone", "data"])
    console.say("dry run: the evaluation can start")
    return 0


def warn_unheard(name: str, overrides: list[str], folders: list[Path]) -> None:
    """`labels=` and `seeds=` reach an evaluator through its YAML; where that does not ask for them they do nothing."""
    path = registry.choices("evaluator", folders).get(name)
    text = path.read_text(encoding="utf-8") if path else ""
    for key in ("labels", "seeds"):
        typed = next((o for o in overrides if o.startswith(f"{key}=")), None)
        if typed and path and f"${{{key}}}" not in text:
            own = re.search(rf"^{key}:", text, re.MULTILINE)
            console.warn(f"{typed} has no effect on {name}", f"evaluator.{typed}" if own else None)


@hydra_job
def run(cfg: Any) -> Outcome:
    from hydra.core.hydra_config import HydraConfig

    from sslcli.config import instantiate

    values = plain(cfg)
    name, overrides = HydraConfig.get().runtime.choices["evaluator"], list(HydraConfig.get().overrides.task)
    warn_unheard(name, overrides, [Path(f) for f in instantiate.trusted_folders()])
    values = with_data_words(values, overrides)
    measured, run_cfg = subject(values, overrides)
    typed = [o for o in overrides if o.partition("=")[0] not in ("evaluator", "run")]
    found = evaluate(values, measured, run_cfg, [name], typed=typed)
    return Outcome(next((v for r in found.values() for k, v in r.items() if k == "top1"), None))


def with_data_words(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """`values` with what the request says about the run's data: `data_given` where a data set was named (dataset=NAME),
    `data_path` where only the place of the run's own data was (dataset.path=NEW)."""
    keys = [o.partition("=")[0].lstrip("+") for o in overrides]
    if values["run"] == "none":
        return values
    if "dataset" in keys:
        return {**values, "data_given": True}
    return {**values, "data_path": values["dataset"].get("path")} if "dataset.path" in keys else values


def subject(values: dict[str, Any], overrides: list[str]) -> tuple[Any, dict[str, Any]]:
    """The run that is meant and its configuration, with the data set that was asked for; run=none: (None, what was typed)."""
    from sslcli.runs.run import Run, find, require_done

    if values["run"] == "none":
        named = registry.runs_root() / "none"
        if (named / "status.json").is_file():
            console.warn("run=none is an untrained backbone, and not the run of that name", f"run={named}")
        return None, values
    overrides = [o for o in overrides if not o.startswith("train.devices=")]
    refuse_unused(
        overrides, FROM_RUN, "that comes from the run", "leave it out, or measure an untrained backbone with run=none"
    )
    run = Run.open(find(values["run"]))
    require_done(run)
    if values.get("data_given"):
        return run, {**run.valid_config, "dataset": values["dataset"]}
    refuse_unused(
        [o for o in overrides if o.lstrip("+").partition("=")[0] != "dataset.path"],
        ("dataset",),
        "the data set comes from the run",
        "to measure on another one: dataset=NAME dataset.KEY=...; where the data moved: dataset.path=NEW",
    )
    if values.get("data_path") and "path" not in run.valid_config["dataset"]:
        raise RequestError(f"the data set of {run.path} has no path", "leave dataset.path out")
    return run, run.valid_config


@dataclass
class Subject:
    """A backbone and what it is measured on, in this process."""

    machine: Any
    dataset: Any
    backbone: Any
    data: Any
    step: int
    seed: int
    sha256: str = ""  # of the weights; "" for random ones
    elsewhere: bool = False  # measured on another data set than it was trained on


def load(values: dict[str, Any], run_cfg: dict[str, Any], path: Path | None, record: Record | None = None) -> Subject:
    """The backbone of a run (None: one with random weights) and its data. `record`: what these must be, where there is no
    run's encoder to go by. DataError where the data are not the run's, unless `values` allow it."""
    from dataclasses import replace

    from sslcli.builders import load_encoder, load_method, new_backbone
    from sslcli.evals.base.features import EvalData
    from sslcli.evals.inputs import label_file
    from sslcli.rng import derive
    from sslcli.runs import data_check
    from sslcli.runs.run import Run
    from sslcli.runtime import device, processes
    from sslcli.training.setup import load_dataset

    info: dict[str, Any] = {"step": 0, "sha256": ""}
    backbone, elsewhere = None, False
    given = bool(values.get("data_given"))
    if path is not None:
        backbone, info = load_encoder(path)
        allowed = given or bool(values.get("allow_data_change"))
        record = data_check.record_of(Run(path), values.get("data_path"), allowed)
        node, own = run_cfg["dataset"], Run(path).valid_config["dataset"]
        elsewhere = not data_check.same_node(node, own, record) if given else node != own
    told: list[str] = []
    if elsewhere:
        run_cfg = {**run_cfg, "dataset": data_check.ranged(sized(run_cfg["dataset"], info), info)}
        dataset = data_check.conform(load_dataset(run_cfg), info["input_shape"], told)
        here, own_range = dataset.details.get("range"), info.get("range")
        if here is not None and own_range is not None and here != own_range:
            told.append(f"warning: values are scaled by the range {here}; the run was trained with {own_range}")
        dataset = replace(dataset, mean=tuple(info["mean"]), std=tuple(info["std"]))
    else:
        dataset = load_dataset(run_cfg, record, download=path is None or given)
        if changed := dataset.details.get("changed"):
            elsewhere = given  # a result on other data has a name of its own, unless the change was allowed
            told += [f"the data changed since the run was trained: {change}" for change in changed]
    if label_file.is_file(values.get("labels")):
        dataset, more = label_file.labelled(dataset, values["labels"])
        told += more
    for note in told:
        console.say(note)
    place = processes.place(values["train"]["devices"], device.kind_of(values["device"]))
    machine = device.start(values["device"], images=len(dataset.shape) == 3, place=place)
    seed = run_cfg["seed"] if path else values["seed"]
    if backbone is None:
        backbone = new_backbone(run_cfg, dataset.shape, seed)
    machine.place(backbone)

    def untrained(draw: int = 0) -> Any:
        return machine.place(new_backbone(run_cfg, dataset.shape, derive(seed, "draw", draw) if draw else seed))

    @functools.cache
    def pretraining() -> Any:
        assert path is not None
        method, views = load_method(Run(path), run_cfg, dataset)
        return machine.place(method), views

    data = EvalData(
        dataset,
        machine.device,
        workers=machine.workers,
        cache=path / "cache" if path is not None else None,
        key=info["sha256"],
        seed=values["seed"],
        untrained=untrained if path is not None else None,
        autocast=machine.autocast,
        channels_last=machine.channels_last,
        recipes=run_cfg["augmentation"],
        pretraining=pretraining if path is not None else None,
        trained_on=info["dataset"] if elsewhere else "",
    )
    for note in data.notes:
        console.say(note)
    data.notes += told
    known = label_file.identified(dataset)
    return Subject(machine, known, backbone, data, info["step"], seed, info["sha256"], elsewhere)


def sized(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Another data set's configuration, at the size that the encoder was trained on, where it has one and none was asked for."""
    shape = info["input_shape"]
    return {**node, "image_size": shape[-1]} if len(shape) == 3 and node.get("image_size", 0) is None else node


def follow(told: dict[str, Any]) -> None:
    """Another process of an evaluation: its share of all features."""
    from sslcli.runtime import processes
    from sslcli.training.launch import same_data, trust

    trust(told.get("folders", []))
    subject = load(told["values"], told["run_cfg"], Path(told["run"]) if told["run"] else None)
    same_data(subject.dataset, told["fingerprint"])
    processes.ready(subject.machine.device)
    subject.data.serve(subject.backbone)


def evaluate(
    values: dict[str, Any],
    run: Any,
    run_cfg: dict[str, Any],
    names: list[str],
    skip_done: bool = False,
    typed: list[str] | None = None,
) -> dict[str, dict[str, float]]:
    """Runs the evaluators `names` (with their configuration in values["evaluators"] or values["evaluator"]); prints and saves.

    `skip_done`: what was measured before with the same configuration, weights and data is only printed. `typed`: the words that
    asked for it, which are kept with the result."""
    from sslcli.config import instantiate
    from sslcli.runs import loggers
    from sslcli.runs.redact import masked_words
    from sslcli.runtime import processes

    loggers.Loggers(values["logger"]).check()
    given = values.get("evaluators") or {names[0]: values["evaluator"]}
    for node in given.values():
        instantiate.check("evaluator", node, given=["backbone", "data"])
    subject = load(values, run_cfg, run.path if run is not None else None)
    dataset, machine = subject.dataset, subject.machine
    test = len(dataset.test) if dataset.test is not None else 0
    state = "untrained" if run is None else f"step {subject.step:,}"
    rows = [
        ("what", f"{', '.join(names)} of {type(subject.backbone).__name__} (dim {subject.backbone.dim}), {state}"),
        ("data", f"{dataset.name}: {len(dataset.train):,} train, {test:,} test"),
        ("where", machine.words()),
    ]
    console.rows([*rows, *([("run", str(run.path))] if run is not None else [])])
    told = {
        "word": "eval",
        "values": values,
        "run_cfg": run_cfg,
        "folders": instantiate.trusted_folders(),
        "run": str(run.path) if run is not None else None,
        "fingerprint": dataset.fingerprint,
    }
    everything: dict[str, dict[str, float]] = {}
    with (
        processes.lead(machine.team, machine.device, told, follow),
        heard(run, values, run_cfg, subject.step),
    ):
        for name, node in given.items():
            title = results.name_of(name, node.get("labels", "all"), dataset.name if subject.elsewhere else "")
            about = circumstances(subject, node, values, run_cfg)
            known = run.evals.get(title, {}) if run is not None and skip_done else {}
            if known and all(known.get(key) == value for key, value in about.items()):
                console.say(
                    f"{title} was measured before, with the same configuration, weights and data: not done again"
                )
                everything[name] = known["numbers"]
                report(title, known, run)
                continue
            began = time.perf_counter()
            with progress.task(name):
                result = result_of(node, subject)
            everything[name] = result.numbers
            about |= {"seconds": round(time.perf_counter() - began, 3)}
            if typed is not None:
                about |= {"overrides": masked_words(typed)}
            keep(title, result, about, run)
        subject.data.dismiss()
    return everything


def result_of(node: dict[str, Any], subject: Subject) -> Any:
    """What an evaluator finds, in cross-validation where the labels are few; few test samples are warned of."""
    from sslcli.config import instantiate
    from sslcli.evals.base import cross_validation
    from sslcli.evals.inputs.label_file import FEW

    evaluate = instantiate.partial("evaluator", node, "backbone", "data")
    if cross_validation.applies(node, subject.data):
        result = cross_validation.cross_validated(evaluate, subject.backbone, subject.data, node.get("seeds", 1))
    else:
        result = evaluate(subject.backbone, subject.data)
    splits = result.protocol.get("splits", {})
    if "labelled" in splits and 0 < (n := splits.get("test", 0)) < FEW:
        doubt = f"{n} labelled test samples are few: another {n} may give quite different numbers"
        result.protocol.setdefault("notes", []).append(doubt)
        console.warn(doubt, "more labels; of a file (labels=FILE.csv) probe and knn test every one")
    return result


def heard(run: Any, values: dict[str, Any], run_cfg: dict[str, Any], step: int) -> AbstractContextManager[None]:
    """While inside, what is saved of a run also goes to the loggers asked for, and to its own TensorBoard."""
    from sslcli.runs import loggers

    return loggers.attached(run, loggers.of_evaluation(run_cfg["logger"], values["logger"]), run_cfg, step)


def circumstances(
    subject: Subject, node: dict[str, Any], values: dict[str, Any], run_cfg: dict[str, Any]
) -> dict[str, Any]:
    """All that a result depends on: a known one with the same is not measured again."""
    from sslcli.runs.identity import config_hash

    return {
        "evaluator": node,
        "step": subject.step,
        "seed": subject.seed,
        "sha256": subject.sha256,
        "config_hash": config_hash(run_cfg),
        "dataset": subject.dataset.name,
        "fingerprint": subject.dataset.fingerprint,
        "draws": values["seed"],
    }


def keep(name: str, result: Any, about: dict[str, Any], run: Any) -> None:
    """A result onto stdout, then into the run folder: what was computed is not lost where it cannot be saved."""
    record = recorded(result, about)
    report(name, record, run)
    if run is not None:
        old, new = (found.get("evaluator") or {} for found in (run.evals.get(name, {}), record))
        save(name, result, record, run)
        differ = [f"{key}={old[key]}" for key in old if key in new and old[key] != new[key]]
        replaced = f"; it replaces the result with {', '.join(differ)}" if differ else ""
        console.say(f"kept as {name} in {run.path / 'eval'}{replaced}")


def recorded(result: Any, about: dict[str, Any]) -> dict[str, Any]:
    """What is written of a result."""
    from sslcli.runs.run import now

    return {
        "numbers": result.numbers,
        "intervals": result.intervals,
        "protocol": result.protocol,
        "details": result.details,
        "artefacts": {file: artefact.caption for file, artefact in result.artefacts.items()},
        **about,
        "time": now(),
    }


def save(name: str, result: Any, record: dict[str, Any], run: Any) -> None:
    """A result, of which `record` is written, into the run folder, where there is a run. StorageError."""
    if run is not None:
        folder = run.make_folder("eval")
        results.make_room(run.path, name)
        for file, artefact in result.artefacts.items():
            artefact.save(folder / f"{name}_{file}")
        run.save_eval(name, record)
        run.write_log(f"eval {name}: {result.numbers}")
        if run.loggers is not None:
            drawn = {
                f.removesuffix(".png"): run.path / "eval" / f"{name}_{f}"
                for f in result.artefacts
                if f.endswith(".png")
            }
            run.loggers.result(name, result.numbers, drawn, record["step"])


def report(name: str, record: dict[str, Any], run: Any) -> None:
    """Onto stdout. Lines begin with the evaluator (and the data set), whatever the labels; JSON has the whole name as well."""
    from sslcli.evals.metrics.interval import SUFFIX, between, of_lines

    result, name = name, results.without_labels(name, record)
    if console.flag(console.JSON):
        console.out_json({"eval": name, "result": result, "run": str(run.path) if run is not None else None, **record})
        return
    for key, value in of_lines(record["numbers"], record.get("intervals", {})).items():
        console.out(f"{name}.{key} {value}")
    for key, (low, high) in record.get("intervals", {}).items():
        if "." not in key:  # the baselines' are in the record
            console.say(f"{name}.{key.removesuffix(SUFFIX)} 95 % interval {between(low, high)}")


def require_stages(stages: list[str], known: dict[str, Any]) -> None:
    if not stages:
        raise RequestError("`stages` is empty", f"stages=[{','.join(sorted(set(known) - {'online'}))}]")
