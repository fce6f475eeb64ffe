"""sslcli export: the backbone of a run, or of a checkpoint of it, as a folder to take away."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sslcli.runs.encoder import load_encoder
from tests.conftest import SMOKE
from tests.document_blocks import DOCS, blocks

QUICK = ["evaluator.groups=20", "evaluator.views=2", "evaluator.points=100", "device=cpu", "device.threads=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of a method that measures its teacher, with all its checkpoints."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("made")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["pretrain", "-q", *SMOKE, "method=dino", "train.save_every=1", "train.keep=9"]) == 0
    finally:
        os.chdir(before)
        os.environ.pop("SSLCLI_QUIET", None)
    return folder


@pytest.fixture
def run(made, cli, tmp_path) -> Path:
    """A copy of it, in the working folder."""
    shutil.copytree(made / "runs", tmp_path / "runs", symlinks=True)
    (found,) = Path("runs").glob("2*")
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_export_default_is_final_encoder(cli, run):
    result = cli("export", "latest", "out=encoder")
    assert result.code == 0, result.err
    assert result.out == "encoder\n"
    assert "next  sslcli pretrain init=encoder" in result.err
    assert sorted(files(Path("encoder"))) == ["encoder.json", "encoder.safetensors", "preprocessor/preprocessor.json"]
    assert (Path("encoder") / "encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()
    info = json.loads((Path("encoder") / "encoder.json").read_text())
    assert info == {**json.loads((run / "encoder.json").read_text()), "run": run.name}


def test_export_checkpoint_equals_encoder(cli, run):
    """The last checkpoint gives the bytes of the run's encoder: the teacher's weights, not the student's."""
    assert cli("export", str(run), "checkpoint=4", "out=last").code == 0
    assert (Path("last") / "encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()
    assert cli("export", str(run), "checkpoint=step-0000000002", "out=second").last == "second"
    _, info = load_encoder(Path("second"))
    assert info["step"] == 2
    weights = load_file("second/encoder.safetensors")
    saved = run / "checkpoints" / "step-0000000002"
    student = load_file(saved / "model.safetensors")
    teacher = load_file(saved / "ema.safetensors")
    (prefix,) = {k.removesuffix(next(iter(weights))) for k in teacher if k.endswith(next(iter(weights)))}
    for key, value in weights.items():
        assert torch.equal(value, teacher[prefix + key]), key
    assert any(not torch.equal(v, student[f"backbone.{k}"]) for k, v in weights.items())


def test_export_does_not_read_data(cli, run, monkeypatch):
    def fail(*_):
        raise AssertionError("the data were read")

    monkeypatch.setattr("sslcli.builders.load_dataset", fail)
    assert cli("export", str(run), "checkpoint=1", "out=encoder").code == 0


def learnability(run: Path, step: int, value: float) -> None:
    """As if it had been measured so."""
    path = run / "eval" / "checkpoints" / f"step-{step:010}_quality.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "numbers": {**record["numbers"], "learnability": value}}))


def test_export_best_is_first_of_select(cli, run):
    """Where all was measured before, by just the settings of `sslcli select RUN`."""
    result = cli("select", str(run), "device=cpu")
    assert result.code == 0, result.err
    learnability(run, 0, 3.0)  # step 0 is reported, and never taken
    result = cli("select", str(run), "device=cpu")
    assert "step 0, which ranks first, is the untrained network" in result.err
    learnability(run, 0, -1.0)
    result = cli("select", str(run), "device=cpu")
    assert "untrained network" not in result.err
    ranked = json.loads(cli("select", str(run), "device=cpu", "--json").out)["candidates"]
    command = result.err.splitlines()[-1]
    assert command == f"next  sslcli export {run.name} checkpoint={ranked[0]['step']} out=encoder-{ranked[0]['step']}"
    assert cli(*command.split()[2:]).last == f"encoder-{ranked[0]['step']}"
    learnability(run, 3, 2.0)
    learnability(run, 0, 3.0)
    assert cli("export", str(run), "checkpoint=best", "out=best").code == 0
    assert json.loads(Path("best/encoder.json").read_text())["step"] == 3


def test_select_of_runs_suggests_no_export(cli, run):
    shutil.copytree(run, "runs/other")
    result = cli("select", str(run), "runs/other", *QUICK)
    assert result.code == 0, result.err
    assert "export" not in result.err


def test_pretrain_init_from_exported_folder(cli, run):
    cli("export", str(run), "checkpoint=1", "out=a b")
    words = [*SMOKE, "train.steps=1", "optimizer.lr=1e-9"]
    result = cli("pretrain", *words, "init=a b")
    assert result.code == 0, result.err
    given, kept = load_file("a b/encoder.safetensors"), load_file(Path(result.last) / "encoder.safetensors")
    for key in given:
        if key.endswith("weight"):
            torch.testing.assert_close(kept[key], given[key], rtol=0, atol=1e-5)
    assert cli("pretrain", *SMOKE, "method=distill", "method.teacher=a b", "train.steps=1").code == 0
    damaged = Path("a b/encoder.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    refused = cli("pretrain", *words, "init=a b")
    assert (refused.code, "sslcli export writes it again" in refused.err) == (4, True)


def test_pretrain_init_backbone_mismatch_hint(cli, run):
    next_command = cli("export", str(run), "out=encoder").err.partition("next  sslcli ")[2].splitlines()[0]
    words = [w for w in SMOKE if not w.startswith("backbone")]
    refused = cli("pretrain", *words, "init=encoder", "backbone.width=12")
    assert refused.code == 2
    assert "does not fit" in refused.err
    typed = shlex.split(next_command)[1:]
    assert "hint: add backbone=convnet backbone.width=8" in refused.err
    assert {"init=encoder", "method=dino", "backbone.width=8"} <= set(typed)
    assert cli("pretrain", *words, *typed).code == 0


def test_export_repeated_does_not_overwrite(cli, run):
    Path("encoder").mkdir()
    assert cli("export", str(run), "out=encoder").code == 0  # an empty folder is taken
    before = {p.name: p.stat().st_mtime_ns for p in Path("encoder").iterdir()}
    assert cli("export", str(run), "out=encoder").last == "encoder"
    assert {p.name: p.stat().st_mtime_ns for p in Path("encoder").iterdir()} == before
    content = files(Path("encoder"))
    refused = cli("export", str(run), "checkpoint=2", "out=encoder")
    assert (refused.code, refused.out) == (2, "")
    assert "holds another encoder" in refused.err
    assert files(Path("encoder")) == content
    assert sorted(p.name for p in Path().iterdir()) == ["encoder", "runs"]


def test_export_write_error_leaves_no_folder(cli, run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sslcli.runs.files.write_file", full)
    result = cli("export", str(run), "out=encoder")
    assert result.code == 5
    assert "No space left" in result.err
    assert [p.name for p in Path().iterdir()] == ["runs"]


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        (["out=x"], "missing argument: RUN", "sslcli export RUN out=FOLDER"),
        (["nope", "out=x"], "no run `nope`", ""),
        (["latest"], "out is not given", "out=FOLDER"),
        (["latest", "out=no/x"], "there is no folder", ""),
        (["latest", "out=runs"], "with other files", ""),
        (["latest", "out=runs/latest/log.txt"], "is a file", ""),
        (["latest", "out=x", "checkpont=2"], "unexpected argument 'checkpont=2'", "checkpoint="),
        (["latest", "out=x", "checkpoint=7"], "checkpoint=7", "one of 0, 1, 2, 3, 4, best, last"),
        (["latest", "out=x", "checkpoint=frist"], "checkpoint=frist", "best, last"),
        (["latest", "out=x", "checkpoint="], "checkpoint=", "best, last"),
    ],
)
def test_export_rejects_bad_arguments(cli, run, words, says, hint):
    result = cli("export", *words)
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert hint in result.err.partition("hint: ")[2]
    assert [p.name for p in Path().iterdir()] == ["runs"]


def test_export_missing_or_damaged_checkpoint(cli, run):
    worst = run / "checkpoints" / "step-0000000002" / "model.safetensors"
    worst.write_bytes(worst.read_bytes()[:-1] + b"x")
    result = cli("export", str(run), "checkpoint=2", "out=x")
    assert (result.code, "does not match its SHA-256" in result.err) == (4, True)
    shutil.rmtree(run / "checkpoints")
    assert cli("export", str(run), "out=whole").code == 0
    for which in ("2", "best"):
        result = cli("export", str(run), f"checkpoint={which}", "out=x")
        assert (result.code, "has no checkpoint" in result.err) == (2, True)
    (run / "encoder.safetensors").unlink()
    result = cli("export", str(run), "out=x")
    assert (result.code, "sslcli resume" in result.err) == (4, True)
    assert not Path("x").exists()
    result = cli("eval", "knn", "run=whole")
    assert (result.code, "no run" in result.err, "init=" in result.err) == (2, True, True)


def test_export_completion(cli, run):
    from sslcli.cli.commands.completion import completions

    assert {"latest", run.name, "checkpoint=", "out="} <= set(completions("sslcli export "))
    assert completions(f"sslcli export {run.name} checkpoint=") == [
        f"checkpoint={c}" for c in ("0", "1", "2", "3", "4", "best", "last")
    ]
    assert completions("sslcli export nope checkpoint=") == ["checkpoint=best", "checkpoint=last"]


@pytest.mark.parametrize(
    ("number", "backbone", "size"), [(0, "resnet18", 20), (0, "resnet18", 72), (1, "vit_tiny", 32)]
)
def test_export_guide_code_runs(cli, number, backbone, size):
    if backbone.startswith("vit"):
        pytest.importorskip("timm")
    code = [b.text for b in blocks(DOCS / "guides" / "export.md") if b.language == "python"][number]
    pictures = np.random.default_rng(0).integers(0, 256, (12, size, size, 3), dtype=np.uint8)
    np.savez("x.npz", x=pictures)
    words = ["dataset=arrays", "dataset.path=x.npz", "train.epochs=null", "train.steps=1", "train.eval_every=0"]
    trained = cli("pretrain", *words, f"backbone={backbone}", "train.batch_size=2", "device=cpu", "device.threads=1")
    assert trained.code == 0, trained.err
    assert cli("export", "latest", "out=encoder").code == 0
    names: dict[str, Any] = {}
    with torch.no_grad():
        exec(code, names)
        ours, info = load_encoder(Path("encoder"))
        mean, std = (torch.tensor(info["values"][k]).view(-1, 1, 1) for k in ("mean", "std"))
        theirs = ours.eval()((names["images"] - mean) / std)
    torch.testing.assert_close(names["features"], theirs, rtol=1e-4, atol=1e-4)
