"""`init=` of a run, of an exported folder and of the file of its weights, for samples of another size.

1. All three convert positional and patch embeddings alike, and `backbone.patch=auto` follows the weights.
2. Weights of another network are refused with the options that fit.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SMOKE
from tests.data.conftest import make_folder  # noqa: F401

SMALL = [word for word in SMOKE if not word.startswith(("backbone", "dataset", "method", "train.epochs"))]
SMALL += ["dataset=image_folder", "dataset.path=photos", "train.epochs=null", "train.batch_size=8"]
VIT = [
    *SMALL,
    "method=mae",
    "backbone=vit_micro",
    "backbone.width=24",
    "backbone.depth=1",
    "backbone.positions=learned",
]


@pytest.fixture
def photos(make_folder, cli):  # noqa: F811
    make_folder({"a": 12, "b": 12})


def test_all_sources_of_weights_are_resized_alike(cli, photos, tmp_path):
    start = cli("pretrain", *VIT, "dataset.image_size=16", "train.steps=1")
    assert start.code == 0, start.err
    assert cli("export", start.last, "out=exported").code == 0
    found = {}
    for source in (start.last, "exported", "exported/encoder.safetensors"):
        for patch in ([], ["backbone.patch=2"], ["backbone.patch=4"]):
            options = ["dataset.image_size=32", "train.steps=0", *patch]
            done = cli("pretrain", *VIT, f"init={source}", *options)
            assert done.code == 0, done.err
            assert "pos_embed interpolated from a grid of 8x8" in done.err or patch == ["backbone.patch=4"]
            found[source, *patch] = load_file(Path(done.last) / "encoder.safetensors")
    before = load_file(tmp_path / "exported" / "encoder.safetensors")
    for (source, *patch), weights in found.items():
        side = 8 if patch == ["backbone.patch=4"] else 16
        assert weights["pos_embed"].shape[1] == 1 + side * side
        assert torch.equal(weights["blocks.0.attn.qkv.weight"], before["blocks.0.attn.qkv.weight"])
        reference = found["exported/encoder.safetensors", *patch]
        assert all(torch.equal(weights[name], reference[name]) for name in reference), (source, patch)


def test_evaluation_resizes_weights_of_a_folder(cli, photos):
    start = cli("pretrain", *VIT, "dataset.image_size=16", "train.steps=1")
    assert cli("export", start.last, "out=exported").code == 0
    options = [word for word in VIT if not word.startswith(("method", "train", "logger"))]
    done = cli("eval", "knn", "run=none", "init=exported", *options, "dataset.image_size=32")
    assert done.code == 0, done.err
    assert "pos_embed interpolated from a grid of 8x8 to 16x16" in done.err


def test_another_network_is_refused_with_its_options(cli, photos):
    net = [*SMALL, "method=simclr", "backbone=convnet", "backbone.width=4"]
    start = cli("pretrain", *net, "dataset.image_size=32", "train.steps=1")
    assert start.code == 0, start.err
    larger = cli("pretrain", *net, f"init={start.last}", "dataset.image_size=48")
    assert larger.code == 2
    assert "trained on samples of 3x32x32" in larger.err
    assert "hint: add backbone=convnet backbone.width=4 dataset.image_size=32" in larger.err
    other = cli("pretrain", *VIT, f"init={start.last}", "dataset.image_size=32")
    assert other.code == 2
    assert "hint: add backbone=convnet backbone.width=4\n" in other.err
