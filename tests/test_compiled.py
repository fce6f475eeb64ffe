"""device.compile: what is compiled, once, and that it changes nothing. With the compiler's front end alone: the rest is torch's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from sslcli.cli.commands.bench import table
from sslcli.runtime import device
from sslcli.training.loop import compile_choice
from sslcli.training.loop.measured_steps import measure
from sslcli.training.loop.strategy import regions
from sslcli.training.run_training import NullRun
from tests.conftest import SMOKE
from tests.methods.test_method_contract import build


@pytest.mark.parametrize(
    ("method", "compiled"),
    [
        ("simclr", ["ConvNet"]),
        ("byol", ["ConvNet"] * 2),
        ("mae", ["Block"] * 3),
        ("dino", ["ConvNet"] * 2),
        ("mlm", ["Layer"] * 2),
    ],
)
def test_compile_backbones_or_token_blocks(method, compiled):
    """A teacher's too; of MAE two blocks of the encoder, one of the decoder."""
    modality = "text" if "Layer" in compiled else "image"
    assert [type(m).__name__ for m in regions(build(method, modality))] == compiled


@pytest.fixture
def graphs(monkeypatch):
    """The number of graphs that reached the compiler's back end."""
    from torch import _dynamo

    _dynamo.reset()
    counted: list[int] = []

    def backend(module, inputs):
        counted.append(len(inputs))
        return module.forward

    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode, **kw: compile_module(self, backend=backend, **kw))
    return counted


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("byol", 2),  # online, and its teacher without gradients
        ("mae", 2),  # an encoder's blocks are one, whatever the epoch; the decoder's
        ("denoising_autoencoder", 1),
        ("mlm", 1),  # the blocks, of all tokens
    ],
)
def test_compiled_run_matches_and_compiles_once(cli, graphs, method, expected):
    """Over epochs, of two steps (masks and noise have them in their key), evaluations, and pictures."""
    losses = []
    size = ["backbone.dropout=0", "backbone.depth=2"] if method == "mlm" else []
    for word in ("false", "true"):
        result = cli(
            "pretrain",
            f"method={method}",
            *SMOKE[:-1],
            *size,
            "train.steps=4",
            "train.batch_size=700",
            f"device.compile={word}",
            "train.eval_every=1",
        )
        assert result.code == 0, result.err
        lines = (Path(result.last) / "metrics.jsonl").read_text().splitlines()
        losses.append([v["train/loss"] for v in map(json.loads, lines) if "train/loss" in v])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert len(graphs) == expected


@pytest.fixture
def compiler(monkeypatch, graphs):
    """A processor on which device.compile=auto is decided, as on a GPU."""
    monkeypatch.setattr(device, "can_compile", lambda kind: True)


@pytest.mark.parametrize(("least", "chosen"), [(0.0, True), (1e9, False)])
def test_auto_compiles_where_it_pays(cli, graphs, compiler, monkeypatch, least, chosen):
    """The measured steps are undone, the decision is recorded, and a resumed run keeps it."""
    words = ["method=simsiam", *SMOKE[:-1], "train.steps=2", "train.batch_size=64", "train.eval_every=0"]
    monkeypatch.setattr(compile_choice, "LEAST_SECONDS", least)
    measured = iter([2.0, 0.0, 0.0, 0.0, 1.0])  # seconds of a step: as written, three that compile, compiled
    monkeypatch.setattr(compile_choice, "measure", lambda *given: faked(measured, *given))
    plain = Path(cli("pretrain", *words, "device.compile=false").last)
    result = cli("pretrain", *words)
    assert result.code == 0, result.err
    assert list(measured) == ([] if chosen else [0.0, 0.0, 0.0, 1.0])
    assert f"device.compile={str(chosen).lower()}" in result.err
    run = Path(result.last)
    assert yaml.safe_load((run / "config.yaml").read_text())["device"]["compile"] is chosen
    assert bool(graphs) is chosen
    expected, found = (load_file(folder / "encoder.safetensors") for folder in (plain, run))
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-4, atol=1e-5), key
    monkeypatch.setattr(compile_choice, "LEAST_SECONDS", 1e9 - least)  # the other decision
    resumed = cli("resume", str(run), "train.steps=4")
    assert resumed.code == 0, resumed.err
    assert "resuming at step 2" in resumed.err
    assert yaml.safe_load((run / "config.yaml").read_text())["device"]["compile"] is chosen


def faked(measured, setup, state, step, counts, limit):
    """The next of `measured`, after real steps."""
    measure(setup, state, step, counts, 0.0)
    return dict.fromkeys(counts, next(measured))


SHORT = ["method=simsiam", *SMOKE[:-1], "train.steps=2", "train.batch_size=64", "train.eval_every=0"]


@pytest.mark.parametrize(
    ("compiled", "failure", "why"),
    [
        (3.0, None, "compiling is no gain: a step goes from 2000.0 to 3000.0 ms"),
        (1.0, RuntimeError("no compiler\nhas been found"), "compiling fails: RuntimeError: no compiler"),
        (1.0, torch.OutOfMemoryError("full"), "compiling fails: OutOfMemoryError: full"),
    ],
)
def test_auto_trains_as_written_where_compiling_is_no_gain(cli, graphs, compiler, monkeypatch, compiled, failure, why):
    """The result is that of device.compile=false, bit for bit."""
    monkeypatch.setattr(compile_choice, "LEAST_SECONDS", 0.0)
    measured = iter([2.0, 0.0, 0.0, 0.0, compiled])
    plain = Path(cli("pretrain", *SHORT, "device.compile=false").last)

    def fails(self, mode, **options):
        def call(*given):
            raise failure

        self._compiled_call_impl = call

    if failure is not None:
        monkeypatch.setattr(nn.Module, "compile", fails)
    monkeypatch.setattr(compile_choice, "measure", lambda *given: faked(measured, *given))
    result = cli("pretrain", *SHORT)
    assert result.code == 0, result.err
    assert f"device.compile=false: {why}" in " ".join(result.err.split())
    run = Path(result.last)
    assert yaml.safe_load((run / "config.yaml").read_text())["device"]["compile"] is False
    expected, found = (load_file(folder / "encoder.safetensors") for folder in (plain, run))
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_auto_with_a_budget_measures_no_steps(cli, graphs, compiler, monkeypatch):
    monkeypatch.setattr(compile_choice, "measure", None)
    words = [*SMOKE[:-1], "train.steps=null", "train.budget=2s", "train.batch_size=64", "train.eval_every=0"]
    result = cli("pretrain", "method=simsiam", *words, "device.compile=auto")
    assert result.code == 0, result.err
    assert "device.compile=false" in result.err


def test_auto_is_off_on_a_processor(cli):
    result = cli("pretrain", "method=simsiam", *SMOKE, "device.compile=auto")
    assert result.code == 0, result.err
    assert "compile" not in result.err


def test_bench_compares_with_the_model_as_written(cli, graphs, compiler):
    words = ["method=simsiam", "backbone.width=8", "repeats=1", "seconds=0.1", "device.compile=auto"]
    result = cli("bench", *words, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    compiled = found["compiled"]
    assert graphs
    assert compiled["gain"] == pytest.approx(found["model"]["samples_per_s"] / compiled["as_written"])
    assert compiled["seconds"] > 0
    assert "compiled     " in "\n".join(table(found))


def test_bench_of_a_model_that_cannot_be_compiled(cli, compiler, monkeypatch):
    def fails(self, **options):
        def call(*given):
            raise RuntimeError("no compiler")

        self._compiled_call_impl = call

    monkeypatch.setattr(nn.Module, "compile", fails)
    result = cli("bench", "method=simsiam", "backbone.width=8", "repeats=1", "seconds=0.1", "--json")
    assert result.code == 0, result.err
    assert "compiling fails: RuntimeError: no compiler" in result.err
    assert "compiled" not in json.loads(result.out)


def test_other_processes_write_no_config(tmp_path):
    """Each process decides; rank 0 alone records it."""
    NullRun(tmp_path).write_config({"device": {"compile": True}})
    assert not list(tmp_path.iterdir())
