"""The state of a run besides its tensors: counters, the horizon, and the content of state.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sslcli.config import typecheck
from sslcli.data.preprocess import preprocessor_of
from sslcli.nn.ema import Teacher
from sslcli.runs import Record
from sslcli.runs.identity import identity_config
from sslcli.training.setup import TrainingSetup


@dataclass
class Horizon:
    """The last step of a run and its progress in [0, 1], linear between an anchor and the last step.

    Without a budget the anchor is the start. With one, the last step moves when the speed changes; progress continues from its
    value there, so schedules stay continuous."""

    total: int  # steps
    anchor_step: int = 0
    anchor_progress: float = 0.0

    def progress(self, step: int) -> float:
        if step >= self.total:
            return 1.0
        share = (step - self.anchor_step) / (self.total - self.anchor_step)
        return self.anchor_progress + (1.0 - self.anchor_progress) * share

    def move(self, step: int, total: int) -> None:
        """Move the last step to `total`, from `step` on."""
        self.anchor_progress, self.anchor_step = self.progress(step), step
        self.total = max(total, step + 1)


@dataclass
class State:
    """Counters of a run. The names are keys of state.json."""

    step: int = 0
    seconds: float = 0.0  # of training, over all sessions
    skipped: int = 0  # steps with a non-finite loss or gradient
    skipped_in_a_row: int = 0
    low_spread: int = 0  # consecutive checks with a low spread
    best_spread: float = 0.0
    plan: Horizon | None = None
    meters: list[Record] = field(default_factory=list)  # of each process: sums since the last line of metrics


REQUIRED: dict[str, Any] = {  # keys of state.json and their types
    **dict.fromkeys(("step", "metrics_bytes"), int),
    "fingerprint": str,
    "config": dict,
    "optimizer_numbers": dict[str, float],
    "plan": dict | None,
}
OPTIONAL: dict[str, Any] = {
    **dict.fromkeys(("seconds", "best_spread"), float),
    "preprocessor": str,
    **dict.fromkeys(("skipped", "skipped_in_a_row", "low_spread"), int),
    "meters": list[dict[str, Any]],
}


def find_damage(saved: Record) -> str | None:
    """What makes the state.json of a checkpoint unusable for resuming; None where it is valid."""
    types = {**REQUIRED, **{k: kind for k, kind in OPTIONAL.items() if k in saved}}
    for key, kind in types.items():
        if key not in saved or not typecheck.matches_type(saved[key], kind):
            return f"state.json: {key} is missing or of another type"
    if min(saved[k] for k, kind in types.items() if kind is int) < 0:
        return "state.json: a count is negative"
    plan = saved["plan"]
    if plan is not None and not (_is_horizon(plan) and (plan["total"] > 0 or saved["step"] == 0)):
        return "state.json: plan is damaged"
    meters = saved.get("meters", [])
    names = [m["sums"].keys() for m in meters if _is_meter(m)]
    if len(names) < len(meters) or any(n != names[0] for n in names):
        return "state.json: meters is damaged"
    return None


def _is_horizon(plan: Record) -> bool:
    types = {"total": int, "anchor_step": int, "anchor_progress": float}
    if plan.keys() != types.keys() or not all(typecheck.matches_type(plan[k], kind) for k, kind in types.items()):
        return False
    return 0 <= plan["anchor_step"] <= max(0, plan["total"] - 1) and 0 <= plan["anchor_progress"] <= 1


def _is_meter(meter: Record) -> bool:
    return (
        meter.keys() == {"sums", "count"}
        and typecheck.matches_type(meter["sums"], dict[str, float])
        and typecheck.matches_type(meter["count"], int)
    )


def split_ema(method: torch.nn.Module, state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A state dict as the files of a checkpoint: EMA teachers in ema.safetensors, all else in model.safetensors."""
    prefixes = tuple(f"{name}." for name, module in method.named_modules() if isinstance(module, Teacher))
    ema = {k: v for k, v in state.items() if prefixes and k.startswith(prefixes)}
    return {"model": {k: v for k, v in state.items() if k not in ema}, "ema": ema}


def execution(setup: TrainingSetup) -> Record:
    """What a run computes and on what: its weights are bit-identical where all of this is equal."""
    return {
        "config": identity_config(setup.cfg),
        "fingerprint": setup.dataset.fingerprint,
        "preprocessor": preprocessor_of(setup.dataset).sha256,
        "threads": setup.runtime.threads,
        "device": setup.runtime.describe(),
        "torch": torch.__version__,
        "workers": setup.runtime.workers,
        "world": setup.loader.world_size,
        "strategy": setup.cfg["train"]["strategy"],
    }
