"""Multi-process runs as a user starts them: one run folder, no remaining processes, and bit-identical resumption.

`whole`, the processes of torchrun and the worker of a user's method are programs. The others are forks of the zygote."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from benchmarks.zygote import VOLATILE, Zygote, until

WORDS = ["pretrain", "experiment=smoke", "device=cpu", "device.threads=1", "train.batch_size=16", "train.eval_every=0"]
WORDS += ["backbone.width=8", "train.steps=6", "train.save_every=1"]
MOCO = [*WORDS, "method=moco_v2"]
TWO = [*MOCO, "train.devices=2"]


def finished(argv: list[str], folder: Path) -> tuple[str, str]:
    """stdout and stderr of an `sslcli` program that succeeds."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("SSLCLI_")} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "sslcli", *argv], cwd=folder, env=env, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@dataclass
class Started:
    """A fork of the zygote that runs `sslcli`."""

    zygote: Zygote
    pid: int
    out: Path
    err: Path

    def finish(self) -> tuple[int, str, str]:
        return self.zygote.wait(self.pid), self.out.read_text(), self.err.read_text()


@pytest.fixture
def start(zygote: Zygote, tmp_path: Path) -> Callable[..., Started]:
    """`start("pretrain", ...)` in `folder`, or the `main` of another module; `forks`: workers are forks too."""
    count = 0

    def start(
        *words: str, folder: Path = tmp_path, forks: bool = True, module: str = "sslcli.cli", **environment: str
    ) -> Started:
        nonlocal count
        count += 1
        out, err = tmp_path / f"out-{count}", tmp_path / f"err-{count}"
        return Started(zygote, zygote.start(list(words), folder, out, err, forks, environment, module), out, err)

    return start


def only_run(folder: Path) -> Path:
    (run,) = (p for p in (folder / "runs").iterdir() if p.is_dir() and not p.is_symlink())
    return run


def until_step(folder: Path, step: int) -> Path:
    """Wait for a checkpoint of `step` or later."""
    until(lambda: list(folder.glob(f"runs/2*/checkpoints/step-*[{step}-9]")), 120)
    return only_run(folder)


def others(pid: int) -> list[int]:
    """The other processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            stat = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat[3]) == pid and stat[0] != "Z" and int(entry.parent.name) != pid:
            found.append(int(entry.parent.name))
    return found


def content(run: Path) -> tuple[dict[str, torch.Tensor], list[dict]]:
    from sslcli.runs import checkpoint
    from sslcli.runs.run import Run

    found = checkpoint.load_newest(run / "checkpoints")
    assert found is not None
    tensors = {f"{file}/{k}": v for file, group in found[0].items() for k, v in group.items()}
    return tensors, [{k: v for k, v in m.items() if k not in VOLATILE} for m in Run(run).metrics]


def same(a: Path, b: Path) -> None:
    (x, m), (y, n) = content(a), content(b)
    assert x.keys() == y.keys()
    assert all(torch.equal(x[k], y[k]) for k in x), [k for k in x if not torch.equal(x[k], y[k])]
    assert m == n


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("whole")
    out, err = finished(TWO, folder)
    assert "2 devices" in err
    assert "Warning" not in err
    assert out.strip() == f"runs/{only_run(folder).name}"
    return only_run(folder)


def test_two_processes_train_and_evaluate_one_run(whole, start, tmp_path):
    lines = content(whole)[1]
    assert json.loads((whole / "status.json").read_text())["status"] == "done"
    code, out, err = start(*MOCO).finish()
    assert code == 0, err
    for ours, one in zip(lines, content(tmp_path / out.strip())[1], strict=True):
        assert ours["train/loss"] == pytest.approx(one["train/loss"], rel=1e-4)  # single precision, two threads' sums
    found = {}
    for devices in (1, 2):
        words = ["eval", "quality", f"run={whole}", "--json", f"train.devices={devices}", "device=cpu"]
        code, out, err = start(*words, folder=whole.parent.parent).finish()
        assert code == 0, err
        found[devices] = json.loads(out)["numbers"]
        for file in (whole / "cache").iterdir():
            file.unlink()
    assert found[1] == pytest.approx(found[2], rel=1e-6)


def test_stopped_processes_resume_bit_identically(whole, start, tmp_path):
    first = start(*TWO)
    run = until_step(tmp_path, 2)
    os.kill(first.pid, signal.SIGTERM)
    code, _, err = first.finish()
    assert code in (75, 0), err
    until(lambda: not others(first.pid), 10)
    if code == 75:
        code, _, err = start("resume", run.name).finish()
        assert code == 0, err
        assert "(bit-exact)" in err
    same(run, whole)


def test_lost_process_ends_run_quickly_and_run_resumes(whole, start, tmp_path):
    first = start(*TWO)
    run = until_step(tmp_path, 1)
    (victim,) = others(first.pid)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    code, _, err = first.finish()
    assert time.monotonic() - began < 20
    assert code == 3, err
    assert "process 1 of 2" in err
    assert "SIGKILL" in err
    assert f"sslcli resume runs/{run.name}" in err
    assert "Traceback" not in err
    assert json.loads((run / "status.json").read_text())["status"] == "failed"
    code, _, err = start("resume", run.name).finish()
    assert code == 0, err
    same(run, whole)


def test_killed_rank0_leaves_no_process_and_run_resumes(whole, start, tmp_path):
    first = start(*TWO, TMPDIR=str(tmp_path))
    run = until_step(tmp_path, 1)
    (folder,) = tmp_path.glob("sslcli-*")  # of their store
    os.kill(first.pid, signal.SIGKILL)
    assert first.finish()[0] == -signal.SIGKILL
    until(lambda: not others(first.pid) and not folder.exists(), 20)
    code, _, err = start("resume", run.name, "train.devices=1").finish()
    assert code == 0, err
    assert "same data, different rounding; world was 2, is 1" in err
    ours, theirs = content(run)[0], content(whole)[0]
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name].double(), value.double(), rtol=1e-3, atol=1e-4)


def test_sharded_run_saves_full_state_and_resumes(start, tmp_path):
    """Steps of 478 samples, 3 an epoch: evaluations after steps 3 and 4."""
    words = [*WORDS, "method=byol", "train.batch_size=478", "train.eval_every=1", "train.steps=4", "train.save_every=3"]
    code, _, err = start(*words, "train.devices=2", "train.strategy=fsdp").finish()
    assert code == 0, err
    run = only_run(tmp_path)
    last = run / "checkpoints" / "step-0000000004"
    state = json.loads((last / "state.json").read_text())
    assert (state["world"], state["strategy"]) == (2, "fsdp")
    assert sum("eval/knn/top1" in m for m in content(run)[1]) == 2
    tensors = content(run)[0]
    for how in (["train.devices=2"], ["train.devices=1", "train.strategy=ddp"]):
        last.rename(run / "checkpoints" / f".trash-{len(how)}")  # back to step 3
        (run / "status.json").write_text(json.dumps({"status": "interrupted", "format": 1}))
        code, _, err = start("resume", run.name, *how).finish()
        assert code == 0, err
        again = content(run)[0]
        assert last.exists()
        if "train.devices=2" in how:
            assert "bit-exact" in err
            assert all(torch.equal(again[k], tensors[k]) for k in tensors)
        else:
            assert "strategy was fsdp, is ddp" in err


def test_worker_error_is_reported_with_its_type(start, tmp_path):
    """The worker, a program of its own, imports the module of the user."""
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "moody.py").write_text(
        "import os\nfrom sslcli.errors import DataError\nfrom sslcli.methods.simsiam import SimSiam\n\n\n"
        "class Moody(SimSiam):\n    def forward(self, batch):\n        if os.environ.get('RANK') == '1':\n"
        "            raise DataError('I do not like this batch', 'give another')\n        return super().forward(batch)\n"
    )
    (tmp_path / "mine" / "method" / "moody.yaml").write_text(
        "# @package _global_\nmethod:\n  _target_: moody.Moody\n  summary: x\n  family: x\n  source: x\n  plan: {global: 2}\n"
    )
    words = [*WORDS, "--config-dir", "mine", "method=moody", "train.devices=2"]
    code, _, err = start(*words, forks=False).finish()
    assert code == 7, err
    assert "process 1 of 2" in err
    assert "I do not like this batch" in err
    assert "give another" in err


def test_torchrun_matches_local_launch(whole, start, tmp_path):
    """Both commands of a pipeline: a training, and an evaluation of its run."""
    words = ["--standalone", "--nproc-per-node=2", "-m", "sslcli", "pipeline", "stages=[quality]", *MOCO[1:]]
    code, out, err = start(*words, module="torch.distributed.run", forks=False).finish()
    assert code == 0, err
    run = only_run(tmp_path)
    assert out.strip().splitlines()[-1] == f"runs/{run.name}"
    same(run, whole)
    assert json.loads((run / "eval" / "quality.json").read_text())["numbers"]["rankme"] > 1


def test_bad_samples_are_counted_over_processes(start, tmp_path):
    """Each process reads half of the damaged files; their total exceeds the limit."""
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for i in range(64):
        Image.new("RGB", (40, 40), (i, 2 * i, 99)).save(tmp_path / "photos" / f"{i:02d}.png")
    for i in range(0, 64, 16):  # 4: more than ceil(5 % of 51), though a process alone may meet fewer
        (tmp_path / "photos" / f"{i:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"broken" * 20)
    words = [*WORDS, "dataset=image_folder", "dataset.path=photos", "dataset.image_size=32", "dataset.resident=false"]
    words += ["device.workers=0", "backbone=convnet", "train.steps=8", "train.save_every=5m", "train.devices=2"]
    words += ["logger.log_every=1"]
    code, _, err = start(*words, "dataset.max_bad_fraction=0.5").finish()
    assert code == 0, err
    events = [json.loads(line) for line in (only_run(tmp_path) / "events.jsonl").read_text().splitlines()]
    met = {e["name"] for e in events if e["event"] == "unreadable"}
    truth = {f"{i:02d}.png" for i in range(0, 64, 16)}
    assert {Path(name).name for name in met} <= truth
    assert len(met) >= 3  # a few may be held out
    code, _, err = start(*words, "dataset.max_bad_fraction=0.03").finish()
    assert code == 7, err
