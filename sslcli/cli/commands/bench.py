"""sslcli bench: how fast this machine is on a configuration, part by part. Makes no run folder."""

from __future__ import annotations

from typing import Any

from sslcli import console
from sslcli.cli.commands import pretrain
from sslcli.cli.hydra_task import Outcome, hydra_task
from sslcli.config import typecheck
from sslcli.errors import RequestError

OWN = ("repeats", "seconds")  # keys of the bench that are not the pretraining's
PARTS = (("views", "views alone"), ("decode", "decoding alone, a process"), ("model", "model alone"))


def split(cfg: Any) -> tuple[dict[str, Any], int, float]:
    """The pretraining's configuration; how many rounds; how long a part of a round."""
    values = pretrain.plain(cfg)
    repeats, seconds = (values.pop(key) for key in OWN)
    if repeats < 1:
        raise RequestError(f"`repeats={repeats}` must be at least 1", "repeats=3")
    if not (typecheck.matches_type(seconds, float) and 0 < seconds < float("inf")):
        raise RequestError(f"`seconds={seconds}` must be more than 0", "seconds=2")
    return values, repeats, seconds


def look(cfg: Any) -> None:
    from sslcli.training.setup import check

    values, _, _ = split(cfg)
    pretrain.check_rate(values, cfg.hydra)
    check(values)


def preview(cfg: Any) -> None:
    look(cfg)


def dry_run(cfg: Any) -> int:
    look(cfg)
    return pretrain.try_one_batch(split(cfg)[0])


@hydra_task
def run(cfg: Any) -> Outcome:
    import time

    from sslcli.training.benchmark import age, bench
    from sslcli.training.setup import prepare, screen

    imported = age()
    began = time.perf_counter()
    values, repeats, seconds = split(cfg)
    job = prepare(values)
    prepared = time.perf_counter() - began
    console.rows(screen(job, None))
    found = bench(job, repeats, seconds)
    found["startup"] = {"import": imported, "prepare": prepared, **found["startup"]}
    if console.flag(console.JSON):
        console.out_json(found)
    else:
        console.out(*words(found))
    return Outcome(found["end_to_end"]["samples_per_s"])


def words(found: dict[str, Any]) -> list[str]:
    """The table, and what it comes to."""
    body = []
    for key, name in (*PARTS, ("end_to_end", "end to end")):
        if key in found:
            part = found[key]
            core = part.get("samples_per_s_core")
            body.append([name, rate(part["samples_per_s"]), f"{rate(part['min'])} to {rate(part['max'])}"])
            body[-1].append(rate(core) if core else "")
    startup = [f"{name.replace('_', ' ')} {s:.1f} s" for name, s in found["startup"].items() if s is not None]
    where = found["machine"]
    return [
        *console.table(["", "samples/s", "rounds", "a core"], body, numbers=(1, 2, 3)),
        "",
        f"lost         {found['lost']:.1%} of what the model alone could do",
        f"peak memory  {found['peak_memory_mb']:,.0f} MB; model alone {found['model']['peak_memory_mb']:,.0f} MB",
        f"start        {', '.join(startup)}",
        f"on           {where['device']}, {where['threads']} threads, {where['workers']} workers, {where['cores']} cores",
        *threads_compared(where),
    ]


def threads_compared(where: dict[str, Any]) -> list[str]:
    """Which thread counts were compared, where they were."""
    times = {int(n): took for n, took in where["seconds_a_step_by_threads"].items()}
    if not times:
        return []
    from sslcli.runtime.threads import words

    return [f"threads      {words(times)}; used {where['threads']} (device.threads=N sets it)"]


def rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
