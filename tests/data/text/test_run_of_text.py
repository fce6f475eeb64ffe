"""A run keeps its tokenizer: evaluation of other data, resume, init and features of new texts use it, and none is fitted again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sslcli
from sslcli.data.preprocess import load as load_preprocessor
from sslcli.data.text import build
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.runs.run import Run
from tests.data.text.conftest import write

TINY = {"train": {"epochs": None, "steps": 2, "batch_size": 8, "eval_every": 0}, "device": "cpu"}
BACKBONE = ["backbone=bert_tiny", "backbone.width=8", "backbone.depth=1"]
ROWS = ["text,label", *(f"{mood} remark {i} of a guest,{mood}" for i in range(20) for mood in ("good", "bad"))]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run on a table of text, after which no tokenizer can be fitted or read."""
    monkeypatch.setenv("SSLCLI_RUNS", str(tmp_path / "runs"))
    data = [f"dataset.path={write(tmp_path / 'rows.csv', ROWS)}", "dataset.max_length=16", "dataset.tokenizer=words"]
    out = sslcli.pretrain("dataset=text_table", *BACKBONE, *data, method="mlm", **TINY)

    def refuse(*_: object) -> None:
        raise AssertionError("a tokenizer is fitted")

    monkeypatch.setattr(build, "make_tokenizer", refuse)
    return out


def own(run: Run) -> TextPreprocessor:
    out = load_preprocessor(Path(run.path))
    assert isinstance(out, TextPreprocessor)
    return out


def test_evaluation_of_its_data_and_of_others(run: Run, tmp_path: Path):
    assert "top1" in sslcli.evaluate(run, "knn")
    other = write(tmp_path / "other.csv", [row.replace("guest", "stranger") for row in ROWS])
    result = sslcli.evaluate(run, "knn", "dataset=text_table", f"dataset.path={other}", "dataset.tokenizer=bytes")
    assert 0 <= result["top1"] <= 1


def test_resume_and_init_keep_it(run: Run, tmp_path: Path):
    before = own(run).sha256
    sslcli.resume(run, train={"steps": 3})
    assert own(run).sha256 == before
    path = write(tmp_path / "more.txt", ["other words entirely"] * 16)
    data = ["dataset=text_lines", f"dataset.path={path}", "dataset.max_length=16"]
    second = sslcli.pretrain(*data, *BACKBONE, method="mlm", init=str(run.path), **TINY)
    assert own(second).tokenizer.files() == own(run).tokenizer.files()


def test_features_of_new_texts(run: Run):
    features = sslcli.load(run).embed(["a good remark", "😀", ""])
    assert features.shape == (3, 8)
    assert torch.isfinite(features).all()
    assert sslcli.load(run).transform(["a good remark"])[0, :2].tolist()[0] == own(run).values.start
