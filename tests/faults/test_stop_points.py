"""A run that is stopped anywhere and resumed equals the uninterrupted run bit for bit: tensors, counters and metrics.

The folder of an uninterrupted run is copied at each stop point, which is the state after a kill at that time. Each copy is
resumed. 4 steps per epoch, a checkpoint every 3 steps, an evaluation every second epoch, 10 steps.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.zygote import outcome
from sslcli.training.loop import trainer as trainer_module
from sslcli.training.loop.trainer import Meter, Trainer

POINTS = {  # stop point -> step of the checkpoint to resume from
    "before-step-1": 0,
    "after-step-1": 0,
    "saved-mid-epoch-6": 6,
    "in-step-7": 6,
    "epoch-end-8": 6,
    "in-evaluation-8": 6,
    "in-step-9": 6,
    "saved-last-10": 10,
    "in-last-evaluation-10": 10,
}


class Copies:
    """Copies the run folder when its trainer reaches a stop point."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, to: Path):
        self.to, self.micro = to, 0
        self.trainer: Trainer | None = None
        for owner, name, hook in (
            (Trainer, "step", self.step),
            (Trainer, "log", self.log),
            (Trainer, "save", self.save),
            (Meter, "add", self.add),
            (trainer_module, "evaluate_online", self.online),
        ):
            original = getattr(owner, name)
            monkeypatch.setattr(owner, name, lambda *a, hook=hook, original=original, **k: hook(original, *a, **k))

    def copy(self, name: str) -> None:
        if name in POINTS and not (self.to / name).exists():
            assert self.trainer is not None
            shutil.copytree(self.trainer.run.path, self.to / name)

    def step(self, original, trainer, *args):
        self.trainer, self.micro = trainer, 0
        original(trainer, *args)
        self.copy(f"after-step-{trainer.state.step + 1}")

    def add(self, original, meter, *args):
        original(meter, *args)
        self.copy(f"in-step-{self.trainer.state.step + 1}")  # with accumulation: between two micro-batches

    def log(self, original, trainer, *args):
        shown = original(trainer, *args)
        self.copy(f"epoch-end-{trainer.state.step}")
        return shown

    def save(self, original, trainer, *args, **named):
        self.trainer = trainer
        original(trainer, *args, **named)
        step = trainer.state.step
        self.copy("before-step-1" if step == 0 else f"saved-{'last' if step == 10 else 'mid-epoch'}-{step}")

    def online(self, original, *args):
        step = self.trainer.state.step
        self.copy(f"in-{'last-' if step == 10 else ''}evaluation-{step}")
        return original(*args)


@pytest.mark.parametrize(
    ("workers", "accumulate", "method"), [(0, 1, "byol"), (0, 2, "moco_v2"), (2, 1, "mae"), (2, 2, "simsiam")]
)
def test_stopped_run_equals_uninterrupted_run(cli, monkeypatch, tmp_path, photos, workers, accumulate, method):
    small = ["backbone=vit_micro", "backbone.depth=1"] if method == "mae" else ["backbone=convnet", "backbone.width=4"]
    words = [
        f"method={method}",
        *small,
        "dataset=image_folder",
        f"dataset.path={photos}",
        "dataset.resident=false",
        "device=cpu",
        "device.threads=1",
        f"device.workers={workers}",
        "train.epochs=null",
        "train.steps=10",
        "train.batch_size=8",
        f"train.accumulate={accumulate}",
        "train.save_every=3",
        "train.eval_every=2",
        "logger.log_every=3",
    ]
    with monkeypatch.context() as patch:
        Copies(patch, tmp_path / "copies")
        first = cli("pretrain", *words)
        assert first.code == 0, first.err
    whole = outcome(Path(first.last))
    assert [line["step"] for line in whole["metrics"] if "eval/spread" in line] == [8, 10]
    copies = {p.name: p for p in (tmp_path / "copies").iterdir()}
    assert copies.keys() == POINTS.keys()
    for point, step in POINTS.items():
        resumed = cli("resume", str(copies[point]))
        assert resumed.code == 0, resumed.err
        assert f"resuming at step {step} (bit-exact)" in resumed.err, point
        assert outcome(copies[point]) == whole, point
    assert "nothing to resume" in cli("resume", str(copies[point])).err


def test_evaluation_delayed_by_signal_runs_on_resume(cli, monkeypatch):
    """A signal in the last step of an epoch saves and stops; resuming starts with the evaluation."""
    import os
    import signal

    words = ["dataset=digits", "backbone.width=4", "device=cpu", "device.threads=1", "train.batch_size=478"]
    words += ["train.steps=5", "train.eval_every=1"]  # 3 steps an epoch
    whole = cli("pretrain", *words)
    original = Trainer.step

    def step(self, *args):
        if self.state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        stopped = cli("pretrain", *words)
    assert stopped.code == 75
    assert "at step 3; saved" in stopped.err
    resumed = cli("resume", "latest")
    assert resumed.code == 0, resumed.err
    assert outcome(Path(resumed.last)) == outcome(Path(whole.last))
