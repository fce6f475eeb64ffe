"""Runs of text whose exports are compared with other libraries."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.formats.folders import TEXTS

NETWORK = ("width=16", "depth=2", "heads=2", "mlp_ratio=2.5", "max_positions=30")
COMMON = ("device=cpu", "device.threads=1", "train.steps=3", "train.epochs=null", "train.batch_size=8")
RUNS = {  # name -> method, tokenizer, and other options
    "mlm": ("mlm", "wordpiece"),
    "bert": ("bert", "bpe"),
    "nsp": ("nsp", "bytes"),
    "simcse": ("simcse", "words", "backbone.pool=cls"),
    "electra": ("electra", "wordpiece", "dataset.lowercase=false"),
    "multitask": ("multitask", "words", "method.tasks=[mlm,nsp]", "+augmentation.pair={pair: {}}"),
}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 64 documents."""
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text(
        "\n".join(f"{TEXTS[i % 4]} Then {TEXTS[(i + 1) % 4]} number {i}" for i in range(64)), encoding="utf-8"
    )
    return path


@contextlib.contextmanager
def inside(folder: Path):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.pop("SSLCLI_QUIET", None)


@pytest.fixture(scope="session")
def runs(corpus: Path, tmp_path_factory: pytest.TempPathFactory):
    """The folder of a finished run by name, made when it is first asked for."""
    from sslcli.cli import main

    root, made = tmp_path_factory.mktemp("text_runs"), {}

    def run(name: str) -> Path:
        if name not in made:
            method, tokenizer, *options = RUNS[name]
            data = ["dataset=text_lines", f"dataset.path={corpus}", f"dataset.tokenizer={tokenizer}"]
            sizes = ["dataset.vocabulary=300", "dataset.max_length=24", *(f"backbone.{option}" for option in NETWORK)]
            with inside(root):
                argv = ["pretrain", "-q", f"method={method}", "backbone=bert_micro", *data, *sizes, *COMMON, *options]
                assert main(argv) == 0
                made[name] = (root / "runs" / "latest").resolve()
        return made[name]

    return run
