"""Saves interrupted at each system call, and checkpoints damaged at random: the newest valid checkpoint is found."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.zygote import outcome
from sslcli.errors import RequestError, StorageError, TrainingError
from sslcli.runs import checkpoint, safetensors_file

CALLS = ("open", "write", "fsync", "close", "rename", "replace", "unlink", "rmdir", "mkdir")
FIXTURES = Path(__file__).parent / "fixtures"


class Killed(BaseException):
    """Simulates a kill: sslcli does not catch it."""


class Cut:
    """Counts the system calls of a save. Call number `at` is not executed (a write only by half), and `what` is raised.

    `unsynced`: paths with bytes that a power failure would lose."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, what: BaseException):
        self.at, self.what, self.count, self.name = at, what, 0, ""
        self.opened: dict[int, str] = {}
        self.unsynced: set[str] = set()
        for name in CALLS:
            patch.setattr(os, name, self.counted(name, getattr(os, name)))

    def counted(self, name: str, real: Any) -> Any:
        return lambda *args, **named: self.call(name, real, args, named)

    def call(self, name: str, real: Any, args: tuple, named: dict) -> Any:
        self.count += 1
        if self.count == self.at:
            self.name = name
            if name == "write" and len(args[1]) > 1:
                real(args[0], args[1][: len(args[1]) // 2])
            raise self.what
        result = real(*args, **named)
        if name == "open" and args[1] & os.O_CREAT:
            self.opened[result] = os.fspath(args[0])
            self.unsynced.add(os.fspath(args[0]))
        elif name == "fsync":
            self.unsynced.discard(self.opened.get(args[0], ""))
        elif name == "close":
            self.opened.pop(args[0], None)
        elif name in ("rename", "replace"):
            old, new = (os.fspath(a) for a in args)
            self.unsynced = {new + p[len(old) :] if p.startswith(old) else p for p in self.unsynced}
        return result

    def lose(self) -> None:
        """Simulates a power failure: bytes that were not flushed are lost."""
        for path in self.unsynced:
            if os.path.isfile(path):
                os.truncate(path, 0)


def tensors(step: int) -> dict[str, dict[str, torch.Tensor]]:
    dice = torch.Generator().manual_seed(step)
    return {
        "model": {"w": torch.randn(40, 3, generator=dice), "n": torch.tensor(step), "half": torch.ones(3).bfloat16()},
        "ema": {"t": torch.randn(7, generator=dice).double()},
        "optimizer": {"w/m": torch.randn(40, 3, generator=dice), "flag": torch.tensor([True, False])},
    }


def state(step: int) -> dict[str, Any]:
    return {"seconds": step / 3, "numbers": {"w/step": step}}


def check(found: Any, step: int) -> None:
    assert found is not None
    read, saved = found
    assert saved == {"step": step, **state(step)}
    wanted = tensors(step)
    assert {k: set(v) for k, v in read.items()} == {k: set(v) for k, v in wanted.items()}
    for group, content in wanted.items():
        for name, value in content.items():
            assert read[group][name].dtype == value.dtype
            assert torch.equal(read[group][name], value)


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(folder, step, tensors(step), state(step), keep=2)


def save_cut(folder: Path, monkeypatch: pytest.MonkeyPatch, step: int, at: int, what: BaseException) -> Cut:
    with monkeypatch.context() as patch:
        cut = Cut(patch, at, what)
        with contextlib.suppress(Killed):
            save(folder, step)
    return cut


def attempt(folder: Path) -> StorageError | None:
    try:
        save(folder, 3)
    except StorageError as e:
        return e
    return None


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power cut"])
@pytest.mark.parametrize("before", [(), (1,), (1, 2), (1, 2, 3)], ids=["first", "second", "third", "again"])
def test_save_interrupted_at_every_system_call(tmp_path, monkeypatch, before, power):
    """`again`: a damaged checkpoint of the step exists; it is set aside and replaced."""
    names, k = set(), 0
    while True:
        k += 1
        folder = tmp_path / str(k) / "checkpoints"
        save(folder, *before)
        if before == (1, 2, 3):
            (folder / "step-0000000003" / "state.json").write_bytes(b"{}")
        cut = save_cut(folder, monkeypatch, 3, k, Killed())
        if power:
            cut.lose()
        checkpoint.clean(folder)
        found = checkpoint.load_newest(folder)
        if found is None:
            assert not before
        else:
            check(found, found[1]["step"])
            assert found[1]["step"] in (3, *[b for b in before if b < 3][-1:])
        assert all(checkpoint.verify(p) is None for p in checkpoint.existing(folder))
        assert {p.name[:5] for p in folder.glob(".*")} <= {".bad-"}
        save(folder, 4)
        check(checkpoint.load_newest(folder), 4)
        assert not list(folder.glob(".[!b]*"))
        names.add(cut.name)
        if cut.count < k:  # the save was complete
            break
    assert k > 30
    assert names >= {"open", "write", "fsync", "rename", "replace", "mkdir"}
    if before == (1, 2):
        assert names >= {"unlink", "rmdir"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_save_with_error_at_every_system_call(tmp_path, monkeypatch, code):
    """A save with one failing system call succeeds or reports it, leaves no partial file, and keeps valid checkpoints."""
    k, failed = 0, 0
    while True:
        k += 1
        folder = tmp_path / str(k) / "checkpoints"
        save(folder, 1, 2)
        with monkeypatch.context() as patch:
            cut = Cut(patch, k, OSError(code, os.strerror(code)))
            error = attempt(folder)
        if error:
            failed += 1
            assert os.strerror(code) in error.message
        checkpoint.clean(folder)
        found = checkpoint.load_newest(folder)
        check(found, found[1]["step"])
        assert found[1]["step"] in (2, 3)
        assert len(checkpoint.existing(folder)) >= 2
        if cut.count < k:
            break
        shutil.rmtree(folder)
    assert failed > 20


# ------------------------------------------------------------------------------------------------------------------ damage


@pytest.fixture
def two(tmp_path: Path) -> Path:
    save(tmp_path / "good", 1, 2)
    return tmp_path / "good"


def fall_back(good: Path, folder: Path, damage: Any) -> str:
    """Damage the newest of two checkpoints. It must be reported and set aside, and the other used. Returns the reports."""
    shutil.copytree(good, folder)
    damage(folder / "step-0000000002")
    told: list[tuple[str, str]] = []
    check(checkpoint.load_newest(folder, lambda path, reason: told.append((path.name, reason))), 1)
    ((name, reason),) = told
    assert name == "step-0000000002"
    assert [p.name for p in checkpoint.existing(folder)] == ["step-0000000001"]
    assert len(list(folder.glob(".bad-step-0000000002-*"))) == 1
    return reason


def test_hundred_flipped_bits_are_detected(two, tmp_path):
    dice = random.Random(0)
    names = sorted(p.name for p in (two / "step-0000000002").iterdir())
    assert len(names) == 5
    for i in range(100):
        name = names[i % 5]

        def flip(path: Path, name: str = name) -> None:
            content = bytearray((path / name).read_bytes())
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
            (path / name).write_bytes(content)

        assert name in fall_back(two, tmp_path / str(i), flip)


def test_every_manifest_byte_is_verified(two):
    """No other file has a checksum of the manifest."""
    dice = random.Random(2)
    path = two / "step-0000000002"
    content = (path / "manifest.json").read_bytes()
    for i in range(len(content)):
        flipped = bytearray(content)
        flipped[i] ^= 1 << dice.randrange(8)
        (path / "manifest.json").write_bytes(flipped)
        assert checkpoint.verify(path) is not None, f"byte {i}"
    (path / "manifest.json").write_bytes(content)
    assert checkpoint.verify(path) is None


def test_twenty_truncations_are_detected(two, tmp_path):
    dice = random.Random(1)
    names = sorted(p.name for p in (two / "step-0000000002").iterdir())
    for i in range(20):
        name = names[i % 5]

        def cut(path: Path, name: str = name) -> None:
            os.truncate(path / name, dice.randrange((path / name).stat().st_size))

        assert name in fall_back(two, tmp_path / str(i), cut)


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "model.safetensors"])
def test_missing_checkpoint_file_is_named(two, tmp_path, name):
    assert fall_back(two, tmp_path / "copy", lambda path: (path / name).unlink()) == f"{name} is missing"


def test_renamed_checkpoint_is_rejected(two, tmp_path):
    def rename(path: Path) -> None:
        shutil.rmtree(path)
        shutil.copytree(path.with_name("step-0000000001"), path)

    assert fall_back(two, tmp_path / "copy", rename) == "it holds step 1"


def test_invalid_checkpoints_are_named_and_kept(two):
    (two / "step-0000000002" / "state.json").unlink()
    (two / "step-0000000001" / "model.safetensors").write_bytes(b"")
    for _ in range(2):  # the second time with the same result
        with pytest.raises(
            TrainingError,
            match=r"step-0000000002: state.json is missing, step-0000000001: model.safetensors has 0 bytes of",
        ) as caught:
            checkpoint.load_newest(two)
        assert caught.value.code == 4
    assert len(checkpoint.existing(two)) == 2


def test_newer_format_is_kept_and_reported(two):
    path = two / "step-0000000002" / "manifest.json"
    manifest = json.loads(path.read_text()) | {"format": 2, "sslcli": "7.0"}
    manifest.pop("sha256")
    path.write_text(json.dumps({**manifest, "sha256": checkpoint._own_hash(manifest)}))
    with pytest.raises(RequestError, match=r"was written by sslcli 7\.0 \(checkpoint format 2"):
        checkpoint.load_newest(two)
    assert len(checkpoint.existing(two)) == 2


def test_newest_two_valid_checkpoints_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3)
    (tmp_path / "step-0000000003" / "state.json").write_bytes(b"{}")
    save(tmp_path, 4)  # keeps two: 4, and 2 because 3 is not valid
    assert [p.name[-1] for p in checkpoint.existing(tmp_path)] == ["4", "3", "2"]
    save(tmp_path, 5)
    assert [p.name[-1] for p in checkpoint.existing(tmp_path)] == ["5", "4"]
    for step in (6, 7):
        checkpoint.save(tmp_path, step, tensors(step), {}, keep=1)
    assert [p.name[-1] for p in checkpoint.existing(tmp_path)] == ["7", "6"]


def test_safetensors_content_of_checkpoint(tmp_path):
    """The safetensors package reads the files of a checkpoint."""
    from safetensors.torch import load_file

    base = torch.arange(12.0).reshape(3, 4)
    group = {
        "transposed": base.T,
        "slice": base[1:, ::2],
        "channels_last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "tied": base,
        "tied too": base,
        "é": torch.tensor([1, 2], dtype=torch.int16),
        **{str(d): torch.ones(3).to(d) for d in safetensors_file.DTYPES},
    }
    checkpoint.save(tmp_path, 1, {"model": group}, {})
    read = load_file(tmp_path / "step-0000000001" / "model.safetensors")
    assert read.keys() == group.keys()
    for name, value in group.items():
        assert read[name].dtype == value.dtype, name
        assert torch.equal(read[name], value), name


def test_first_format_loads(tmp_path):
    """tests/faults/fixtures/format-1 was written by sslcli 0.1 and is never regenerated."""
    shutil.copytree(FIXTURES / "format-1", tmp_path / "checkpoints")
    found = checkpoint.load_newest(tmp_path / "checkpoints")
    assert found is not None
    read, saved = found
    assert saved["step"] == 6
    assert saved["plan"] == {"total": 8, "anchor_step": 0, "anchor_progress": 0.0}
    assert saved["cursor"] == 6
    assert set(read) == {"model", "ema", "optimizer"}
    assert int(read["model"]["queue.head"]) == 6 * 32 % 64
    assert read["model"]["queue.keys"].shape == (64, 16)


def test_run_of_first_format_resumes(cli, tmp_path, monkeypatch):
    """Its configuration, from its checkpoint, has the dotted names of that version."""
    monkeypatch.chdir(tmp_path)
    config: dict = {"device": {"type": "cpu", "threads": 1}, "logger": {"log_every": 1}}
    for key, value in json.loads((FIXTURES / "format-1/step-0000000006/state.json").read_text())["config"].items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    assert config["dataset"]["_target_"] == "sslcli.data.classic.digits"
    run = tmp_path / "runs" / "old"
    shutil.copytree(FIXTURES / "format-1", run / "checkpoints")
    (run / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    (run / "status.json").write_text(json.dumps({"status": "interrupted", "step": 6}))
    result = cli("resume", "old")
    assert result.code == 0, result.err
    assert "resuming at step 6" in result.err
    assert "differs" not in result.err
    assert json.loads((run / "status.json").read_text())["step"] == 8
    assert cli("eval", "knn", "run=old").code == 0


# ------------------------------------------------------------------------------------------------------- command line


@pytest.fixture
def interrupted(cli) -> tuple[Path, dict]:
    """A run as if killed after step 3 of 4, with all its checkpoints, and the tensors of the finished run."""
    words = ["dataset=digits", "backbone.width=4", "device=cpu", "device.threads=1", "train.batch_size=64"]
    words += ["train.steps=4", "train.eval_every=0", "train.save_every=1", "train.keep=10", "logger.log_every=1"]
    run = Path(cli("pretrain", *words).last)
    whole = outcome(run)
    shutil.rmtree(run / "checkpoints" / "step-0000000004")
    status = json.loads((run / "status.json").read_text()) | {"status": "running"}
    (run / "status.json").write_text(json.dumps(status))
    return run, whole


def test_resume_reports_fallback_checkpoint(cli, interrupted):
    run, whole = interrupted
    path = run / "checkpoints" / "step-0000000003" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 16
    path.write_bytes(content)
    resumed = cli("resume", str(run))
    assert resumed.code == 0
    assert "checkpoint step-0000000003 is not valid (model.safetensors does not match its SHA-256)" in resumed.err
    assert "resuming at step 2 (bit-exact)" in resumed.err
    told = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (event,) = [e for e in told if e["event"] == "bad checkpoint"]
    assert event["path"].endswith("step-0000000003")
    assert outcome(run) == whole


def test_resume_without_valid_checkpoint_exits_4(cli, interrupted):
    run, _ = interrupted
    before = (run / "metrics.jsonl").read_bytes()
    for path in checkpoint.existing(run / "checkpoints"):
        (path / "state.json").unlink()
    for _ in range(2):
        refused = cli("resume", str(run))
        assert refused.code == 4
        assert "step-0000000003: state.json is missing, step-0000000002: state.json is missing" in refused.err
        assert "hint: start a new run with sslcli pretrain" in refused.err
    assert (run / "metrics.jsonl").read_bytes() == before
