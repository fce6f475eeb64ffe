"""Every evaluator works on a small run on text, and its report shows documents of any content."""

from __future__ import annotations

import contextlib
import csv
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sslcli.evals.base.info import evaluator_infos
from tests.conftest import SMOKE, Result

EVIL = "<script>alert(1)</script>"
UNUSUAL = (EVIL, "שלום עולם", "🎉 emoji", "tabs\tand \x07 bells", "w" * 100_000, "")
OPTIONS = {  # that make an evaluator quick
    "attentive": "evaluator.epochs=1 evaluator.min_steps=3 evaluator.lr=0.001 evaluator.baselines=false",
    "explain": "evaluator.samples=10",
    "finetune": "evaluator.epochs=1 evaluator.min_steps=3",
    "labels": "evaluator.amounts=[2,all] evaluator.seeds=1 evaluator.epochs=1 evaluator.min_steps=3",
    "quality": "evaluator.samples=60 evaluator.points=40 evaluator.groups=10 evaluator.views=2",
    "robustness": "evaluator.max_samples=10",
    "transfer": "dataset=text_table dataset.path=others.csv",
}


def write_table(path: Path, seed: int) -> None:
    """120 documents of two classes, and some unusual ones."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for i in range(120):
            words = ("good", "fine", "great") if i % 2 else ("bad", "poor", "dull")
            writer.writerow(
                (f"A {words[(i + seed) % 3]} film {i % 7}, said critic {i % 11}.", "pos" if i % 2 else "neg")
            )
        writer.writerows((text, "pos" if i % 2 else "neg") for i, text in enumerate(UNUSUAL * 4))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a run on text."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("made")
    write_table(folder / "reviews.csv", 0)
    write_table(folder / "others.csv", 1)
    words = ["pretrain", "method=mlm", "dataset=text_table", "dataset.path=reviews.csv", "dataset.tokenizer=bytes"]
    words += ["dataset.holdout=0.3", "dataset.max_length=40", "backbone.heads=2", "backbone.depth=1"]
    words += [*SMOKE, "train.eval_every=2", "train.devices=1"]
    with contextlib.chdir(folder):
        assert main(words) == 0
    return folder


@pytest.fixture
def trained(made, cli, tmp_path) -> Callable[..., Result]:
    """The command line in a copy of that folder."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return cli


def test_every_evaluator_runs_on_text(trained, tmp_path):
    for name in evaluator_infos():
        if name in ("forecast", "recommend", "zeroshot"):  # of data divided in time, of histories, of captions
            continue
        result = trained("eval", name, *shlex.split(OPTIONS.get(name, "")))
        assert result.code == 0, (name, result.err)
        assert any(line.startswith((f"{name}.", f"{name}@")) for line in result.out.splitlines()), name
    lines = (tmp_path / "runs" / "latest" / "metrics.jsonl").read_text().splitlines()
    assert any("eval/knn/top1" in json.loads(line) for line in lines)  # of the evaluator `online`
    records = {p.stem: json.loads(p.read_text()) for p in (tmp_path / "runs" / "latest" / "eval").glob("*.json")}
    for name in ("probe", "finetune", "labels"):
        assert any(key.startswith("tfidf.top1") for key in records[name]["numbers"]), name
    report = trained("runs", "report")
    assert report.code == 0, report.err
    page = (tmp_path / report.last).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "שלום" in page
    assert "\x07" not in page
    assert "w" * 5000 not in page
    assert page.count('class="texts"') >= 6


def test_fill_answers_and_saves_nothing(trained, tmp_path):
    folder = tmp_path / "runs" / "latest" / "eval"
    result = trained("eval", "fill", "text=A [MASK] film, said [MASK]'s critic {1}.")
    assert result.code == 0, result.err
    rows = [line.split("\t") for line in result.out.splitlines()]
    assert [row[0] for row in rows] == ["1.1"] * 5 + ["1.2"] * 5
    assert all(0 <= float(p) <= 1 for _, p, _ in rows)
    assert not list(folder.glob("fill*"))
    record = json.loads(trained("eval", "fill", "text=[MASK]", "--json").out)
    assert record["details"]["texts"][0]["masks"][0][0].keys() == {"token", "probability"}
    wrong = trained("eval", "fill", "text=nothing")
    assert wrong.code == 2
    assert "there is no [MASK]" in wrong.err
    assert "has no effect on probe" in trained("eval", "probe", "text=[MASK]").err


def test_fill_refuses_methods_without_tokens(trained):
    run = trained("pretrain", "method=vicreg", "dataset=text_table", "dataset.path=reviews.csv", "backbone=bag", *SMOKE)
    assert run.code == 0, run.err
    result = trained("eval", "fill")
    assert result.code == 2
    assert "VICReg does not predict hidden tokens" in result.err
    assert (
        "an untrained backbone predicts no hidden tokens" in trained("eval", "fill", "run=none", "dataset=capitals").err
    )
