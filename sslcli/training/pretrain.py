"""Pretraining and resuming: create or lock the run folder, train, write what the run produced."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sslcli import console
from sslcli.builders import load_dataset
from sslcli.config import Config, instantiate
from sslcli.data.preprocess import preprocessor_of
from sslcli.data.record import DataRecord, describe_dataset, read_record
from sslcli.formats.named_encoders import save_named_encoders
from sslcli.runs import Record, loggers
from sslcli.runs.encoder import has_encoder, write_preprocessor
from sslcli.runs.files import replace_file
from sslcli.runs.find import all_runs
from sslcli.runs.identity import config_hash, has_configuration, has_hash
from sslcli.runs.listing import next_step
from sslcli.runs.run import Run
from sslcli.runtime.folders import shorten
from sslcli.training.method_images import save_method_images
from sslcli.training.restore import restore
from sslcli.training.run_training import run_training
from sslcli.training.setup import TrainingSetup, prepare
from sslcli.training.start_screen import start_screen
from sslcli.training.state import State


def pretrain(
    setup: TrainingSetup,
    path: Path,
    auto: bool = False,
    hydra_files: dict[str, str] | None = None,
    numbered: bool = False,
) -> Run:
    """Train what `prepare` built.

    Args:
        path: Where the new run folder is created.
        auto: Whether to resume the newest run of the same configuration and data, if there is one.
        hydra_files: Content of the files of `.hydra/` by name, saved with a new run.
        numbered: Whether a number is appended to `path` where it is a run already. RequestError otherwise.

    Returns:
        The finished run.
    """
    if auto and (run := find_matching_run(setup)) is not None:
        resume(run, setup=setup, catch_signals=setup.catch_signals)
        return run
    run = Run.create(path, setup.cfg, numbered=numbered)
    try:
        if hydra_files:
            run.make_folder(".hydra")
            for name, text in hydra_files.items():
                replace_file(run.path, f".hydra/{name}", text)
        save_inputs(setup, run)
        run.set_status(**identity_status(setup))
        train(setup, run, None)
    finally:
        run.close()
    return run


def resume(
    run: Run,
    cfg: Config | None = None,
    *,
    setup: TrainingSetup | None = None,
    allow_data_change: bool = False,
    extend: bool = False,
    data_path: str | None = None,
    catch_signals: bool = True,
) -> None:
    """Continue a run in its folder from its last checkpoint. A finished run stays as it is, unless it is extended.

    Args:
        cfg: The configuration, where keys changed that do not affect what is computed; None for that of the run.
        setup: What `prepare` built, where that was done before.
        allow_data_change: Whether the data may differ from those of the run.
        extend: Whether the length of the run changed.
        data_path: The new path of the data, where they were moved.
        catch_signals: Whether training handles signals.

    RunInUseError where another process trains the run.
    """
    record = read_record(run, data_path, allow_data_change)
    if run.status.get("status") == "done" and not extend and has_encoder(run.path):
        if data_path is not None:
            save_data_path(run, record)
        console.say(f"{run.path} is done (step {run.status.get('step', 0):,}); nothing to resume")
        console.say(f"next  {next_step(run)}")
        return
    run.lock()
    try:
        setup = setup or prepare(cfg or run.config, record=record)
        setup.catch_signals = catch_signals
        state = restore(setup, run, console.say, allow_data_change)
        if (
            extend or data_path is not None or config_hash(run.config) != setup.config_hash
        ):  # absent keys of earlier versions
            run.write_config(setup.cfg)
        save_inputs(setup, run)
        run.event("resumed", step=state.step, pid=os.getpid())
        run.set_status("running", pid=os.getpid(), host=socket.gethostname(), error=None, **identity_status(setup))
        train(setup, run, state)
    finally:
        run.close()


def save_data_path(run: Run, record: DataRecord | None) -> None:
    """Record the new path of a finished run's data in its status. DataError where they are not its data."""
    run.lock()
    try:
        dataset = load_dataset(run.config, record)
        write_preprocessor(run.path, preprocessor_of(dataset).files())
        run.set_status(data=describe_dataset(dataset))
    finally:
        run.close()
    console.say(f"the data of {run.path} are at {dataset.path} now")


def identity_status(setup: TrainingSetup) -> Record:
    """What `resume=auto` and every reader of the run's data compare, and the folders of the user's code."""
    return {
        "config_hash": setup.config_hash,
        "fingerprint": setup.dataset.fingerprint,
        "data": describe_dataset(setup.dataset),
        **({"config_dirs": folders} if (folders := instantiate.trusted_folders()) else {}),
    }


def save_inputs(setup: TrainingSetup, run: Run) -> None:
    """Write preprocessor/, before the status names its hash, and copies of the encoders that the method names."""
    write_preprocessor(run.path, preprocessor_of(setup.dataset).files())
    save_named_encoders(setup.cfg["method"], setup.dataset, run)


def find_matching_run(setup: TrainingSetup) -> Run | None:
    """The newest run of the same configuration on the same data, also one of a sweep; None where there is none.

    Where no run has its hash, also runs of earlier versions, whose configuration lacks keys that have their default now."""
    values = identity_status(setup)
    known = [Run(path) for path in reversed(all_runs())]
    same = [run for run in known if has_hash(run, values["config_hash"])]
    match = next((r for r in same if r.status.get("fingerprint") == values["fingerprint"]), None)
    if match is None:
        others = (r for r in known if r.status.get("fingerprint") == values["fingerprint"])
        match = next((r for r in others if has_configuration(r, setup.cfg)), None)
    if match is not None:
        return Run.open(shorten(match.path))
    if same:
        console.say(f"{same[0].path} has this configuration but other data: starting a new run")
    return None


def train(setup: TrainingSetup, run: Run, state: State | None) -> None:
    """Train from `state` (None: from the start) to the end, between the start screen and the end screen."""
    rows = start_screen(setup, run.path)
    console.rows(rows)
    for key, value in rows:
        run.write_log(f"{key}: {value}")
    with loggers.attached(run, setup.cfg["logger"], setup.cfg, state.step if state else 0):
        state = run_training(setup, run, state)
    save_method_images(setup, run)
    step = run.status.get("step", 0)
    console.say(f"saved {run.path}/encoder.safetensors (step {step:,}, {console.human_time(state.seconds)})")
    console.say(f"next  {next_step(run)}")
