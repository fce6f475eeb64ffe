"""Resume from a checkpoint: load the newest valid one, refuse another configuration or other data, report how exact it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from sslcli.config import Config, schema, typecheck
from sslcli.config.checks import parse_duration
from sslcli.console import plural
from sslcli.errors import DataError, RequestError, TrainingError, listing
from sslcli.runs import Record, checkpoint
from sslcli.runs.encoder import PREPROCESSOR
from sslcli.runs.find import restart_command, resume_command
from sslcli.runs.identity import LENGTH_KEYS, LOCATION_KEYS, identity_config, is_fact, with_absent_keys
from sslcli.runs.listing import next_step
from sslcli.runs.redact import HIDDEN
from sslcli.runs.run import Run
from sslcli.training.loop.optimizer_state import parameter_names, restore_optimizer
from sslcli.training.setup import TrainingSetup
from sslcli.training.state import Horizon, State, execution, find_damage

ROUNDING = ("world", "strategy", "threads", "device", "torch")  # on which floating-point rounding may depend


def restore(setup: TrainingSetup, run: Run, say: Callable[[str], None], allow_data_change: bool = False) -> State:
    """Load the newest valid checkpoint into the setup and return its counters; a new `State` where there is none.

    `say` reports whether the continuation is bit-exact. RequestError where the configuration differs, DataError where the data
    differ (unless `allow_data_change`), TrainingError where a finished run has no checkpoint."""
    folder = run.path / "checkpoints"
    checkpoint.clean(folder)

    def skip(path: Path, reason: str) -> None:
        run.event("bad checkpoint", path=str(path), reason=reason)
        say(f"warning: checkpoint {path.name} is not valid ({reason}); using the previous one")

    newest = checkpoint.load_newest(folder, skip, find_damage)
    if newest is None:
        if run.status.get("status") == "done":
            raise TrainingError(
                f"{run.path} has no checkpoint to rebuild its encoder from", "sslcli pretrain starts a new run"
            )
        run.cut_metrics(0)
        say("no checkpoint yet: starting at step 0")
        return State()
    tensors, saved = newest
    use_measured_threads(setup, run)
    now = execution(setup)
    changed_data = saved["fingerprint"] != now["fingerprint"]
    if changed_data and not allow_data_change:
        raise DataError(
            f"the data of {setup.dataset.name} differ from those the run was trained on (fingerprint "
            f"{now['fingerprint'][:12]}, was {saved['fingerprint'][:12]})",
            f"restore the files; or resume with the changed data: {resume_command(run.path, 'allow_data_change=true')}; "
            f"or start a new run from its weights: {restart_command(run.path, run.path)}",
        )
    changed_preprocessor = saved.get("preprocessor", now["preprocessor"]) != now["preprocessor"]
    if changed_preprocessor and not allow_data_change:
        raise DataError(
            f"the samples of {setup.dataset.name} are not converted as those the run was trained on: {PREPROCESSOR}/ of "
            "the run folder differs from the checkpoint's",
            f"restore that folder; or start a new run from its weights: {restart_command(run.path, run.path)}",
        )
    check_length(setup, run, saved)
    changed_keys, moved = changed_configuration(with_absent_keys(saved["config"], setup.cfg), now["config"], run)
    checkpoint.load_strictly(setup.method, {**tensors["model"], **tensors.get("ema", {})}, "the checkpoint")
    names = parameter_names(setup.method)
    restore_optimizer(setup.optimizer, names, tensors.get("optimizer", {}), saved["optimizer_numbers"])
    run.cut_metrics(saved["metrics_bytes"])
    rounding = differences(*({k: v.get(k) for k in ROUNDING} for v in (saved, now)))
    changes = [*(["other data"] if changed_data or changed_preprocessor else []), *changed_keys.values()]
    exactness = "same data, different rounding" if rounding else "bit-exact"
    summary = f"not comparable: {listing(changes)}" if changes else exactness
    say(f"resuming at step {saved['step']:,} ({'; '.join((summary, *rounding.values(), *moved))})")
    if lengths := [text for key, text in changed_keys.items() if key in LENGTH_KEYS]:
        say(f"{listing(lengths)}: the learning rate follows the schedule of the new length from here on")
        run.event("length changed", step=saved["step"], changes=lengths)
    # A run whose length changed follows the schedule of its new length from the first step on.
    horizon = Horizon(**saved["plan"]) if saved["plan"] and not any(k in LENGTH_KEYS for k in changed_keys) else None
    counters = {f.name: saved[f.name] for f in fields(State) if f.name != "plan" and f.name in saved}
    return State(**counters, plan=horizon)


def check_length(setup: TrainingSetup, run: Run, saved: Record) -> None:
    """RequestError where a new length is shorter than what the checkpoint has done, or ends there: nothing would be trained, and
    the schedule would end before its end was reached."""
    before, now = (cfg.get("train") or {} for cfg in (run.config, setup.cfg))
    if all(before.get(key) == now.get(key) for key in ("epochs", "steps", "budget")):
        return
    done, per_epoch = saved["step"], setup.loader.steps_per_epoch
    if now.get("budget") is not None:
        seconds = parse_duration(now["budget"], "train.budget")
        if seconds > saved.get("seconds", 0.0):
            return
        given, longer = f"train.budget={now['budget']}", f"a train.budget of more than {saved.get('seconds', 0.0):.0f}s"
        reached = f"{saved.get('seconds', 0.0):.0f} seconds"
    elif setup.steps is None or setup.steps > done:
        return
    else:
        key = "steps" if now.get("steps") is not None else "epochs"
        given = f"train.{key}={now[key]}" + ("" if key == "steps" else f" is {plural(setup.steps, 'step')}")
        longer = f"train.{key}={done + 1 if key == 'steps' else done // per_epoch + 1} or more"
        reached = plural(done, "step")
    raise RequestError(
        f"{given}, and {reached} of {run.path} are done",
        f"{longer} continues it; to evaluate it as it is: {next_step(run)}",
    )


def use_measured_threads(setup: TrainingSetup, run: Run) -> None:
    """Use the thread count that a run with a budget measured as the fastest, so that rounding stays the same."""
    count = run.config.get("device", {}).get("threads")
    is_free = setup.cfg["device"]["threads"] is None and setup.runtime.device.type == "cpu"
    if is_free and typecheck.matches_type(count, int):
        setup.runtime.set_threads(count)


def changed_configuration(saved: Config, now: Config, run: Run) -> tuple[dict[str, str], list[str]]:
    """The changed keys that set the length of the run, each with its description, and descriptions of moved data.

    RequestError where another key changed."""
    defaults = {k: v for k, v in identity_config(schema.with_defaults({})).items() if k in now}
    recorded = {k: v for k, v in saved.items() if not is_fact(k)}  # earlier versions recorded these too
    changed = differences({**defaults, **recorded}, now)
    moved = [changed.pop(key) for key in LOCATION_KEYS if key in changed]
    if refused := {k: v for k, v in changed.items() if k not in LENGTH_KEYS}:
        raise RequestError(
            f"config.yaml is not the configuration of the checkpoint: {listing(refused.values(), 6)}",
            f"undo that in config.yaml; or start a new run from its weights: {restart_command(run.path, run.path)}",
        )
    return changed, moved


def differences(before: Config, now: Config) -> dict[str, str]:
    """`key -> "key was A, is B"` for each that differs. Values that were hidden as secrets are not compared."""
    keys = [*before, *(k for k in now if k not in before)]
    missing = "missing"
    return {
        k: f"{k} was {before.get(k, missing)}, is {now.get(k, missing)}"
        for k in keys
        if before.get(k, missing) != now.get(k, missing) and HIDDEN not in f"{before.get(k)} {now.get(k)}"
    }
