"""Every method through the door, on images, on series and on a folder, with nothing said but the data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sslcli.config import instantiate, registry

FILES = registry.choices("method")
METHODS = sorted(FILES)
SMALL = [
    "experiment=smoke",
    "train.steps=2",
    "train.batch_size=16",
    "device=cpu",
    "device.threads=1",
    "device.workers=0",
]


def recipe(method: str) -> dict:
    return registry.describe(FILES[method], "method")


def needs(method: str, word: str) -> bool:
    return word in recipe(method).get("needs", [])


def pictured(method: str) -> bool:
    """Whether the class draws something: pictures, or reconstructions that make them."""
    from sslcli.methods.base import Method

    target = instantiate.resolve("method", recipe(method)["_target_"])
    return target.reconstruct is not Method.reconstruct or target.figures is not Method.figures


def signals(path: Path, n: int = 48, channels: int = 3, length: int = 64) -> Path:
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    time = np.linspace(0, 6.28, length)
    x = np.sin(time * (1 + y)[:, None, None] + rng.uniform(0, 6, (n, channels, 1))) + 0.1 * rng.normal(
        size=(n, channels, length)
    )
    x[0, :, 50:] = np.nan  # a recording that ended early
    np.savez(path, x=x.astype(np.float32), y=y)
    return path


# Modalities and methods add (test_method_contract has each pair in process): through the door, each method meets digits,
# and one of each kind the other data.
COLOURED = {"colorization"}  # digits are grey
COLUMNS = {m for m in METHODS if "columns" in recipe(m).get("requires", [])}  # of a table
WORDS = {m for m in METHODS if "vocabulary" in recipe(m).get("requires", [])}  # of a text

ITEMS = {m for m in METHODS if "items" in recipe(m).get("requires", [])}  # of histories
PAIRED = {m for m in METHODS if "pairs" in recipe(m).get("requires", [])}  # of images with captions
CLIPS = {m for m in METHODS if "frames" in recipe(m).get("requires", [])}  # of frames
TIMED = {m for m in METHODS if "time" in recipe(m).get("requires", [])}  # of a series


def usual_data(method: str) -> str:
    kinds = {
        "wine": COLUMNS,
        "capitals": WORDS,
        "sessions": ITEMS,
        "series": TIMED,
        "image_folder": COLOURED,
        "moving": CLIPS,
        "shapes": PAIRED,
    }
    return next((data for data, methods in kinds.items() if method in methods), "digits")


OTHERS = ["autoencoder", "byol", "mae", "moco_v2", "simclr"]


@pytest.mark.parametrize(
    ("method", "data"),
    [(m, usual_data(m)) for m in METHODS] + [(m, d) for d in ("series", "image_folder") for m in OTHERS],
)
def test_pretrain_and_evaluate(cli, tmp_path, method, data):
    words = [f"dataset={data}"]
    if data == "series":
        words.append(f"dataset.path={signals(tmp_path / 'signals.npz')}")
    if data == "moving":
        words += [
            "dataset.samples=40",
            "dataset.test_samples=20",
            "dataset.objects=1",
            "dataset.frames=4",
            "dataset.size=16",
        ]
        words += ["method.width=16", "backbone.width=8"]
    if data == "shapes":
        words += ["dataset.samples=72", "dataset.test_samples=36", "dataset.size=16", "backbone.width=8"]
        words.append("method.tower_settings={width: 16, depth: 1}")
    if data in ("capitals", "sessions"):
        words += ["backbone.width=16", "backbone.depth=2", "backbone.heads=2"]
    if data == "image_folder":
        from tests.data.test_bad_inputs import two_classes

        words += [
            f"dataset.path={two_classes(tmp_path / 'photos', n=20)}",
            "dataset.image_size=32",
            "dataset.resident=false",
        ]
        words += (
            ["backbone=convnet", "backbone.width=8"] if "positions" not in recipe(method).get("requires", []) else []
        )
    if needs(method, "a trained run"):
        words.append(f"method.teacher={cli('pretrain', 'backbone.width=8', *SMALL).last}")
    result = cli("pretrain", f"method={method}", *words, *SMALL)
    assert result.code == 0, result.err
    run = Path(result.last)
    numbers = json.loads(cli("eval", "knn", "--json", "evaluator.k=5", "evaluator.baselines=false").out)["numbers"]
    assert 0 <= numbers["top1"] <= 1
    assert bool(list((run / "pictures").glob("*.png"))) == pictured(method)


@pytest.mark.parametrize(
    "words",
    [
        ["device.precision=bf16"],
        ["train.clip=1"],
        ["optimizer=lars", "optimizer.lr=0.3"],
        ["schedule=constant"],
        ["schedule=linear"],
    ],
)
def test_engine_options(cli, words):
    result = cli("pretrain", *SMALL, "backbone.width=8", *words)
    assert result.code == 0, result.err


def test_seed_determines_bits(cli):
    from safetensors.torch import load_file

    runs = [Path(cli("pretrain", *SMALL, "backbone.width=8", f"seed={s}").last) for s in (0, 0, 1)]
    a, b, c = (load_file(r / "encoder.safetensors") for r in runs)
    assert all((a[k] == b[k]).all() for k in a)
    assert any((a[k] != c[k]).any() for k in a)


def test_labels_are_withheld(cli, tmp_path):
    """The same data with permuted labels: the same weights, bit for bit."""
    from safetensors.torch import load_file

    path = signals(tmp_path / "a.npz")
    whole = dict(np.load(path))
    found = []
    for y in (whole["y"], whole["y"][::-1]):
        np.savez(path, x_train=whole["x"][:36], y_train=y[:36], x_test=whole["x"][36:], y_test=y[36:])
        run = Path(cli("pretrain", "dataset=series", f"dataset.path={path}", *SMALL).last)
        found.append(load_file(run / "encoder.safetensors"))
    a, b = found
    assert all((a[k] == b[k]).all() for k in a)
