"""device.compile: what is compiled, once, and that it changes nothing. With the compiler's front end alone: the rest is torch's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from sslcli.training.loop.strategy import regions
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
