"""sslcli pretrain: a method, a backbone, unlabelled data; out comes a run folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.cli.hydra_task import Outcome, hydra_task
from sslcli.config import compose, instantiate, registry, schema
from sslcli.errors import RequestError
from sslcli.runs.find import all_runs, find
from sslcli.runs.identity import has_hash
from sslcli.runs.listing import next_step
from sslcli.runs.run import Run
from sslcli.runtime import progress

SLOW_STEP = 5.0  # seconds: a dry run says beforehand that a step takes longer
DRY_RUN_SECONDS = 1.0  # at most about this long a dry run compares thread counts
_prepared: dict[str, Any] = {}  # what preview built, for the run that follows in this process
schema.register_resolvers()  # also in a process that a launcher started: it unpickles `run` before it composes
NOT_OF_A_RUN = ("hydra", "experiment", "resume")  # how it was asked for, not what it computes


def plain(cfg: Any) -> dict[str, Any]:
    """The composed configuration of a run, resolved."""
    from omegaconf import OmegaConf, open_dict

    cfg = OmegaConf.create(cfg) if not OmegaConf.is_config(cfg) else cfg.copy()
    with open_dict(cfg):
        for key in NOT_OF_A_RUN:
            cfg.pop(key, None)
    return pinned(compose.expand_tasks(compose.plain(cfg), map(Path, instantiate.trusted_folders())))


def pinned(values: dict[str, Any]) -> dict[str, Any]:
    """`latest`, where a method or one inside it asks for a run, is the run that is the latest now, also when this one goes on
    tomorrow. A file of weights is named by its absolute path, and a stem that follows the image size is the file's."""

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {k: walk(v) for k, v in node.items()}
        return str(find("latest").resolve()) if node == "latest" else node

    if isinstance(values.get("init"), str) and os.path.isfile(file := os.path.expanduser(values["init"])):
        from sslcli.backbones.weights_file import stem_of

        values = {**values, "init": os.path.abspath(file)}
        if values["backbone"].get("stem") == "auto" and (stem := stem_of(file)) is not None:
            values = {**values, "backbone": {**values["backbone"], "stem": stem}}
    return {**values, "method": walk(values["method"])} if "method" in values else values


def check_rate(values: dict[str, Any], hydra: Any) -> None:
    """Another optimizer than the recipe's, with the recipe's learning rate: that is not what anybody means."""
    chosen, method = hydra.runtime.choices["optimizer"], hydra.runtime.choices["method"]
    given = [o.partition("=")[0].lstrip("+") for o in hydra.overrides.task]
    if "optimizer" not in given or "optimizer.lr" in given:
        return
    node, own = (registry.choices(group).get(name) for group, name in (("method", method), ("optimizer", chosen)))
    recipe = registry.describe(node, "method").get("defaults", []) if node else []
    usual = registry.describe(own, "optimizer").get("lr") if own else None
    lr = values["optimizer"]["lr"]
    if {"override /optimizer": chosen} not in recipe and usual is not None and lr != usual:
        raise RequestError(
            f"optimizer={chosen}: the learning rate {lr:g} is {method}'s, meant for another optimizer",
            f"give optimizer.lr=... ({usual:g} is what configs/optimizer/{chosen}.yaml has)",
        )


def check_resume(cfg: Any) -> None:
    """`resume=auto` or nothing; and a start that means the same run tomorrow."""
    if cfg.resume is None:
        return
    if cfg.resume != "auto":
        raise RequestError(
            f"`resume={cfg.resume}`: only resume=auto is known",
            "to continue a run that you name: sslcli resume RUN (its folder, its name, or latest)",
        )
    if cfg.init == "latest":
        raise RequestError("resume=auto with init=latest: the latest run changes", "name the run: init=RUN")


def look(cfg: Any) -> None:
    from sslcli.training.setup import check

    values = plain(cfg)
    check_resume(cfg)
    check_rate(values, cfg.hydra)
    check(values)


def look_at_data(requests: list[Any]) -> None:
    from sslcli.training.setup import check_batches

    check_batches([plain(cfg) for cfg in requests])


def preview(cfg: Any) -> None:
    look(cfg)
    prepare_ahead(plain(cfg))


def prepare_ahead(values: dict[str, Any]) -> None:
    """Builds the job that follows in this process: what is wrong comes out before there is a folder."""
    from sslcli.training.setup import prepare

    _prepared.clear()
    _prepared[key_of(values)] = prepare(values)


def prepared(values: dict[str, Any], record: Any = None) -> Any:
    """The job of a configuration: from its preview, or built now. `record`: of the run's data, where it is resumed."""
    from sslcli.training.setup import prepare

    return _prepared.pop(key_of(values), None) or prepare(values, record=record)


def key_of(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def dry_run(cfg: Any) -> int:
    look(cfg)
    return try_one_batch(plain(cfg))


def estimate(job: Any, batch: Any, few: int = 8) -> float:
    """About how many seconds a step takes, from a copy that sees `few` samples of a batch (after two, which warm it up)."""
    import copy
    import time

    from sslcli.methods.base import Batch

    method, took = copy.deepcopy(job.method), 0.0
    few = max(few, method.min_batch)
    for n in (max(2, method.min_batch), few):
        labels = None if batch.labels is None else batch.labels[:n]
        part = Batch([v[:n] for v in batch.views], batch.kinds, batch.draw.rows(slice(n)), labels)
        began = time.perf_counter()
        with job.runtime.autocast():
            loss = method(part)["loss"]
        loss.backward()
        loss.item()  # waits for the device
        took = time.perf_counter() - began
    return took * job.loader.batch_size / few


def try_one_batch(values: dict[str, Any]) -> int:
    """One batch forward and backward; says the plan, the time and the memory of a step. No folder."""
    import time

    from sslcli.runtime import threads
    from sslcli.training.setup import prepare, screen

    job = prepare(values)
    console.rows(screen(job, None))
    with progress.task("views of the first batch"), contextlib.closing(job.loader.stream(0)) as stream:
        batch = next(stream)

    def step() -> float:
        with job.runtime.autocast():
            loss = job.method(batch)["loss"]
        loss.backward()
        return float(loss.detach())

    if (about := estimate(job, batch)) > SLOW_STEP:
        whole = "" if job.steps is None else f", {job.steps:,} steps {console.human_time(about * job.steps)}"
        console.say(f"a step takes about {console.human_time(about)} here{whole}; one is tried now")
    began = time.perf_counter()
    with progress.task("first step"):
        value = step()
    took = time.perf_counter() - began
    console.say(
        f"dry run: loss {value:.4f}, {took:.2f} s for the first step, peak memory {job.runtime.peak_memory_mb():,.0f} MB"
    )
    counts = threads.candidates(values["device"]["threads"], job.runtime)
    if len(counts) > 1 and took < DRY_RUN_SECONDS:
        times = threads.compare(step, counts, DRY_RUN_SECONDS)
        best = threads.better(times)
        faster = f"; device.threads={best} is faster on this machine now" if best != counts[0] else ""
        console.say(f"threads: {threads.words(times)}{faster}")
    return 0


@hydra_task
def run(cfg: Any) -> Outcome:
    from hydra.core.hydra_config import HydraConfig

    check_resume(cfg)
    values, path = plain(cfg), Path(HydraConfig.get().runtime.output_dir)
    check_rate(values, HydraConfig.get())
    trained = pretrain(values, shorten(path), auto=cfg.resume == "auto", request=cfg)
    return Outcome(score(trained), trained.path)


def pretrain(values: dict[str, Any], path: Path, auto: bool = False, request: Any = None) -> Run:
    """The trained run of a configuration: a new one in `path`, or with `auto` the newest that has this configuration and data.
    `request`: what Hydra composed, which a new run keeps."""
    earlier = like(values) if auto else None
    if earlier is not None:
        go_on(earlier, values)
        return earlier
    return begin(values, path, request)


def begin(values: dict[str, Any], path: Path, request: Any = None) -> Run:
    """A new run in `path`, trained to its end."""
    job = prepared(values)
    run = Run.create(path, job.cfg)
    try:
        if request is not None:
            keep_request(run, request)
        run.set_status(**identity(job))
        train(job, run, None)
    finally:
        run.close()
    return run


def keep_request(run: Run, request: Any) -> None:
    """The three files of `.hydra/` as Hydra writes them, but through no link that lies there. StorageError."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from sslcli.runs.files import replace_file

    run.make_folder(".hydra")
    whole = HydraConfig.instance().cfg
    parts = {"config": request, "hydra": whole, "overrides": HydraConfig.get().overrides.task}
    for name, part in parts.items():
        replace_file(run.path, f".hydra/{name}.yaml", OmegaConf.to_yaml(part))


def go_on(
    run: Run,
    values: dict[str, Any] | None = None,
    other_data: bool = False,
    longer: bool = False,
    moved_to: str | None = None,
) -> None:
    """The next step of a run, in its folder, to its end; a finished one is left as it is, unless it is to be `longer`. `values`:
    its configuration, where the request at hand says anew how (not what) to compute. `other_data`: whether the data may have
    changed. `moved_to`: where its data lie now. RunInUseError where another process has it."""
    from sslcli.data.record import read_record
    from sslcli.runs.encoder import has_encoder
    from sslcli.training.state import restore

    record = read_record(run, moved_to, other_data)
    if run.status.get("status") == "done" and not longer and has_encoder(run.path):
        if moved_to is not None:
            keep_place(run, record)
        console.say(f"{run.path} is done (step {run.status.get('step', 0):,}); nothing to resume")
        console.say(f"next  {next_step(run)}")
        return
    run.lock()
    try:
        job = prepared(values or run.config, record)
        state = restore(job, run, console.say, other_data)
        if longer or moved_to is not None:
            run.write_config(job.cfg)
        run.event("resumed", step=state.step, pid=os.getpid())
        run.set_status("running", pid=os.getpid(), host=socket.gethostname(), error=None, **identity(job))
        train(job, run, state)
    finally:
        run.close()


def keep_place(run: Run, record: Any) -> None:
    """Writes down where the data of a finished run lie now. DataError where they are not its data."""
    from sslcli.builders import load_dataset
    from sslcli.data.record import describe_dataset

    run.lock()
    try:
        dataset = load_dataset(run.config, record)
        run.set_status(data=describe_dataset(dataset))
    finally:
        run.close()
    console.say(f"the data of {run.path} lie at {dataset.path} now")


def identity(job: Any) -> dict[str, Any]:
    """By which `resume=auto` knows a run again, and everything else that reads its data knows these."""
    from sslcli.data.record import describe_dataset

    return {
        "config_hash": job.config_hash,
        "fingerprint": job.dataset.fingerprint,
        "data": describe_dataset(job.dataset),
    }


def train(job: Any, run: Run, state: Any) -> None:
    """From `state` (None: from the start) to the end, and what people see of it."""
    from sslcli.runs import loggers
    from sslcli.training.launch import run_job
    from sslcli.training.setup import screen

    rows = screen(job, run.path)
    console.rows(rows)
    for key, value in rows:
        run.write_log(f"{key}: {value}")
    with loggers.attached(run, job.cfg["logger"], job.cfg, state.step if state else 0):
        state = run_job(job, run, state)
    pictures(job, run)
    end_screen(run, state.seconds)


def like(values: dict[str, Any]) -> Run | None:
    """The newest run of the same configuration on the same data, in a sweep or not; None where there is none."""
    if key_of(values) not in _prepared:
        prepare_ahead(values)
    about = identity(_prepared[key_of(values)])
    same = [run for path in reversed(all_runs()) if has_hash(run := Run(path), about["config_hash"])]
    if not same:
        return None
    found = next((r for r in same if r.status.get("fingerprint") == about["fingerprint"]), None)
    if found is None:
        console.say(f"{same[0].path} has this configuration but other data: a new run begins")
        return None
    return Run.open(Path(shorten(found.path)))


def score(run: Any) -> float | None:
    for line in reversed(run.metrics):
        if line.get("eval/knn/top1") is not None:
            return float(line["eval/knn/top1"])
    return next((-float(m["train/loss"]) for m in reversed(run.metrics) if m.get("train/loss") is not None), None)


def end_screen(run: Any, seconds: float) -> None:
    step = run.status.get("step", 0)
    console.say(f"saved {run.path}/encoder.safetensors (step {step:,}, {console.human_time(seconds)})")
    console.say(f"next  {next_step(run)}")


def pictures(job: Any, run: Any) -> None:
    """What the method can show of itself (reconstructions), as pictures/NAME.png."""
    import torch

    from sslcli.runs.files import replacing
    from sslcli.runtime.compilation import as_written
    from sslcli.views import sheet

    with contextlib.closing(job.loader.stream(0)) as stream:
        batch = next(stream)
    job.method.eval()
    with torch.no_grad(), as_written(job.runtime.compile):
        drawn = job.method.pictures(batch)
    for name, columns in drawn.items():
        shown = [denormalised(job.dataset, c[:8].float().cpu()) for c in columns.values()]
        with replacing(run.make_folder("pictures") / f"{name}.png") as path:
            sheet(path, list(zip(*shown, strict=True)), list(columns))


def denormalised(dataset: Any, x: Any) -> Any:
    """(B, *shape) of a view back in the units of the data: images in 0..1."""
    import torch

    mean, std = (torch.tensor(v).view(-1, *([1] * (x.ndim - 2))) for v in (dataset.mean, dataset.std))
    return x * std + mean


def shorten(path: Path) -> Path:
    """Relative to the working folder where that is shorter: what people type back."""
    try:
        relative = path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path
    return relative


def refuse_unused(overrides: list[str], groups: tuple[str, ...], why: str, hint: str) -> None:
    """An option that would have no effect is refused."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.split(".")[0] in groups:
            raise RequestError(f"`{override}`: {why}", hint)
