"""sslcli eval NAME: numbers of a frozen backbone, with their protocol and their baselines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.commands.jobs import Outcome
from sslcli.commands.jobs import job as hydra_job
from sslcli.commands.pretrain import plain, refuse_unused
from sslcli.errors import RequestError

FROM_RUN = ("dataset", "backbone", "augmentation", "method", "optimizer", "schedule", "train", "init")


def preview(cfg: Any) -> None:
    """Nothing to do: an evaluation makes no folder, so its own checks come early enough."""


def look(cfg: Any) -> None:
    from sslcli import build
    from sslcli.run import find

    values = plain(cfg)
    build.check("evaluator", values["evaluator"], given=["backbone", "data"])
    if values["run"] != "none":
        find(values["run"])


def dry_run(cfg: Any) -> int:
    from sslcli import build

    values = plain(cfg)
    subject(values, list(cfg.hydra.overrides.task))
    build.check("evaluator", values["evaluator"], given=["backbone", "data"])
    console.say("dry run: the evaluation can start")
    return 0


@hydra_job
def run(cfg: Any) -> Outcome:
    from hydra.core.hydra_config import HydraConfig

    values = plain(cfg)
    measured, run_cfg = subject(values, list(HydraConfig.get().overrides.task))
    results = evaluate(values, measured, run_cfg, [HydraConfig.get().runtime.choices["evaluator"]])
    return Outcome(next((v for r in results.values() for k, v in r.items() if k == "top1"), None))


def subject(values: dict[str, Any], overrides: list[str]) -> tuple[Any, dict[str, Any]]:
    """The run that is meant and its configuration; (None, this configuration) for run=none."""
    from sslcli.run import Run, find, require_done

    if values["run"] == "none":
        return None, values
    overrides = [o for o in overrides if not o.startswith("train.devices=")]
    refuse_unused(
        overrides, FROM_RUN, "that comes from the run", "leave it out, or measure an untrained backbone with run=none"
    )
    run = Run.open(find(values["run"]))
    require_done(run)
    return run, run.config


@dataclass
class Subject:
    """A backbone and what it is measured on, in this process."""

    machine: Any
    dataset: Any
    backbone: Any
    data: Any
    step: int
    seed: int


def load(values: dict[str, Any], run_cfg: dict[str, Any], path: Path | None) -> Subject:
    """The backbone of a run (None: one with random weights) and its data."""
    from sslcli import runtime, team
    from sslcli.evals.features import EvalData
    from sslcli.job import load_dataset, load_encoder, new_backbone

    dataset = load_dataset(run_cfg)
    place = team.place(values["train"]["devices"], runtime.kind_of(values["device"]))
    machine = runtime.start(values["device"], images=len(dataset.shape) == 3, place=place)
    seed = run_cfg["seed"] if path else values["seed"]
    if path is not None:
        backbone, info = load_encoder(path)
        step, key, cache = info["step"], info["sha256"], path / "cache"
    else:
        backbone, step, key, cache = new_backbone(run_cfg, dataset.shape, seed), 0, "", None
    machine.place(backbone)
    data = EvalData(
        dataset,
        machine.device,
        workers=machine.workers,
        cache=cache,
        key=key,
        seed=values["seed"],
        untrained=(lambda: machine.place(new_backbone(run_cfg, dataset.shape, seed))) if path is not None else None,
        autocast=machine.autocast,
        channels_last=machine.channels_last,
    )
    return Subject(machine, dataset, backbone, data, step, seed)


def follow(told: dict[str, Any]) -> None:
    """Another process of an evaluation: its share of all features."""
    from sslcli import team
    from sslcli.session import same_data, trust

    trust(told["folders"])
    subject = load(told["values"], told["run_cfg"], Path(told["run"]) if told["run"] else None)
    same_data(subject.dataset, told["fingerprint"])
    team.ready(subject.machine.device)
    subject.data.serve(subject.backbone)


def evaluate(
    values: dict[str, Any], run: Any, run_cfg: dict[str, Any], names: list[str]
) -> dict[str, dict[str, float]]:
    """Runs the evaluators `names` (with their configuration in values["evaluators"] or values["evaluator"]); prints and saves."""
    from sslcli import build, team

    given = values.get("evaluators") or {names[0]: values["evaluator"]}
    for node in given.values():
        build.check("evaluator", node, given=["backbone", "data"])
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
        "folders": build.trusted_folders(),
        "run": str(run.path) if run is not None else None,
        "fingerprint": dataset.fingerprint,
    }
    everything: dict[str, dict[str, float]] = {}
    with team.lead(machine.team, machine.device, told, follow):
        for name, node in given.items():
            result = build.build("evaluator", node, subject.backbone, subject.data)
            everything[name] = result.numbers
            keep(name, result, subject, run, run_cfg)
        subject.data.dismiss()
    return everything


def keep(name: str, result: Any, subject: Subject, run: Any, run_cfg: dict[str, Any]) -> None:
    """A result into the run folder, and onto stdout."""
    from sslcli.job import config_hash
    from sslcli.run import now

    record = {
        "numbers": result.numbers,
        "protocol": result.protocol,
        "step": subject.step,
        "seed": subject.seed,
        "config_hash": config_hash(run_cfg),
        "dataset": subject.dataset.name,
        "time": now(),
    }
    if run is not None:
        saved = run.save_eval(name, record)
        for file, artefact in result.artefacts.items():
            artefact.save(saved.with_name(f"{name}_{file}"))
        run.write_log(f"eval {name}: {result.numbers}")
    report(name, record, run)


def report(name: str, record: dict[str, Any], run: Any) -> None:
    if console.flag(console.JSON):
        console.out_json({"eval": name, "run": str(run.path) if run is not None else None, **record})
        return
    for key, value in record["numbers"].items():
        console.out(f"{name}.{key} {value:.6g}")


def require_stages(stages: list[str], known: dict[str, Any]) -> None:
    if not stages:
        raise RequestError("`stages` is empty", f"stages=[{','.join(sorted(set(known) - {'online'}))}]")
