"""sslcli eval NAME: numbers of a frozen backbone, with their protocol and their baselines."""

from __future__ import annotations

from typing import Any

from sslcli import console
from sslcli.commands import job as hydra_job
from sslcli.commands.pretrain import plain, refuse_unused
from sslcli.errors import RequestError

FROM_RUN = ("dataset", "backbone", "augmentation", "method", "optimizer", "schedule", "train", "init")


def preview(cfg: Any) -> None:
    """Nothing to do: an evaluation makes no folder, so its own checks come early enough."""


def dry_run(cfg: Any) -> int:
    from sslcli import build

    values = plain(cfg)
    subject(values, list(cfg.hydra.overrides.task))
    build.check("evaluator", values["evaluator"], given=["backbone", "data"])
    console.say("dry run: the evaluation can start")
    return 0


@hydra_job
def run(cfg: Any) -> float | None:
    from hydra.core.hydra_config import HydraConfig

    values = plain(cfg)
    measured, run_cfg = subject(values, list(HydraConfig.get().overrides.task))
    results = evaluate(values, measured, run_cfg, [HydraConfig.get().runtime.choices["evaluator"]])
    return next((v for r in results.values() for k, v in r.items() if k == "top1"), None)


def subject(values: dict[str, Any], overrides: list[str]) -> tuple[Any, dict[str, Any]]:
    """The run that is meant and its configuration; (None, this configuration) for run=none."""
    from sslcli.run import Run, find, require_done

    if values["run"] == "none":
        return None, values
    refuse_unused(
        overrides, FROM_RUN, "that comes from the run", "leave it out, or measure an untrained backbone with run=none"
    )
    run = Run.open(find(values["run"]))
    require_done(run)
    return run, run.config


def evaluate(
    values: dict[str, Any], run: Any, run_cfg: dict[str, Any], names: list[str]
) -> dict[str, dict[str, float]]:
    """Runs the evaluators `names` (with their configuration in values["evaluators"] or values["evaluator"]); prints and saves."""
    from sslcli import build, runtime
    from sslcli.evals.features import EvalData
    from sslcli.job import config_hash, load_dataset, load_encoder, new_backbone
    from sslcli.run import now

    given = values.get("evaluators") or {names[0]: values["evaluator"]}
    for node in given.values():
        build.check("evaluator", node, given=["backbone", "data"])
    dataset = load_dataset(run_cfg)
    machine = runtime.start(values["device"], images=len(dataset.shape) == 3)
    seed = run_cfg["seed"] if run else values["seed"]
    if run is not None:
        backbone, info = load_encoder(run.path)
        step, key, cache = info["step"], info["sha256"], run.path / "cache"
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
        untrained=(lambda: machine.place(new_backbone(run_cfg, dataset.shape, seed))) if run is not None else None,
        autocast=machine.autocast,
        channels_last=machine.channels_last,
    )
    console.rows(
        [
            (
                "what",
                f"{', '.join(names)} of {type(backbone).__name__} (dim {backbone.dim}), "
                + ("untrained" if run is None else f"step {step:,}"),
            ),
            (
                "data",
                f"{dataset.name}: {len(dataset.train):,} train, {len(dataset.test) if dataset.test is not None else 0:,} test",
            ),
            ("where", machine.words()),
            *([("run", str(run.path))] if run is not None else []),
        ]
    )
    everything: dict[str, dict[str, float]] = {}
    for name, node in given.items():
        result = build.build("evaluator", node, backbone, data)
        everything[name] = result.numbers
        record = {
            "numbers": result.numbers,
            "protocol": result.protocol,
            "step": step,
            "seed": seed,
            "config_hash": config_hash(run_cfg),
            "dataset": dataset.name,
            "time": now(),
        }
        if run is not None:
            saved = run.save_eval(name, record)
            for file, artefact in result.artefacts.items():
                artefact.save(saved.with_name(f"{name}_{file}"))
            run.write_log(f"eval {name}: {result.numbers}")
        report(name, record, run)
    return everything


def report(name: str, record: dict[str, Any], run: Any) -> None:
    if console.flag(console.JSON):
        console.out_json({"eval": name, "run": str(run.path) if run is not None else None, **record})
        return
    for key, value in record["numbers"].items():
        console.out(f"{name}.{key} {value:.6g}")


def require_stages(stages: list[str], known: dict[str, Any]) -> None:
    if not stages:
        raise RequestError("`stages` is empty", f"stages=[{','.join(sorted(set(known) - {'online'}))}]")
