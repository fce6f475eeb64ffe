"""Multi-process runs: results equal to one process, one run folder, and no remaining processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sslcli.config import compose, registry
from sslcli.runtime import processes
from sslcli.training.configuration import resolve
from tests.runtime import training_worker

METHODS = sorted(registry.choices("method"))
TINY = ["experiment=smoke", "device=cpu", "device.threads=1", "train.batch_size=16", "train.eval_every=0"]


def composed(folder: Path, method: str, *words: str) -> dict:
    node = registry.describe(registry.choices("method")[method], "method")
    needs = node.get("needs", [])
    size = [] if "positions" in node.get("requires", []) else ["backbone.width=8"]
    if "a trained run" in needs:
        size.append(f"method.teacher={folder / 'teacher'}")
    if method == "colorization":  # digits are grey
        size += ["dataset=arrays", f"dataset.path={folder / 'coloured.npz'}", "backbone=convnet", "augmentation=weak"]
    if "columns" in node.get("requires", []):
        size.append("dataset=wine")
    if "vocabulary" in node.get("requires", []):  # masks of dropout depend on the process: none, or hardly any
        rate = 1e-12 if method == "simcse" else 0.0
        size += ["backbone.width=16", "backbone.depth=2", "backbone.heads=2", f"backbone.dropout={rate}"]
        size += ["method.dropout=0.0"] if "dropout" in node else []
    return resolve(compose.compose("pretrain", [f"method={method}", *TINY, *size, *words]))


def prepared(folder: Path) -> None:
    """Write what some methods require: color images, and a trained run as teacher."""
    import numpy as np

    from sslcli.training.pretrain import pretrain
    from sslcli.training.setup import prepare

    rng = np.random.default_rng(0)
    np.savez(folder / "coloured.npz", x=rng.integers(0, 255, (64, 3, 8, 8), dtype=np.uint8), y=np.arange(64) % 4)
    pretrain(prepare(composed(folder, "simsiam", "train.steps=1")), folder / "teacher")


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[int, dict[str, dict[str, torch.Tensor]]]:
    """Results of one and two processes: {1: {method: tensors}, 2: ...}; some with accumulation."""
    folder, found = tmp_path_factory.mktemp("team"), {}
    prepared(folder)
    for world_size in (1, 2):
        cfgs = {m: composed(folder, m, f"train.devices={world_size}") for m in METHODS}
        for method in ("byol", "mae"):
            words = [f"train.devices={world_size}", *(["train.strategy=fsdp"] if world_size > 1 else [])]
            words += ["optimizer=adamw", "optimizer.lr=1e-3"] if method == "byol" else []
            cfgs[f"{method}, sharded"] = composed(folder, method, *words)
        cfgs["simsiam in portions"] = composed(folder, "simsiam", f"train.devices={world_size}", "train.accumulate=2")
        payload = {"cfgs": cfgs, "out": str(folder / f"{world_size}.pt")}
        place = processes.ProcessInfo(0, world_size, 0, world_size)
        threads = torch.get_num_threads()
        with processes.launch(place, torch.device("cpu"), payload, training_worker.work):
            training_worker.work(payload)
        torch.set_num_threads(threads)
        found[world_size] = torch.load(payload["out"], weights_only=True)
    return found


@pytest.mark.parametrize("method", [*METHODS, "simsiam in portions", "byol, sharded", "mae, sharded"])
def test_two_processes_match_one(both, method):
    """Loss, gradient, one optimizer step, and weights, teachers, queues and statistics after a second."""
    one, two = both[1][method], both[2][method]
    assert one.keys() == two.keys()
    assert any("gradient" in k and v.abs().sum() > 0 for k, v in one.items())
    for name, value in one.items():
        tolerance = {"rtol": 1e-12, "atol": 1e-12} if not name.startswith("after") else {"rtol": 1e-9, "atol": 1e-10}
        torch.testing.assert_close(two[name], value, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


def test_views_independent_of_rank():
    """1, 2 and 4 processes: the same samples with the same pixels, in the same order, in every epoch."""
    from sslcli.data.loading.loader import Loader
    from sslcli.training.setup import prepare

    job = prepare(composed(Path(), "simclr", "train.batch_size=64", "train.accumulate=2"))

    def steps(world_size: int) -> list[torch.Tensor]:
        own = [
            Loader(
                job.loader.source, job.views, batch_size=64, seed=0, accumulate=2, rank=r, world_size=world_size
            ).stream(20)
            for r in range(world_size)
        ]
        found = []
        for _ in range(2 * 5):  # micro-batches; step 22 begins another epoch
            parts = [next(s) for s in own]
            found.append(torch.cat([p.ids for p in parts]))
            found += [torch.cat([p.views[v] for p in parts]) for v in range(2)]
        return found

    one = steps(1)
    for world_size in (2, 4):
        assert all(torch.equal(a, b) for a, b in zip(one, steps(world_size), strict=True))


# ----------------------------------------------------------------------------------------------------- as a user sees it

WORDS = ["pretrain", *TINY, "backbone.width=8", "train.steps=6", "train.save_every=1"]
SSLCLI = [sys.executable, "-m", "sslcli"]


def start(folder: Path, *words: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SSLCLI_")} | {"OMP_NUM_THREADS": "1"}
    argv = [*(launcher or SSLCLI), *words]
    return subprocess.Popen(
        argv, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def only_run(folder: Path) -> Path:
    (run,) = (p for p in (folder / "runs").iterdir() if p.is_dir() and not p.is_symlink())
    return run


def until_step(folder: Path, step: int) -> Path:
    """Wait for a checkpoint of `step` or later."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        found = sorted(folder.glob("runs/2*/checkpoints/step-*"))
        if found and int(found[-1].name[5:]) >= step:
            return only_run(folder)
        time.sleep(0.02)
    raise AssertionError("no checkpoint")


def children(pid: int) -> list[int]:
    """Processes of a session: those that were started, and their children."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(stat[3]) == pid and stat[0] != "Z" and int(entry.name) != pid:
                found.append(int(entry.name))
    return found


def followers(pid: int) -> list[int]:
    return [c for c in children(pid) if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]


def content(run: Path) -> tuple[dict[str, torch.Tensor], list[dict]]:
    from sslcli.runs import checkpoint
    from sslcli.runs.run import Run

    found = checkpoint.load_newest(run / "checkpoints")
    assert found is not None
    tensors = {f"{file}/{k}": v for file, group in found[0].items() for k, v in group.items()}
    volatile = ("seconds", "train/samples_per_s", "train/data_wait")
    return tensors, [{k: v for k, v in m.items() if k not in volatile} for m in Run(run).metrics]


def same(a: Path, b: Path) -> None:
    (x, m), (y, n) = content(a), content(b)
    assert x.keys() == y.keys()
    assert all(torch.equal(x[k], y[k]) for k in x), [k for k in x if not torch.equal(x[k], y[k])]
    assert m == n


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("whole")
    code, out, err = finish(start(folder, *WORDS, "method=moco_v2", "train.devices=2"))
    assert code == 0, err
    assert "2 devices" in err
    assert "Warning" not in err
    assert out.strip() == f"runs/{only_run(folder).name}"
    return only_run(folder)


def test_two_processes_train_and_evaluate_one_run(whole):
    lines = content(whole)[1]
    assert json.loads((whole / "status.json").read_text())["status"] == "done"
    alone = finish(start(whole.parent.parent, *WORDS, "method=moco_v2"))
    run = whole.parent / Path(alone[1].strip()).name
    for ours, one in zip(lines, content(run)[1], strict=True):
        assert ours["train/loss"] == pytest.approx(one["train/loss"], rel=1e-4)  # single precision, two threads' sums
    found = {}
    for devices in (1, 2):
        words = ["eval", "quality", f"run={whole}", "--json", f"train.devices={devices}", "device=cpu"]
        code, out, err = finish(start(whole.parent.parent, *words))
        assert code == 0, err
        found[devices] = json.loads(out)["numbers"]
        for file in (whole / "cache").iterdir():
            file.unlink()
    assert found[1] == pytest.approx(found[2], rel=1e-6)


def test_stopped_processes_resume_bit_identically(whole, tmp_path):
    process = start(tmp_path, *WORDS, "method=moco_v2", "train.devices=2")
    run = until_step(tmp_path, 2)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code in (75, 0), err
    until = time.monotonic() + 10
    while children(process.pid) and time.monotonic() < until:  # Python's resource tracker ends just after its parent
        time.sleep(0.1)
    assert children(process.pid) == []
    if code == 75:
        code, _, err = finish(start(tmp_path, "resume", run.name))
        assert code == 0, err
        assert "(bit-exact)" in err
    same(run, whole)


def test_lost_process_ends_run_quickly_and_run_resumes(whole, tmp_path):
    process = start(tmp_path, *WORDS, "method=moco_v2", "train.devices=2")
    run = until_step(tmp_path, 1)
    (victim,) = followers(process.pid)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    code, _, err = finish(process)
    assert time.monotonic() - began < 20
    assert code == 3, err
    assert "process 1 of 2" in err
    assert "SIGKILL" in err
    assert "Traceback" not in err
    assert json.loads((run / "status.json").read_text())["status"] == "failed"
    code, _, err = finish(start(tmp_path, "resume", run.name))
    assert code == 0, err
    same(run, whole)


def test_killed_rank0_leaves_no_process_and_run_resumes(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = start(tmp_path, *WORDS, "method=moco_v2", "train.devices=2")
    run = until_step(tmp_path, 1)
    process.kill()
    process.communicate()
    until = time.monotonic() + 20
    while (children(process.pid) or list(tmp_path.glob("sslcli-*"))) and time.monotonic() < until:
        time.sleep(0.1)  # the processes, and the folder of their store
    assert children(process.pid) == []
    assert list(tmp_path.glob("sslcli-*")) == []
    code, _, err = finish(start(tmp_path, "resume", run.name, "train.devices=1"))
    assert code == 0, err
    assert "same data, different rounding; world was 2, is 1" in err
    ours, theirs = content(run)[0], content(whole)[0]
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name].double(), value.double(), rtol=1e-3, atol=1e-4)


def test_sharded_run_saves_full_state_and_resumes(tmp_path):
    words = [w for w in WORDS if "eval_every" not in w] + ["method=byol", "train.eval_every=1", "train.steps=90"]
    code, _, err = finish(start(tmp_path, *words, "train.save_every=89", "train.devices=2", "train.strategy=fsdp"))
    assert code == 0, err
    run = only_run(tmp_path)
    state = json.loads(next(iter(run.glob("checkpoints/step-*90/state.json"))).read_text())
    assert (state["world"], state["strategy"]) == (2, "fsdp")
    assert sum("eval/knn/top1" in m for m in content(run)[1]) == 2
    tensors = content(run)[0]
    for step in run.glob("checkpoints/step-*90"):
        step.rename(run / "checkpoints" / ".trash-last")  # back to step 89
    for how in (["train.devices=2"], ["train.devices=1", "train.strategy=ddp"]):
        (run / "status.json").write_text(json.dumps({"status": "interrupted", "format": 1}))
        code, _, err = finish(start(tmp_path, "resume", run.name, *how))
        assert code == 0, err
        again = content(run)[0]
        if "train.devices=2" in how:
            assert "bit-exact" in err
            assert all(torch.equal(again[k], tensors[k]) for k in tensors)
        else:
            assert "strategy was fsdp, is ddp" in err
        for step in run.glob("checkpoints/step-*90"):
            step.rename(run / "checkpoints" / ".trash-last2")


def test_worker_error_is_reported_with_its_type(tmp_path):
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
    code, _, err = finish(start(tmp_path, *words))
    assert code == 7, err
    assert "process 1 of 2" in err
    assert "I do not like this batch" in err
    assert "give another" in err


def test_torchrun_matches_local_launch(whole, tmp_path):
    run = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "sslcli")
    code, out, err = finish(start(tmp_path, *WORDS, "method=moco_v2", launcher=run))
    assert code == 0, err
    assert out.strip() == f"runs/{only_run(tmp_path).name}"
    same(only_run(tmp_path), whole)
    code, out, err = finish(start(tmp_path, "eval", "quality", "--json", "device=cpu", launcher=run))
    assert code == 0, err
    assert json.loads(out)["numbers"]["rankme"] > 1


def test_invalid_process_counts(cli):
    assert "train.devices: expected" in cli(*WORDS, "train.devices=0").err
    odd = cli(*WORDS, "train.devices=3")
    assert odd.code == 2
    assert "not divisible" in odd.err
    assert not Path("runs").exists()


def test_bad_samples_are_counted_over_processes(tmp_path):
    """Each process reads half of the damaged files; their total exceeds the limit."""
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for i in range(64):
        Image.new("RGB", (40, 40), (i, 2 * i, 99)).save(tmp_path / "photos" / f"{i:02d}.png")
    for i in range(0, 64, 16):  # 4: more than ceil(5 % of 51), though a process alone may meet fewer
        (tmp_path / "photos" / f"{i:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"broken" * 20)
    words = [
        "pretrain",
        *TINY,
        "dataset=image_folder",
        "dataset.path=photos",
        "dataset.image_size=32",
        "device.workers=0",
    ]
    words += ["dataset.resident=false", "backbone=convnet", "backbone.width=8", "train.steps=8", "train.devices=2"]
    words += ["logger.log_every=1"]
    code, _, err = finish(start(tmp_path, *words, "dataset.max_bad_fraction=0.5"))
    assert code == 0, err
    events = [json.loads(line) for line in (only_run(tmp_path) / "events.jsonl").read_text().splitlines()]
    met = {e["name"] for e in events if e["event"] == "unreadable"}
    truth = {f"{i:02d}.png" for i in range(0, 64, 16)}
    assert {Path(name).name for name in met} <= truth
    assert len(met) >= 3  # a few may be held out
    code, _, err = finish(start(tmp_path, *words, "dataset.max_bad_fraction=0.03"))
    assert code == 7, err
