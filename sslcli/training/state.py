"""What a run is besides tensors: counters and a plan; into a checkpoint, and back, saying how exact the return is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcli.config import schema, typecheck
from sslcli.errors import DataError, RequestError, TrainingError, command, listing
from sslcli.nn.ema import Teacher
from sslcli.runs import checkpoint
from sslcli.runs.identity import LENGTH_KEYS, LOCATION_KEYS, identity_config, is_fact
from sslcli.runs.redact import HIDDEN
from sslcli.runs.run import Run
from sslcli.runtime import threads
from sslcli.training.setup import Job

ROUNDING = ("world", "strategy", "threads", "device", "torch")  # on which the last digits of a sum may depend


@dataclass
class Plan:
    """Where a step stands in the run: progress in [0, 1], linear between an anchor and the last step.

    Without a budget the anchor is the start. With one, the plan is drawn anew when the speed turns out otherwise; progress
    goes on from where it was, so schedules stay continuous."""

    total: int
    anchor_step: int = 0
    anchor_progress: float = 0.0

    def progress(self, step: int) -> float:
        if step >= self.total:
            return 1.0
        rest = (step - self.anchor_step) / (self.total - self.anchor_step)
        return self.anchor_progress + (1.0 - self.anchor_progress) * rest

    def replan(self, step: int, total: int) -> None:
        self.anchor_progress, self.anchor_step = self.progress(step), step
        self.total = max(total, step + 1)


@dataclass
class State:
    """What a run is besides tensors: counters, and what they were counted on."""

    step: int = 0
    seconds: float = 0.0  # of training, over all sessions
    skipped: int = 0  # steps with a non-finite loss or gradient
    skipped_in_a_row: int = 0
    low_spread: int = 0  # consecutive checks under LOW_SPREAD
    best_spread: float = 0.0
    plan: Plan | None = None
    meters: list[dict[str, Any]] = field(default_factory=list)  # of each process: sums since the last line of metrics


REQUIRED: dict[str, Any] = {  # keys of state.json
    **dict.fromkeys(("step", "metrics_bytes"), int),
    "fingerprint": str,
    "config": dict,
    "optimizer_numbers": dict[str, float],
    "plan": dict | None,
}
OPTIONAL: dict[str, Any] = {
    **dict.fromkeys(("seconds", "best_spread"), float),
    **dict.fromkeys(("skipped", "skipped_in_a_row", "low_spread"), int),
    "meters": list[dict[str, Any]],
}


def check(saved: dict[str, Any]) -> str | None:
    """What is wrong with the state.json of a checkpoint that a run is to be resumed from, if anything."""
    types = {**REQUIRED, **{k: kind for k, kind in OPTIONAL.items() if k in saved}}
    if wrong := [
        key for key, kind in types.items() if key not in saved or not typecheck.matches_type(saved[key], kind)
    ]:
        return f"state.json: {wrong[0]} is missing or of another type"
    if min(saved[k] for k, kind in types.items() if kind is int) < 0:
        return "state.json: a count is negative"
    if saved["plan"] is not None and not _is_plan(saved["plan"]):
        return "state.json: plan is damaged"
    meters = saved.get("meters", [])
    names = [m["sums"].keys() for m in meters if _is_meter(m)]
    if len(names) < len(meters) or any(n != names[0] for n in names):
        return "state.json: meters is damaged"
    return None


def _is_plan(plan: dict[str, Any]) -> bool:
    types = {"total": int, "anchor_step": int, "anchor_progress": float}
    if plan.keys() != types.keys() or not all(typecheck.matches_type(plan[k], kind) for k, kind in types.items()):
        return False
    return 0 <= plan["anchor_step"] < plan["total"] and 0 <= plan["anchor_progress"] <= 1


def _is_meter(meter: dict[str, Any]) -> bool:
    return (
        meter.keys() == {"sums", "count"}
        and typecheck.matches_type(meter["sums"], dict[str, float])
        and typecheck.matches_type(meter["count"], int)
    )


def split_ema(method: torch.nn.Module, state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Teachers apart, in ema.safetensors."""
    prefixes = tuple(f"{name}." for name, module in method.named_modules() if isinstance(module, Teacher))
    ema = {k: v for k, v in state.items() if prefixes and k.startswith(prefixes)}
    return {"model": {k: v for k, v in state.items() if k not in ema}, "ema": ema}


def identity(job: Job) -> dict[str, Any]:
    """What the bits of a run depend on besides its configuration."""
    return {
        "config": identity_config(job.cfg),
        "fingerprint": job.dataset.fingerprint,
        "threads": job.runtime.threads,
        "device": job.runtime.describe(),
        "torch": torch.__version__,
        "workers": job.runtime.workers,
        "world": job.loader.world_size,
        "strategy": job.cfg["train"]["strategy"],
    }


def restore(job: Job, run: Run, say: Callable[[str], None], other_data: bool = False) -> State:
    """The newest checkpoint that verifies, into the job. Says how exact the continuation is.

    Another configuration is refused with the difference shown, other data too unless `other_data`."""
    folder = run.path / "checkpoints"
    checkpoint.clean(folder)

    def bad(path: Path, reason: str) -> None:
        run.event("bad checkpoint", path=str(path), reason=reason)
        say(f"warning: checkpoint {path.name} does not verify ({reason}); using the one before")

    found = checkpoint.load_newest(folder, bad, check)
    if found is None:
        if run.status.get("status") == "done":
            raise TrainingError(
                f"{run.path} keeps no checkpoint to rebuild its encoder from", "sslcli pretrain starts anew"
            )
        run.cut_metrics(0)
        say("no checkpoint yet: starting at step 0")
        return State()
    tensors, saved = found
    chosen = run.config.get("device", {}).get("threads")
    if (
        job.cfg["device"]["threads"] is None
        and typecheck.matches_type(chosen, int)
        and job.runtime.device.type == "cpu"
    ):
        threads.use(job.runtime, chosen)  # the count that a run with a budget measured as faster
    ours = identity(job)
    changes = []
    if saved["fingerprint"] != ours["fingerprint"]:
        changes.append("other data")
    if saved["fingerprint"] != ours["fingerprint"] and not other_data:
        raise DataError(
            f"the data of {job.dataset.name} is not what this run was trained on (fingerprint {ours['fingerprint'][:12]}, "
            f"was {saved['fingerprint'][:12]})",
            f"put the files back; or go on with other data: {command('resume', run.path)} allow_data_change=true; "
            f"or start a new run from its weights: {command('pretrain', f'init={run.path}')}",
        )
    defaults = {k: v for k, v in identity_config(schema.with_defaults({})).items() if k in ours["config"]}
    written = {k: v for k, v in saved["config"].items() if not is_fact(k)}  # earlier versions recorded these too
    differing = differences({**defaults, **written}, ours["config"])
    moved = [differing.pop(key) for key in LOCATION_KEYS if key in differing]
    if refused := {k: v for k, v in differing.items() if k not in LENGTH_KEYS}:
        raise RequestError(
            f"this is not the run that the checkpoint was written by: {listing(refused.values(), 6)}",
            f"undo that in config.yaml; or start a new run from its weights: {command('pretrain', f'init={run.path}')}",
        )
    changes += differing.values()
    checkpoint.load_strictly(job.method, {**tensors["model"], **tensors.get("ema", {})}, "the checkpoint")
    names = checkpoint.parameter_names(job.method)
    checkpoint.restore_optimizer(job.optimizer, names, tensors.get("optimizer", {}), saved["optimizer_numbers"])
    run.cut_metrics(saved["metrics_bytes"])
    rounding = differences(*({k: v.get(k) for k in ROUNDING} for v in (saved, ours)))
    exact = "same data, different rounding" if rounding else "bit-exact"
    words = "; ".join((f"not comparable: {listing(changes)}" if changes else exact, *rounding.values(), *moved))
    say(f"resuming at step {saved['step']:,} ({words})")
    # A run that was made longer follows the schedule that it would have had.
    plan = Plan(**saved["plan"]) if saved["plan"] and not any(k in LENGTH_KEYS for k in differing) else None
    counters = {f.name: saved[f.name] for f in fields(State) if f.name != "plan" and f.name in saved}
    return State(**counters, plan=plan)


def differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """`key -> "key was A, is B"` for each that is not the same. What was hidden as a secret is not compared."""
    keys = [*before, *(k for k in now if k not in before)]
    gone = "not there"
    return {
        k: f"{k} was {before.get(k, gone)}, is {now.get(k, gone)}"
        for k in keys
        if before.get(k, gone) != now.get(k, gone) and HIDDEN not in f"{before.get(k)} {now.get(k)}"
    }
