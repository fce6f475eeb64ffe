"""sslcli bench: measure the throughput of a configuration on this machine, part by part. Creates no run folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sslcli import console
from sslcli.cli.hydra_task import Outcome, hydra_task
from sslcli.config import Config, typecheck
from sslcli.errors import RequestError
from sslcli.runs import Record
from sslcli.training import configuration

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

OWN_KEYS = ("repeats", "seconds")  # not part of the run's configuration
PARTS = (("views", "views alone"), ("decode", "decoding alone, a process"), ("model", "model alone"))


def resolve(cfg: DictConfig, hydra: HydraConf) -> tuple[Config, int, float]:
    """The configuration of the run; the number of rounds; the seconds of a part in a round."""
    values = configuration.resolve(cfg)
    repeats, seconds = (values.pop(key) for key in OWN_KEYS)
    if repeats < 1:
        raise RequestError(f"repeats={repeats}: expected at least 1", "repeats=3")
    if not (typecheck.matches_type(seconds, float) and 0 < seconds < float("inf")):
        raise RequestError(f"seconds={seconds}: expected more than 0", "seconds=2")
    configuration.check_learning_rate(values, hydra)
    return values, repeats, seconds


def check(cfg: DictConfig) -> None:
    from sslcli.training import setup

    setup.check(resolve(cfg, cfg.hydra)[0])


def dry_run(cfg: DictConfig) -> int:
    from sslcli.training import dry_run

    dry_run.dry_run(resolve(cfg, cfg.hydra)[0])
    return 0


def prepare(cfg: DictConfig) -> Callable[[DictConfig], float | None]:
    """A benchmark creates no folder, so its task checks and prepares."""
    return run


@hydra_task
def run(cfg: DictConfig) -> Outcome:
    import time

    from hydra.core.hydra_config import HydraConfig

    from sslcli.training.benchmark import bench, process_age
    from sslcli.training.setup import prepare
    from sslcli.training.start_screen import start_screen

    import_seconds = process_age()
    start = time.perf_counter()
    values, repeats, seconds = resolve(cfg, HydraConfig.get())
    setup = prepare(values)
    prepare_seconds = time.perf_counter() - start
    console.rows(start_screen(setup, None))
    results = bench(setup, repeats, seconds)
    results["startup"] = {"import": import_seconds, "prepare": prepare_seconds, **results["startup"]}
    if console.flag(console.JSON):
        console.out_json(results)
    else:
        console.out(*table(results))
    return Outcome(results["end_to_end"]["samples_per_s"])


def table(results: dict[str, Any]) -> list[str]:
    """The results as lines for people."""
    body = []
    for key, name in (*PARTS, ("end_to_end", "end to end")):
        if key in results:
            part = results[key]
            core = part.get("samples_per_s_core")
            body.append([name, rate(part["samples_per_s"]), f"{rate(part['min'])} to {rate(part['max'])}"])
            body[-1].append(rate(core) if core else "")
    startup = [f"{name.replace('_', ' ')} {s:.1f} s" for name, s in results["startup"].items() if s is not None]
    machine = results["machine"]
    return [
        *console.table(["", "samples/s", "rounds", "per core"], body, numbers=(1, 2, 3)),
        "",
        f"lost         {results['lost']:.1%} of the throughput of the model alone",
        f"peak memory  {results['peak_memory_mb']:,.0f} MB; model alone {results['model']['peak_memory_mb']:,.0f} MB",
        f"start        {', '.join(startup)}",
        f"on           {machine['device']}, {machine['threads']} threads, {machine['workers']} workers, {machine['cores']} cores",
        *thread_comparison(machine),
        *compile_comparison(results.get("compiled")),
    ]


def thread_comparison(machine: Record) -> list[str]:
    """The times of the thread counts that were compared; [] where none were."""
    times = {int(n): seconds for n, seconds in machine["seconds_a_step_by_threads"].items()}
    if not times:
        return []
    from sslcli.runtime.threads import format_times

    return [f"threads      {format_times(times)}; used {machine['threads']} (device.threads=N sets it)"]


def compile_comparison(compiled: Record | None) -> list[str]:
    """The model as written and compiled; [] where they were not compared."""
    if compiled is None:
        return []
    steps = compiled["steps_to_pay"]
    pays = f"which {steps:,} steps gain back" if steps is not None else "which does not pay"
    took = f"compiling took {compiled['seconds']:.0f} s, {pays}"
    return [f"compiled     {compiled['gain']:.2f} times as fast as written ({rate(compiled['as_written'])}/s); {took}"]


def rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
