"""The Python interface: its names, the same bits as the commands, and nothing that disturbs a notebook.

1. `import sslcli` imports neither torch nor Hydra; the public names are those listed.
2. pretrain, evaluate and resume give the bits and metrics of the commands.
3. Errors are exceptions; nothing is printed on stdout; signal handlers and the working folder stay.
4. An encoder preprocesses as the evaluation of its run does, from arrays, PIL images and files.
"""

from __future__ import annotations

import hashlib
import json
import pkgutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import sslcli
from sslcli import api
from sslcli.errors import DataError, RequestError

OPTIONS = {
    "method": "moco_v2",
    "dataset": "digits",
    "backbone": {"width": 8},
    "train": {"steps": 6, "epochs": None, "batch_size": 64, "eval_every": 0},
    "device": {"type": "cpu", "threads": 1},
}
WORDS = [
    "method=moco_v2",
    "dataset=digits",
    "backbone.width=8",
    "train.steps=6",
    "train.epochs=null",
    "train.batch_size=64",
]
WORDS += ["train.eval_every=0", "device.type=cpu", "device.threads=1"]
PUBLIC = [
    "Backbone",
    "Batch",
    "Dataset",
    "Encoder",
    "Evaluation",
    "Method",
    "Run",
    "SslError",
    "evaluate",
    "list_runs",
    "load",
    "pretrain",
    "resume",
]


def weights(run: Path | str) -> str:
    return hashlib.sha256((Path(run) / "encoder.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> api.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("api"))
        trained = api.pretrain(**OPTIONS)
        trained.path = trained.path.resolve()
    return trained


def test_public_names():
    assert sorted(sslcli.__all__) == PUBLIC
    assert sorted(api.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(sslcli, name) is getattr(api, name)
    assert set(PUBLIC) <= set(dir(sslcli))
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        sslcli.pretrian  # noqa: B018


def test_no_public_name_is_a_module():
    """A module of the package that has been imported replaces a lazy name."""
    assert not {module.name for module in pkgutil.iter_modules(sslcli.__path__)} & {*sslcli.__all__, *api.__all__}


def test_import_is_light():
    code = "import sys, sslcli; assert not {'torch', 'hydra', 'numpy'} & sys.modules.keys(); sslcli.pretrain"
    subprocess.run([sys.executable, "-c", code + "; assert 'torch' in sys.modules"], check=True)


def test_pretrain_gives_the_bits_of_the_command(cli, run):
    command = cli("pretrain", *WORDS)
    assert command.code == 0, command.err
    assert weights(command.last) == weights(run.path)
    status = json.loads((Path(command.last) / "status.json").read_text())
    assert run.status["status"] == "done"
    assert status["config_hash"] == run.status["config_hash"]
    assert sorted(p.name for p in (run.path / ".hydra").iterdir()) == ["config.yaml", "hydra.yaml", "overrides.yaml"]


def test_evaluate_gives_the_metrics_of_the_command(cli, run):
    result = api.evaluate(run, "knn", evaluator={"k": 5})
    command = cli("eval", "knn", f"run={run.path}", "evaluator.k=5", "--json")
    assert command.code == 0, command.err
    printed = json.loads(command.out)
    assert dict(result) == printed["numbers"]
    assert result.protocol == printed["protocol"]
    assert "top1" in result.intervals
    assert "top1=" in repr(result)
    with pytest.raises(RequestError, match=r"backbone\.width=4"):
        api.evaluate(run, "knn", "backbone.width=4")


def test_resume_continues_with_the_bits_of_a_longer_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    longer = {**OPTIONS, "train": {**OPTIONS["train"], "save_every": 2, "keep": 9}}  # type: ignore[dict-item]
    whole, part = api.pretrain(**longer), api.pretrain(**longer)
    for step in (4, 6):
        for file in sorted((part.path / f"checkpoints/step-{step:010}").iterdir()):
            file.unlink()
        (part.path / f"checkpoints/step-{step:010}").rmdir()
    (part.path / "encoder.safetensors").unlink()
    part.set_status("interrupted")
    resumed = api.resume(part.path.name, device={"threads": 1})
    assert resumed.status["status"] == "done"
    assert weights(part.path) == weights(whole.path)
    assert [r.path.name for r in api.list_runs()] == [whole.path.name, part.path.name]
    assert api.list_runs(tmp_path / "elsewhere") == []


def test_errors_are_exceptions(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sslcli.SslError, match="epoch") as error:
        api.pretrain(train={"epoch": 5})
    assert error.value.code == 2
    assert "train.epochs" in error.value.hint
    with pytest.raises(RequestError):
        api.evaluate("no-such-run", "knn")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""


def test_signal_handlers_stay(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def refuse(*_):
        raise AssertionError("a signal handler was installed")

    monkeypatch.setattr(signal, "signal", refuse)
    api.pretrain(**OPTIONS)
    assert Path.cwd() == tmp_path
    assert capfd.readouterr().out == ""


def test_interrupted_run_can_be_resumed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from sslcli.training.loop.trainer import Trainer

    with monkeypatch.context() as patch:
        step = Trainer.step

        def interrupted(self, *args):
            if self.state.step == 3:
                raise KeyboardInterrupt
            step(self, *args)

        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            api.pretrain(**OPTIONS)
    (run,) = api.list_runs()
    assert run.status["status"] == "interrupted"
    assert api.resume(run).status["step"] == 6


def test_pretrain_runs_in_a_thread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found: list[api.Run] = []
    thread = threading.Thread(target=lambda: found.append(api.pretrain(**OPTIONS)))
    thread.start()
    thread.join()
    assert found[0].status["status"] == "done"


def test_encoder_embeds_as_the_evaluation_does(run, tmp_path):
    from PIL import Image

    from sslcli.data import digits
    from sslcli.rng import Draw
    from sslcli.views import clean

    encoder, dataset = api.load(run), digits()
    raw = dataset.test.resident.tensor[:9]
    (views,) = clean(dataset)(raw, Draw(0, 0, torch.arange(9)))
    expected = encoder.module(views).detach()
    torch.testing.assert_close(encoder.embed(raw, batch_size=4), expected)
    torch.testing.assert_close(encoder.embed(raw.permute(0, 2, 3, 1).numpy()), expected)
    torch.testing.assert_close(encoder.embed(raw[:, 0].numpy()), expected)
    images = [Image.fromarray(x[0].numpy()) for x in raw]
    torch.testing.assert_close(encoder.embed(images), expected)
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
    torch.testing.assert_close(encoder.embed([tmp_path / f"{i}.png" for i in range(9)]), expected)
    assert encoder.embed(raw[:0]).shape == (0, encoder.dim)
    assert not encoder.module.training
    assert "digits" in repr(encoder)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((2, 8, 8), np.float32),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((8, 8), np.uint8),
        ["no-such-file.png"],
    ],
)
def test_encoder_refuses_other_samples(run, samples):
    with pytest.raises((DataError, RequestError)):
        api.load(run).embed(samples)


def test_encoder_of_series(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 2, 32)).astype("float32")
    np.savez("series.npz", x=x)
    small = {
        "train": {"steps": 2, "epochs": None, "batch_size": 16, "eval_every": 0},
        "device": {"type": "cpu", "threads": 1},
    }
    encoder = api.load(api.pretrain(method="simclr", dataset="series", **{"dataset.path": "series.npz"}, **small))
    features = encoder.embed(x)
    assert features.shape == (40, encoder.dim)
    assert features.std() > 0
    with pytest.raises(DataError, match=r"expected series \(N, 2, 32\)"):
        encoder.embed(x[:, :, :30])
