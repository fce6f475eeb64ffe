"""Text files that a user names for a trained encoder: their features are those of the same documents elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sslcli
from sslcli.builders import load_dataset
from sslcli.evals.base.features import EvalData
from sslcli.runs.run import Run
from tests.data.text.conftest import write
from tests.data.text.test_run_of_text import BACKBONE, TINY

LENGTH = 8
WORDS = [f"word{i}" for i in range(17)]
DOCUMENTS = [f"{' '.join(WORDS[i % 5 : i + 1])} {mood}" for i in range(20) for mood in ("good", "bad")]


def pretrain(folder: Path, *overrides: str, column: str = "text") -> Run:
    """A run on long documents in a column of a table."""
    path = write(folder / "rows.csv", [f"{column},label", *(f"{text},{text.split()[-1]}" for text in DOCUMENTS)])
    data = ["dataset=text_table", f"dataset.path={path}", f"dataset.max_length={LENGTH}", "dataset.tokenizer=words"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLCLI_RUNS", str(folder / "runs"))
        return sslcli.pretrain(*data, *overrides, *BACKBONE, method="mlm", **TINY)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrain(tmp_path_factory.mktemp("windows"))


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrain(tmp_path_factory.mktemp("window"), "dataset.windows=1")


@pytest.mark.parametrize(("fixture", "windows"), [("run", 8), ("short_run", 1)])
def test_features_are_those_of_evaluations(fixture: str, windows: int, request: pytest.FixtureRequest, tmp_path: Path):
    run = request.getfixturevalue(fixture)
    encoder, dataset = sslcli.load(run), load_dataset(run.config)
    assert encoder.preprocessor.windows == windows
    test = dataset.test
    texts = dataset.preprocessor.decode([test.resident[i] for i in range(len(test))])
    assert max(len(text.split()) for text in texts) > 2 * LENGTH
    features, _ = EvalData(dataset).features(encoder.module, "test")
    for i, text in enumerate(texts):
        write(tmp_path / "folder" / f"{i:03}.txt", text)
    files = [
        write(tmp_path / "lines.txt", texts),
        write(tmp_path / "table.csv", ["text", *texts]),
        str(tmp_path / "folder"),
    ]
    for samples in (texts, *files):
        assert torch.allclose(encoder.embed(samples), features, atol=1e-5)
