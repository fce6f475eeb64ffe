"""sslcli bench: names and consistency of its results; no files remain. No test depends on speed."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from tests.conftest import SMOKE

QUICK = [*SMOKE, "repeats=2", "seconds=0.02"]


def consistent(found, *parts):
    for name in parts:
        part = found[name]
        assert len(part["rounds"]) == 2
        assert 0 < part["min"] <= part["samples_per_s"] <= part["max"]
        assert part["samples_per_s"] == pytest.approx(statistics.median(part["rounds"]))
    ratio = found["end_to_end"]["samples_per_s"] / found["model"]["samples_per_s"]
    assert found["lost"] == pytest.approx(1 - ratio)
    assert found["views"]["samples_per_s_core"] <= found["views"]["samples_per_s"]
    assert 0 < found["model"]["peak_memory_mb"] <= found["peak_memory_mb"]
    assert all(found["startup"][part] > 0 for part in ("prepare", "first_step"))


def test_benchmark_of_resident_data(cli):
    done = cli("bench", *QUICK, "train.accumulate=2", "train.clip=1", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    consistent(found, "views", "model", "end_to_end")
    assert "decode" not in found
    assert found["config"]["train"]["accumulate"] == 2
    assert "repeats" not in found["config"]
    assert (found["machine"]["threads"], found["machine"]["workers"], found["views"]["cores"]) == (1, 0, 1)
    assert list(Path().iterdir()) == []


def test_benchmark_of_files_prints_table(cli):
    from PIL import Image

    Path("pictures").mkdir()
    for i in range(8):
        Image.new("RGB", (24, 20), (i, 2 * i, 90)).save(f"pictures/{i}.jpg")
    Path("pictures/bad.jpg").write_bytes(b"nothing")  # an unreadable file costs time and does not end the benchmark
    data = ["dataset=image_folder", "dataset.path=pictures", "dataset.image_size=16", "dataset.resident=false"]
    words = [
        *QUICK,
        *data,
        "dataset.max_bad_fraction=0.5",
        "dataset.holdout=0",
        "backbone=convnet",
        "train.batch_size=4",
    ]
    done = cli("bench", *words, "device.workers=1", "--json")
    assert done.code == 0, done.err
    consistent(json.loads(done.out), "views", "decode", "model", "end_to_end")
    shown = cli("bench", *words, "device.workers=0")
    assert shown.code == 0, shown.err
    for name in ("views alone", "decoding alone", "model alone", "end to end", "lost", "peak memory", "start"):
        assert f"\n{name}" in shown.out, name
    assert [p.name for p in Path().iterdir()] == ["pictures"]


@pytest.mark.slow
def test_two_processes(cli):
    done = cli("bench", *QUICK, "train.devices=2", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    consistent(found, "views", "model", "end_to_end")
    assert found["machine"]["processes"] == 2


def test_invalid_benchmark_requests(cli):
    for words, hint in (
        (["train.epoch=3"], "train.epochs"),
        (["repeat=3"], "repeats"),
        (["resume=auto"], "--help"),
        (["method=simsam"], "simsiam"),
        (["repeats=0"], "repeats=3"),
        (["seconds=0"], "seconds=2"),
        (["seconds=nan"], "seconds=2"),
        (["optimizer=adamw"], "optimizer.lr"),
        (["train.batch_size=100000"], "train.batch_size"),
    ):
        done = cli("bench", *QUICK, *words)
        assert done.code == 2, (words, done.err)
        assert hint in done.err, (words, done.err)
        assert done.out == ""
    assert list(Path().iterdir()) == []


def test_nonfinite_loss_ends_benchmark(cli):
    Path("mine/method").mkdir(parents=True)
    Path("mine/broken.py").write_text(
        "from sslcli.methods.base import Method\n"
        "class Broken(Method):\n"
        "    def forward(self, batch):\n"
        "        return {'loss': self.backbone(batch.views[0]).sum() * float('nan')}\n"
    )
    Path("mine/method/broken.yaml").write_text(
        "# @package _global_\nmethod: {_target_: broken.Broken, plan: {global: 1}}\n"
    )
    done = cli("bench", "--config-dir", "mine", "method=broken", *QUICK, "seconds=0.2")
    assert done.code == 4, done.err
    assert "not finite" in done.err
    assert "resume" not in done.err
    assert [p.name for p in Path().iterdir()] == ["mine"]
