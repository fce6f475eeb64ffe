"""Evaluators, files, pages, reports and exports of small runs on clips."""

from __future__ import annotations

import contextlib
import csv
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SMOKE, Result
from tests.data.video.films import moving_square, write_video
from tests.report.html_page import Page

OPTIONS = {  # of evaluators
    "probe": "labels=2/class",
    "knn": "",
    "finetune": "labels=2/class evaluator.epochs=1 evaluator.min_steps=3 evaluator.mixup=0.2 evaluator.cutmix=1",
    "labels": "evaluator.amounts=[2] evaluator.seeds=1 evaluator.supervised=false",
    "anomaly": "evaluator.scores=[knn]",
    "cluster": "evaluator.k_max=3",
    "retrieval": "",
    "quality": "evaluator.groups=8 evaluator.views=2",
    "explain": "evaluator.samples=4",
    "reconstruct": "",
}
DATA = "dataset=moving dataset.samples=60 dataset.test_samples=30 dataset.objects=1 dataset.size=16 dataset.frames=6"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a run of next_frame."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("frames")
    words = ["pretrain", "method=next_frame", "method.width=16", "method.depth=1", "backbone.width=8", *DATA.split()]
    with contextlib.chdir(folder):
        assert main([*words, *SMOKE, "train.batch_size=16", "train.devices=1"]) == 0
    return folder


@pytest.fixture
def trained(made, cli, tmp_path) -> Callable[..., Result]:
    """The command line in a copy of that folder."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return cli


def test_evaluators_and_report(trained, tmp_path):
    for name, options in OPTIONS.items():
        result = trained("eval", name, *shlex.split(options))
        assert result.code == 0, (name, result.err)
    numbers = json.loads((tmp_path / "runs" / "latest" / "eval" / "reconstruct.json").read_text())["numbers"]
    for guess in ("", "black.", "last.", "average."):
        assert numbers[f"{guess}frame_error"] == pytest.approx(16 * 16 * numbers[f"{guess}mse"], rel=1e-5)
    for name, words in (
        ("attentive", "with tokens: backbone=clip_vit"),
        ("forecast", "dataset=series dataset.path=FILE"),
    ):
        refused = trained("eval", name)
        assert (refused.code, words in refused.err) == (2, True), refused.err
    report = trained("runs", "report")
    assert report.code == 0, report.err
    page = Page((tmp_path / report.last).read_text(encoding="utf-8"))
    pictures = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert sum(src.startswith("data:image/gif;base64,") for src in pictures) > 40
    strips = [attributes["alt"] for tag, attributes in page.tags if tag == "img" and attributes.get("width")]
    assert any("not chosen: the sample, what was visible of it" in (alt or "") for alt in strips)
    assert {"training mean", "black frames", "average frame"} <= set(page.words)


def test_recordings_are_embedded_predicted_and_picked(trained, tmp_path):
    for name, level in (("dark", 20), ("bright", 200), ("bright_again", 200)):
        folder = tmp_path / "films" / name
        folder.mkdir(parents=True)
        for t in range(6):
            picture = np.zeros((24, 24), np.uint8)
            picture[4:12, 2 * t : 2 * t + 8] = level
            Image.fromarray(picture).save(folder / f"{t}.png")
    assert trained("eval", "probe").code == 0
    result = trained("embed", "latest", "films", "out=e.npz")
    assert result.code == 0, result.err
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        features = dict(zip(file["id"].tolist(), file["vector"], strict=True))
    np.testing.assert_array_equal(features["films/bright"], features["films/bright_again"])
    assert np.abs(features["films/bright"] - features["films/dark"]).max() > 1e-3
    result = trained("predict", "latest", "films", "out=p.csv")
    assert result.code == 0, result.err
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(features)
    assert rows["films/bright"]["class"] == rows["films/bright_again"]["class"]
    result = trained("pick", "latest", "n=3", "by=typical", "page=pick.html", "out=pick.csv")
    assert result.code == 0, result.err
    assert (tmp_path / "pick.html").read_text(encoding="utf-8").count("data:image/gif;base64,") == 3


def test_videos_are_trained_on_and_predicted(cli, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    for kind, step in (("slow", 1), ("fast", 3)):
        for i in range(8):
            write_video(tmp_path / "films" / kind / f"{i}.mkv", moving_square(12, start=i, step=step))
    words = ["dataset=frames", "dataset.path=films", "dataset.fps=12.5", "dataset.length=6", "dataset.image_size=16"]
    words += [*SMOKE, "train.batch_size=8", "train.devices=1"]
    run = cli("pretrain", "method=simclr", *words)
    assert run.code == 0, run.err
    assert cli("eval", "probe").code == 0
    write_video(tmp_path / "new" / "a.mkv", moving_square(12, start=2, step=3))
    write_video(tmp_path / "new" / "b.mkv", moving_square(30, start=2, step=3)[::5], rate=5)
    (tmp_path / "new" / "c.mp4").write_bytes(b"nothing")
    result = cli("predict", "latest", "new", "films/fast/2.mkv", "out=p.csv")
    assert result.code == 0, result.err
    assert "unreadable, with the reason in the column error: 1" in result.err
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    samples = ["new/a.mkv", "new/b.mkv:sample 0", "new/b.mkv:sample 1", "films/fast/2.mkv"]
    assert set(rows) == {*samples, "new/c.mp4"}
    assert "is no video" in rows["new/c.mp4"]["error"]
    assert all(rows[sample]["class"] in ("fast", "slow") for sample in samples)
    result = cli("embed", "latest", "new/a.mkv", "films/fast/2.mkv", "out=e.npz")
    assert result.code == 0, result.err
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(*file["vector"])


def test_audit_finds_copies_of_clips(cli, tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (12, 4, 16, 16), dtype=np.uint8)
    x[7] = x[3]
    np.savez(tmp_path / "x.npz", x=x)
    result = cli("data", "audit", "dataset=frames", "dataset.path=x.npz", "out=audit.csv")
    assert result.code == 0, result.err
    with (tmp_path / "audit.csv").open(newline="") as file:
        copies = [row for row in csv.DictReader(file) if row["issue"] == "exact_copy"]
    assert [{row["path"], row["partner"]} for row in copies] == [{"train/3", "train/7"}]
