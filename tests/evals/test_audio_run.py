"""Evaluators, files, pages and reports of a small run on audio, of several rates, lengths and channels."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SMOKE, Result
from tests.data.audio.sounds import sine, write, write_folder
from tests.report.html_page import Page

OPTIONS = {  # of evaluators
    "probe": "labels=2/class",
    "knn": "",
    "finetune": "labels=4/class evaluator.epochs=1 evaluator.min_steps=3",
    "labels": "evaluator.amounts=[2] evaluator.seeds=1 evaluator.supervised=false",
    "anomaly": "evaluator.scores=[knn]",
    "cluster": "evaluator.k_max=3",
    "retrieval": "",
    "robustness": "evaluator.max_samples=8",
    "explain": "evaluator.samples=4",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with clips and a run of the folder."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("audio")
    write_folder(folder / "clips", 48, rates=(8000, 8000, 11_025), channels=(1, 1, 1, 2))
    words = ["pretrain", "method=vicreg", "dataset=audio_folder", "dataset.path=clips", "dataset.bands=16", *SMOKE]
    with contextlib.chdir(folder):
        assert main([*words, "train.batch_size=16", "train.devices=1"]) == 0
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
    files = (tmp_path / "runs" / "latest" / "eval").glob("*.json")
    records = {re.split(r"\W|_", p.stem)[0]: json.loads(p.read_text()) for p in files}
    for name in ("probe", "finetune", "labels"):
        assert {"mel", "mel32"} <= {key.partition(".")[0] for key in records[name]["numbers"]}, name
    found = " ".join(records["robustness"]["numbers"])
    assert all(name in found for name in ("noise", "clipping", "reverberation", "speed", "band_limit")), found
    report = trained("runs", "report")
    assert report.code == 0, report.err
    source = (tmp_path / report.last).read_text(encoding="utf-8")
    page = Page(source)
    assert "media-src data:" in source
    players = [attributes["src"] or "" for tag, attributes in page.tags if tag == "audio"]
    assert len(players) > 20  # neighbors, examples of clusters, anomalies, explained samples
    assert all(src.startswith("data:audio/wav;base64,") for src in players)


def test_files_of_other_rates_are_embedded_and_predicted(trained, tmp_path):
    """A file at 44.1 kHz in stereo has nearly the features of the same sound at 8 kHz."""
    write(tmp_path / "new" / "a.wav", sine(0.4, 8000, 300))
    write(tmp_path / "new" / "b.wav", np.stack([sine(0.4, 44_100, 300)] * 2, axis=1), 44_100, "f32")
    write(tmp_path / "new" / "c.wav", sine(0.4, 8000, 1200))
    (tmp_path / "new" / "d.wav").write_bytes(b"RIFF")
    assert trained("eval", "probe").code == 0
    result = trained("embed", "latest", "new", "out=e.npz")
    assert result.code == 0, result.err
    assert "d.wav" in result.err
    features = dict(zip(*(np.load(tmp_path / "e.npz", allow_pickle=False)[k] for k in ("id", "vector")), strict=True))
    a, b, c = (features[f"new/{name}.wav"] for name in "abc")
    assert np.linalg.norm(a - b) < 0.2 * np.linalg.norm(a - c)
    result = trained("predict", "latest", "new", "out=p.csv")
    assert result.code == 0, result.err
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = {row["path"]: row["class"] for row in csv.DictReader(file)}
    assert rows["new/a.wav"] == rows["new/b.wav"]


def test_page_of_picks_plays_clips(trained, tmp_path):
    result = trained("pick", "latest", "n=4", "by=typical", "page=pick.html", "out=pick.csv")
    assert result.code == 0, result.err
    page = (tmp_path / "pick.html").read_text(encoding="utf-8")
    assert page.count("<audio controls") == 4
    assert page.count("data:audio/wav;base64,") == 4


def test_audit_finds_silence_and_copies(trained, tmp_path):
    write(tmp_path / "clips" / "low" / "silent.wav", np.zeros(3000))
    shutil.copy(tmp_path / "clips" / "low" / "000.wav", tmp_path / "clips" / "low" / "copy.wav")
    result = trained("data", "audit", "dataset=audio_folder", "dataset.path=clips", "out=audit.csv")
    assert result.code == 0, result.err
    rows = (tmp_path / "audit.csv").read_text(encoding="utf-8")
    assert "silent.wav" in rows
    assert "copy.wav" in rows
    assert "<audio controls" in (tmp_path / "audit.html").read_text(encoding="utf-8")


def test_masked_spectrograms_are_reconstructed(cli, tmp_path):
    words = [
        "dataset=tones",
        "dataset.samples=60",
        "experiment=smoke",
        "device=cpu",
        "device.threads=1",
        "train.batch_size=16",
    ]
    run = cli("pretrain", "method=mae", *words)
    assert run.code == 0, run.err
    result = cli("eval", "reconstruct")
    assert result.code == 0, result.err
    assert "reconstruct.mse" in result.out
    exported = cli("export", "latest", "format=sslcli", "out=model")
    assert exported.code == 0, exported.err
    settings = json.loads((tmp_path / "model" / "preprocessor" / "preprocessor.json").read_text())
    assert settings["kind"] == "audio"
    assert len(settings["mean"]) == settings["mel"]["bands"] == 32
