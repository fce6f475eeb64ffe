"""The training loop: horizon, non-finite steps, collapse, budget, locks, and checks on resume."""

from __future__ import annotations

import json
from pathlib import Path

from sslcli.errors import RunInUseError, TrainingError
from sslcli.runs import checkpoint
from sslcli.runs.run import Run
from sslcli.training.state import Horizon
from tests.conftest import SMOKE, killed_when_saved


def test_progress_is_continuous_when_horizon_moves():
    horizon = Horizon(100)
    assert [horizon.progress(s) for s in (0, 50, 100)] == [0.0, 0.5, 1.0]
    horizon.move(50, 150)
    assert horizon.progress(50) == 0.5
    assert horizon.progress(100) == 0.75
    assert horizon.progress(150) == 1.0
    horizon.move(60, 10)  # never before the current step
    assert horizon.total == 61


def test_resume_rejects_changed_data_and_config(cli):
    with killed_when_saved(1):
        cli("pretrain", *SMOKE, "train.save_every=1")
    (run,) = Path("runs").glob("2*")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("holdout: 0.2", "holdout: 0.3"))
    refused = cli("resume", "latest")
    assert refused.code == 7
    assert "fingerprint" in refused.err
    (run / "config.yaml").write_text(text.replace("weight_decay: ", "weight_decay: 1"))
    refused = cli("resume", "latest")
    assert refused.code == 2
    assert "optimizer.weight_decay was" in refused.err
    (run / "config.yaml").write_text(text)
    newest = checkpoint.existing(run / "checkpoints")[0]
    (newest / "model.safetensors").write_bytes(b"truncated")
    resumed = cli("resume", "latest")
    assert resumed.code == 0, resumed.err
    assert "is not valid" in resumed.err
    assert "resuming at step 0" in resumed.err


def test_run_lock_excludes_other_processes(tmp_path):
    import os

    run = Run.create(tmp_path / "r", {"a": 1, "logger": {"token": "abc"}})
    assert "abc" not in (tmp_path / "r" / "config.yaml").read_text()
    child = os.fork()
    if child == 0:
        try:
            Run(tmp_path / "r").lock()
        except RunInUseError as e:
            os._exit(e.code if f"pid {os.getppid()}" in e.message else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
    run.close()


def test_nonfinite_steps_are_skipped_then_end_run(cli):
    result = cli("pretrain", *SMOKE, "train.steps=30", "optimizer.lr=1e30", "schedule=constant")
    assert result.code == 4
    assert "is not finite at step" in result.err
    assert "optimizer.lr=" in result.err.partition("hint:")[2]
    (run,) = Path("runs").glob("2*")
    assert json.loads((run / "status.json").read_text())["status"] == "failed"
    assert checkpoint.load_newest(run / "checkpoints") is not None  # the last valid one remains


def test_collapse_is_reported(cli):
    """Attracting two views without predictor and stop-gradient collapses the embeddings, which must be reported."""
    mine = Path("mine/method")
    mine.mkdir(parents=True)
    Path("mine/collapsing.py").write_text(
        "import torch\nfrom sslcli.methods.base import Method\nfrom sslcli.nn.stats import spread\n\n\n"
        "class Collapsing(Method):\n"
        "    def forward(self, batch):\n"
        "        a, b = (self.backbone(v) for v in batch.views)\n"
        "        pull = (a - a.mean(0)).square().mean() + (b - b.mean(0)).square().mean()\n"
        "        return {'loss': pull + (a.mean() - 1).square(), 'spread': spread(a) * 0.0 + spread(a)}\n"
    )
    (mine / "collapsing.yaml").write_text(
        "# @package _global_\nmethod:\n  _target_: collapsing.Collapsing\n  summary: x\n  family: x\n  source: x\n"
        "  plan: {global: 2}\n"
    )
    words = [
        "--config-dir",
        "mine",
        "method=collapsing",
        *SMOKE,
        "train.steps=300",
        "optimizer.lr=0.5",
        "logger.log_every=10",
    ]
    warned = cli("pretrain", *words)
    assert "the embeddings are collapsing" in warned.err, warned.err[-500:]
    stopped = cli("pretrain", *words, "train.on_collapse=stop")
    assert stopped.code == 4
    assert "the embeddings are collapsing" in stopped.err


def test_healthy_run_reports_no_collapse(cli):
    result = cli("pretrain", *SMOKE, "train.steps=44")
    assert "collapsing" not in result.err


def test_run_keeps_time_budget(cli):
    result = cli("pretrain", *SMOKE[1:], "train.budget=6s", "train.batch_size=64", "train.eval_every=0")
    assert result.code == 0, result.err
    status = json.loads((Path(result.last) / "status.json").read_text())
    assert (
        4.5 < status["seconds"] < 8.5
    )  # loose, since other processes share the machine: it must neither continue nor stop immediately
    last = Run(Path(result.last)).metrics[-1]
    assert last["train/progress"] == 1.0


def test_status_of_failed_run_has_reason(cli):
    result = cli("pretrain", *SMOKE, "train.steps=20", "optimizer.lr=1e30")
    assert result.code == TrainingError.code
    (run,) = Path("runs").glob("2*")
    assert "not finite" in json.loads((run / "status.json").read_text())["error"]
