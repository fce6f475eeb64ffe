"""sslcli pretrain: a method, a backbone, unlabelled data; out comes a run folder."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from sslcli import compose, config, console
from sslcli.commands import job as hydra_job
from sslcli.errors import RequestError, SslError

_prepared: dict[str, Any] = {}  # what preview built, for the run that follows in this process


def plain(cfg: Any) -> dict[str, Any]:
    """The composed configuration without Hydra's part, resolved."""
    from omegaconf import OmegaConf, open_dict

    cfg = OmegaConf.create(cfg) if not OmegaConf.is_config(cfg) else cfg.copy()
    with open_dict(cfg):
        cfg.pop("hydra", None)
        cfg.pop("experiment", None)
    return compose.plain(cfg)


def check_rate(values: dict[str, Any], hydra: Any) -> None:
    """Another optimizer than the recipe's, with the recipe's learning rate: that is not what anybody means."""
    chosen, method = hydra.runtime.choices["optimizer"], hydra.runtime.choices["method"]
    given = [o.partition("=")[0].lstrip("+") for o in hydra.overrides.task]
    if "optimizer" not in given or "optimizer.lr" in given:
        return
    node, own = (config.choices(group).get(name) for group, name in (("method", method), ("optimizer", chosen)))
    recipe = config.describe(node, "method").get("defaults", []) if node else []
    usual = config.describe(own, "optimizer").get("lr") if own else None
    lr = values["optimizer"]["lr"]
    if {"override /optimizer": chosen} not in recipe and usual is not None and lr != usual:
        raise RequestError(
            f"optimizer={chosen}: the learning rate {lr:g} is {method}'s, meant for another optimizer",
            f"give optimizer.lr=... ({usual:g} is what configs/optimizer/{chosen}.yaml has)",
        )


def preview(cfg: Any) -> None:
    from sslcli.job import config_hash, prepare

    values = plain(cfg)
    check_rate(values, cfg.hydra)
    _prepared[config_hash(values)] = prepare(values)


def dry_run(cfg: Any) -> int:
    """One batch forward and backward; says the plan, the time and the memory of a step. No folder."""
    import time

    from sslcli.job import prepare, screen

    job = prepare(plain(cfg))
    console.rows(screen(job, None))
    with contextlib.closing(job.loader.stream(0)) as stream:
        batch = next(stream)
    began = time.perf_counter()
    with job.runtime.autocast():
        loss = job.method(batch)["loss"]
    loss.backward()
    value = float(loss.detach())
    took = time.perf_counter() - began
    console.say(
        f"dry run: loss {value:.4f}, {took:.2f} s for the first step, peak memory {job.runtime.peak_memory_mb():,.0f} MB"
    )
    return 0


@hydra_job
def run(cfg: Any) -> float | None:
    from hydra.core.hydra_config import HydraConfig

    path, values = Path(HydraConfig.get().runtime.output_dir), plain(cfg)
    try:
        check_rate(values, HydraConfig.get())
    except SslError:
        tidy(path)
        raise
    return pretrain(values, shorten(path))


def pretrain(values: dict[str, Any], path: Path, announce: bool = True) -> float | None:
    """Trains; returns the last online kNN accuracy where there is one, else minus the loss (what a sweeper may maximise)."""
    from sslcli.job import config_hash, prepare, screen
    from sslcli.run import Run
    from sslcli.train import run_job

    try:
        job = _prepared.pop(config_hash(values), None) or prepare(values)
        run = Run.create(path, values)
    except SslError:
        tidy(path)
        raise
    try:
        rows = screen(job, path)
        console.rows(rows)
        for key, value in rows:
            run.write_log(f"{key}: {value}")
        state = run_job(job, run)
        pictures(job, run)
        end_screen(run, state.seconds)
    finally:
        run.close()
    if announce:
        console.out(path)
    return score(run)


def score(run: Any) -> float | None:
    for line in reversed(run.metrics):
        if line.get("eval/knn/top1") is not None:
            return float(line["eval/knn/top1"])
    return next((-float(m["train/loss"]) for m in reversed(run.metrics) if m.get("train/loss") is not None), None)


def end_screen(run: Any, seconds: float) -> None:
    status = run.status
    console.say(f"saved {run.path}/encoder.safetensors (step {status['step']:,}, {console.human_time(seconds)})")
    console.say(f"next  sslcli eval probe run={run.path.name}")


def pictures(job: Any, run: Any) -> None:
    """What the method can show of itself (reconstructions), as pictures/NAME.png."""
    import torch

    from sslcli.views import sheet

    with contextlib.closing(job.loader.stream(0)) as stream:
        batch = next(stream)
    job.method.eval()
    with torch.no_grad():
        drawn = job.method.pictures(batch)
    for name, columns in drawn.items():
        shown = [denormalised(job.dataset, c[:8].float().cpu()) for c in columns.values()]
        sheet(run.path / "pictures" / f"{name}.png", list(zip(*shown, strict=True)), list(columns))


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


def tidy(path: Path) -> None:
    """A refused job leaves no folder: Hydra made one with nothing of ours in it."""
    if path.is_dir() and not (path / "status.json").exists() and {p.name for p in path.iterdir()} <= {".hydra"}:
        shutil.rmtree(path, ignore_errors=True)


def refuse_unused(overrides: list[str], groups: tuple[str, ...], why: str, hint: str) -> None:
    """An option that would have no effect is refused."""
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key.split(".")[0] in groups:
            raise RequestError(f"`{override}`: {why}", hint)
