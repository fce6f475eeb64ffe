"""Defaults that depend on the device, the data and the length of a run, and how they are reported."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sslcli.builders import method_class
from sslcli.config import compose, registry
from sslcli.config.checks import parse_duration
from sslcli.config.schema import on_gpu
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import RequestError
from sslcli.nn.values import Continuous
from sslcli.training.configuration import resolve
from sslcli.training.loop.budget import describe_budget
from sslcli.training.setup import resolve_batch_size
from sslcli.training.start_screen import accumulation_note

TINY = (
    "method=simsiam",
    "backbone.width=4",
    "train.epochs=null",
    "train.steps=3",
    "train.eval_every=0",
    "device=cpu",
    "device.threads=1",
)


def data_of(n: int) -> Dataset:
    x = torch.zeros(n, 1)
    return Dataset("d", "series", (1, 1), train=ArraySource(x), test=None, values=Continuous((0.0,), (1.0,)))


# ------------------------------------------------------------------------------------------------------------ device


@pytest.fixture
def photos(tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(60):
        Image.new("RGB", (80, 80), (i * 4, 255 - i * 4, 90)).save(folder / f"{i}.png")
    return folder


def test_on_gpu_follows_device(monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert on_gpu("auto", 1, 2) == (1 if there else 2)
        assert (on_gpu("cuda", 1, 2), on_gpu("mps", 1, 2), on_gpu("cpu", 1, 2)) == (1, 1, 2)


@pytest.mark.parametrize("name", ["image_folder", "tar", "pack"])
def test_image_defaults_follow_device(name, monkeypatch):
    def chosen(*words):
        cfg = compose.compose("pretrain", [f"dataset={name}", "dataset.path=x", *words])
        return cfg.hydra.runtime.choices.backbone, resolve(cfg)["dataset"]["max_size"]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen() == ("resnet18", 224)
    if name == "image_folder":
        assert chosen("device=cpu") == ("convnet", 64)
        assert chosen("method=mae") == ("vit_micro", 224)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen("backbone.width=8") == ("convnet", 64)
    if name == "image_folder":
        assert chosen("backbone=resnet18", "dataset.max_size=128") == ("resnet18", 128)


def test_photo_folder_on_cpu(cli, photos):
    """The chosen defaults are reported and saved in config.yaml, so that they are the same on another device."""
    result = cli("pretrain", "dataset=image_folder", f"dataset.path={photos}", *TINY)
    assert result.code == 0, result.err
    assert result.err.startswith(f"reading {photos}")
    assert "image 3x64x64" in result.err
    assert "image size 64 and a small convolutional network suit a CPU" in result.err
    assert "dataset.image_size=224 backbone=resnet18" in result.err
    assert "chosen for 60 samples" in result.err
    assert "_convnet_image_folder" in result.last
    saved = registry.describe(Path(result.last) / "config.yaml", "")
    assert saved["dataset"]["max_size"] == 64
    assert saved["train"]["batch_size"] == 16
    again = cli("resume", result.last, "train.steps=4")
    assert again.code == 0, again.err


# -------------------------------------------------------------------------------------------------------------- batch


@pytest.mark.parametrize(
    ("n", "accumulate", "batch"),
    [(80, 1, 32), (48, 1, 16), (255, 1, 64), (256, 1, 256), (10_000, 1, 256), (10_000, 3, 255), (80, 5, 30), (3, 1, 2)],
)
def test_auto_batch_size_depends_on_data(n, accumulate, batch):
    train = {"batch_size": "auto", "accumulate": accumulate}
    assert resolve_batch_size({"train": train}, data_of(n))["train"] == {"batch_size": batch, "accumulate": accumulate}


def test_auto_batch_size_depends_on_the_kind_of_data():
    train = {"batch_size": "auto", "accumulate": 1}
    for kind, few, many in (("frames", 8, 32), ("pairs", 8, 128)):
        for n, batch in ((20, few), (300, many)):
            data = replace(data_of(n), modality=kind)
            assert resolve_batch_size({"train": train}, data)["train"]["batch_size"] == batch


def test_batch_larger_than_data_is_rejected():
    for given in (81, 256):
        with pytest.raises(RequestError, match=f"train.batch_size={given} is larger than the training split") as e:
            resolve_batch_size({"train": {"batch_size": given, "accumulate": 1}}, data_of(80))
        assert "train.batch_size=auto" in e.value.hint
    assert resolve_batch_size({"train": {"batch_size": 80, "accumulate": 1}}, data_of(80))["train"]["batch_size"] == 80


@pytest.mark.parametrize("bad", ["much", "0", "12.5"])
def test_invalid_batch_size_is_rejected(cli, bad):
    result = cli("pretrain", *TINY, f"train.batch_size={bad}", "--dry-run")
    assert result.code == 2, result.err
    assert "batch_size" in result.err


def test_sweep_with_large_batch_is_rejected_once(cli, tmp_path):
    result = cli("pretrain", "-m", *TINY, "train.batch_size=32,5000", "seed=0,1,2")
    assert result.code == 2
    assert result.err.count("is larger than the training split (1,437 samples)") == 1
    assert not (tmp_path / "runs").exists()


def test_accumulation_note_counts_negatives():
    simclr, simsiam = (method_class({"_target_": f"sslcli.methods.{n}"}) for n in ("simclr.SimCLR", "simsiam.SimSiam"))
    assert "32 samples at a time, not 128: 62 negatives, not 254" in accumulation_note([simclr], 128, 32)
    assert accumulation_note([simclr], 128, 128) == accumulation_note([simsiam], 128, 32) == ""


def test_methods_that_gather_declare_compares():
    """A loss that gathers over processes (`gather`, `sinkhorn`) misses samples with micro-batches too."""
    for name, path in registry.choices("method").items():
        method = method_class(registry.describe(path, "method"))
        text = inspect.getsource(inspect.getmodule(method))
        for_loss = "import gather" in text or "sinkhorn(" in text
        only_memory = name in ("smog", "deepcluster_v2")  # they gather for groups and memory banks, not for the loss
        assert method.compares or only_memory or not for_loss, name
        assert method.compares or not method.negatives, name


# ------------------------------------------------------------------------------------------------------------- length


@pytest.mark.parametrize(
    "words", [("schedule.warmup=10",), ("schedule=linear", "schedule.final=3"), ("method=dino", "method.warmup=10")]
)
@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_schedule_in_epochs_is_rejected(cli, tmp_path, words, flags):
    result = cli("pretrain", *TINY, *words, *flags)
    assert result.code == 2, result.err
    assert any(text in result.err for text in ("fraction of the run", "in [0, 1]", "share of the run"))
    assert not (tmp_path / "runs").exists()


def test_describe_budget_reports_steps_and_epochs():
    message, hint = describe_budget("8m", 16, 30.0, 12)
    assert message == (
        "train.budget=8m: about 16 steps, 1.33 epochs, at 30 s a step; 1,000 steps would take 8h20m: too few to learn much"
    )
    assert hint.startswith("train.budget=50m00s is 100 steps;")
    assert "image" not in hint
    assert "dataset.image_size" in describe_budget("8m", 16, 30.0, 12, resizable=True)[1]
    assert parse_duration("50m00s", "train.budget") == 3000
    message, hint = describe_budget("8m", 200, 2.4, 300)  # less than an epoch
    assert hint.startswith("train.budget=36m00s is 900 steps;")
    assert describe_budget("1h", 5000, 0.72, 300) == (
        "train.budget=1h: about 5,000 steps, 16.7 epochs, at 0.72 s a step",
        "",
    )


def test_short_budget_is_warned_of(cli):
    result = cli(
        "pretrain", *(w for w in TINY if not w.startswith("train.steps")), "train.budget=1s", "train.batch_size=1024"
    )
    assert result.code == 0, result.err
    assert "warning: train.budget=1s: about" in result.err
    before = result.err.index("warning: train.budget")
    assert before < result.err.index("\nepoch ")
