"""Which keys may change when a run is resumed, and what is reported about the continuation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from sslcli.runs.find import find
from sslcli.runs.run import Run
from tests.conftest import SMOKE, killed_when_saved

RUN = [*SMOKE, "train.save_every=1", "train.eval_every=0"]


@pytest.fixture
def interrupted_run(cli) -> Path:
    """A run of 4 steps, killed after 2."""
    with killed_when_saved(2):
        cli("pretrain", *RUN)
    (run,) = Path("runs").glob("2*")
    return run


def test_execution_keys_may_change_on_resume(cli, interrupted_run):
    done = cli("resume", "latest", "train.save_every=5m", "device.workers=0", "train.keep=1", "logger.log_every=1")
    assert done.code == 0, done.err
    assert "resuming at step 2 (bit-exact)" in done.err
    assert yaml.safe_load((interrupted_run / "config.yaml").read_text())["train"]["save_every"] == 1  # not saved


def test_changed_precision_is_reported_on_resume(cli, interrupted_run):
    done = cli("resume", "latest", "device.precision=bf16")
    assert done.code == 0, done.err
    assert "same data, different rounding; device was cpu (1 threads), fp32" in done.err


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("optimizer.lr=1", "`optimizer.lr` cannot change when resuming", "train.eval_every=0 optimizer.lr=1"),
        ("method=byol", "`method` cannot change when resuming", "sslcli pretrain init=latest experiment=smoke"),
        ("device.worker=0", "no key `device.worker`", "device.workers"),
        ("device.precision=fp8", "device.precision: expected one of", "bf16"),
        ("train.save_every=soon", "train.save_every", "20m"),
        ("train.epochs=-1", "train.epochs: expected", ""),
        ("allow_data_change=maybe", "allow_data_change=maybe", ""),
    ],
)
def test_other_keys_are_rejected_on_resume(cli, interrupted_run, word, message, hint):
    refused = cli("resume", "latest", word)
    assert refused.code == 2
    assert message in refused.err
    assert hint in refused.err


def test_run_can_be_extended_before_and_after_its_end(cli, interrupted_run):
    longer = cli("resume", "latest", "train.steps=6")
    assert longer.code == 0, longer.err
    assert "not comparable: train.steps was 4, is 6" in longer.err
    assert json.loads((interrupted_run / "status.json").read_text())["step"] == 6
    again = cli("resume", "latest")
    assert "is done (step 6)" in again.err
    epochs = cli("resume", "latest", "train.epochs=1")
    assert epochs.code == 0, epochs.err
    assert "train.epochs was None, is 1" in epochs.err
    assert json.loads((interrupted_run / "status.json").read_text())["step"] == 44
    assert [m["step"] for m in map(json.loads, (interrupted_run / "metrics.jsonl").read_text().splitlines())][-1] == 44


def test_changed_data_is_rejected_unless_allowed(cli, tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.npz"
    np.savez(path, x=rng.normal(size=(40, 2, 32)).astype(np.float32))
    words = ["dataset=series", f"dataset.path={path}", *SMOKE[:-1], "train.batch_size=16", "train.eval_every=0"]
    assert cli("pretrain", *words).code == 0
    np.savez(path, x=rng.normal(size=(44, 2, 32)).astype(np.float32))
    refused = cli("resume", "latest", "train.steps=6")
    assert refused.code == 7
    assert "fingerprint" in refused.err
    assert "allow_data_change=true" in refused.err
    done = cli("resume", "latest", "train.steps=6", "allow_data_change=true")
    assert done.code == 0, done.err
    assert "not comparable: other data, train.steps was 4, is 6" in done.err


def test_slurm_time_limit_stops_like_signal(cli, monkeypatch):
    import time

    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 30))
    stopped = cli("pretrain", *RUN, "train.steps=400")
    assert stopped.code == 75, stopped.err
    assert "sslcli resume" in stopped.err
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 3600))
    assert cli("pretrain", *RUN).code == 0


def test_background_checkpoint_is_identical(cli, monkeypatch):
    import time

    from safetensors.torch import load_file

    from sslcli.runs import checkpoint

    original, slow = checkpoint.save, []

    def save(folder, step, *args, **kwargs):
        if slow:
            time.sleep(0.05)  # several steps, so that the weights change before they are written
        return original(folder, step, *args, **kwargs)

    monkeypatch.setattr(checkpoint, "save", save)
    runs = []
    for background in ("false", "true"):
        slow[:] = [1] if background == "true" else []
        result = cli("pretrain", *RUN, "method=byol", "train.keep=9", f"train.save_in_background={background}")
        assert result.code == 0, result.err
        runs.append(Path(result.last))
    steps = [sorted(p.name for p in (r / "checkpoints").glob("step-*")) for r in runs]
    assert steps[0] == steps[1]
    assert len(steps[0]) == 5
    for name in steps[0]:
        for file in ("model", "ema", "optimizer"):
            a, b = (
                load_file(p) if (p := r / "checkpoints" / name / f"{file}.safetensors").exists() else {} for r in runs
            )
            assert a.keys() == b.keys()
            assert all((a[k] == b[k]).all() for k in a), (name, file)


def test_third_background_save_failure_ends_run(cli, monkeypatch):
    from sslcli.errors import StorageError
    from sslcli.runs import checkpoint

    original = checkpoint.save

    def save(folder, step, *args, **kwargs):
        if step in (1, 2, 3):
            raise StorageError("cannot save: No space left on device")
        return original(folder, step, *args, **kwargs)

    monkeypatch.setattr(checkpoint, "save", save)
    result = cli("pretrain", *RUN, "train.steps=8", "train.save_in_background=true")
    assert result.code == 5, result.err
    assert result.err.count("training continues") == 2
    assert "sslcli resume" in result.err


def test_masks_and_dropout_continue_bit_exactly(cli):
    """Text: masks depend on epoch and sample, dropout on the step."""
    from safetensors.torch import load_file

    words = ["method=mlm", *RUN, "backbone.dropout=0.3"]
    whole = Path(cli("pretrain", *words).last)
    with killed_when_saved(2):
        cli("pretrain", *words)
    done = cli("resume", "latest")
    assert done.code == 0, done.err
    assert "resuming at step 2 (bit-exact)" in done.err
    resumed = load_file(Path(done.last) / "encoder.safetensors")
    assert Path(done.last) != whole
    for key, value in load_file(whole / "encoder.safetensors").items():
        assert (resumed[key] == value).all(), key


def test_length_that_is_done_is_rejected(cli):
    with killed_when_saved(6):
        cli("pretrain", *RUN, "train.steps=20")
    run = Run.open(find("latest"))
    before = run.status, run.config, run.metrics
    for word in ("train.steps=5", "train.steps=6"):
        refused = cli("resume", "latest", word)
        assert refused.code == 2, refused.err
        assert f"{word}, and 6 steps of" in refused.err
        assert "train.steps=7 or more continues it" in refused.err
        assert "sslcli eval probe run=" in refused.err
    budget = cli("resume", "latest", "train.budget=0.001s")
    assert (budget.code, "train.budget=0.001s, and" in budget.err) == (2, True), budget.err
    assert (run.status["status"], run.config, run.metrics) == (before[0]["status"], *before[1:])


def test_shorter_length_follows_its_own_schedule(cli):
    with killed_when_saved(6):
        cli("pretrain", *RUN, "train.steps=20")
    shorter = cli("resume", "latest", "train.steps=8")
    assert shorter.code == 0, shorter.err
    assert (
        "train.steps was 20, is 8: the learning rate follows the schedule of the new length from here on" in shorter.err
    )
    run = Run.open(find("latest"))
    assert run.status["step"] == 8
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    changes = [(e["step"], e["changes"]) for e in events if e["event"] == "length changed"]
    assert changes == [(6, ["train.steps was 20, is 8"])]


def test_unfinished_run_is_evaluated_with_a_warning(cli, interrupted_run):
    evaluated = cli("eval", "knn", "run=latest", "device=cpu", "evaluator.baselines=false")
    assert evaluated.code == 0, evaluated.err
    status = json.loads((interrupted_run / "status.json").read_text())["status"]
    assert evaluated.err.count("the run is unfinished (") == 1
    (note,) = (n for n in Run(interrupted_run).evals["knn"]["protocol"]["notes"] if "unfinished" in n)
    assert note.endswith("its weights are of step 2, before the end of its schedule")
    assert "(unfinished: " in cli("runs", "best", "knn.top1").out
    assert status != "done"
    assert cli("resume", "latest").code == 0
    again = cli("eval", "knn", "run=latest", "device=cpu", "evaluator.baselines=false")
    assert "unfinished" not in again.err
    assert "unfinished" not in cli("runs", "best", "knn.top1").out
