"""Text files that a user names for a trained encoder: their features are those of the same documents elsewhere."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

import sslcli
from sslcli.builders import load_dataset
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.data.user_files.text import read_text_files
from sslcli.errors import DataError, RequestError
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


@pytest.fixture(scope="module")
def classified(run: Run) -> Run:
    sslcli.evaluate(run, "probe")
    return run


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


@pytest.mark.parametrize("named", [True, False])
def test_column_of_the_run_is_read_first(tmp_path: Path, named: bool):
    """Named by the user, or the only one of its name that is known."""
    column = "my text" if named else "review"
    run = pretrain(tmp_path, *([f"dataset.text={column}"] if named else []), column=column)
    encoder, rows = sslcli.load(run), [f"{text},other words,1" for text in DOCUMENTS]
    path = write(tmp_path / "other.csv", [f"{column},text,id", *rows])
    expected = encoder.embed(DOCUMENTS)
    assert torch.equal(encoder.embed(path), expected)
    assert [len(ids) for ids in encoder.preprocessor.encode(path)] == [len(text.split()) for text in DOCUMENTS]
    data = load_dataset({"dataset": {**run.config["dataset"], "path": path, "text": "auto"}}, like=encoder.preprocessor)
    assert data.preprocessor.column == column
    renamed = write(tmp_path / "renamed.csv", [f"{column.upper()},id", *(f"{text},1" for text in DOCUMENTS)])
    assert torch.equal(encoder.embed(renamed), expected)


@pytest.mark.parametrize("column", ["body_of_it", "text"])
def test_column_that_is_missing_has_a_hint_that_works(tmp_path: Path, cli, column: str):
    """Also where the file has a column whose name is known, such as comment."""
    run = pretrain(tmp_path, *(["dataset.text=body_of_it"] if column != "text" else []), column=column)
    path = write(tmp_path / "other.csv", ["comment,remark", *(f"nothing {i},{t}" for i, t in enumerate(DOCUMENTS))])
    columns = f"no column {column}, which the encoder was trained with; its columns: comment, remark"
    with pytest.raises(RequestError, match=columns) as error:
        sslcli.load(run).embed(path)
    data = ["dataset=text_table", f"dataset.path={path}"]
    assert " ".join([*data, "dataset.text=NAME"]) in str(error.value.hint)
    out = ["device=cpu", f"out={tmp_path / 'out.npz'}"]
    for words in (data, data[1:]):  # a data set of its own, and the moved data of the run
        refused = cli("embed", str(run.path), *words, *out)
        assert (refused.code, columns in refused.err, "dataset.text=NAME" in refused.err) == (2, True, True)
    done = cli("embed", str(run.path), *data, "dataset.text=remark", *out)
    assert done.code == 0, done.err
    texts = sslcli.load(run).embed(DOCUMENTS).numpy()
    assert np.allclose(np.load(tmp_path / "out.npz")["vector"], texts, atol=1e-5)


def test_init_reads_another_column_with_a_warning(run: Run, tmp_path: Path):
    path = write(tmp_path / "other.csv", ["comment", *DOCUMENTS])
    data = load_dataset({"dataset": {**run.config["dataset"], "path": path}, "init": str(run.path)})
    warnings = [note for note in data.notes if "which the encoder was trained with: comment is read" in note]
    assert len(warnings) == 1
    assert data.preprocessor.column == "comment"


def test_run_of_an_earlier_version_chooses_a_column_by_its_name(tmp_path: Path):
    """Its preprocessor names no column. Resumed, its hash stays."""
    to_json = TextPreprocessor.to_json
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextPreprocessor, "to_json", lambda own: {k: v for k, v in to_json(own).items() if k != "column"})
        run = pretrain(tmp_path)
    file = Path(run.path) / "preprocessor" / "preprocessor.json"
    content = file.read_bytes()
    assert b"column" not in content
    path = write(tmp_path / "other.csv", ["comment,id", *(f"{text},1" for text in DOCUMENTS)])
    encoder = sslcli.load(run)
    assert torch.equal(encoder.embed(path), encoder.embed(DOCUMENTS))
    now = load_dataset({**run.config, "init": None}).preprocessor
    assert encoder.preprocessor.differences(now) == now.differences(encoder.preprocessor) == []
    resumed = sslcli.resume(run, train={"steps": 3})
    assert file.read_bytes() == content
    assert sslcli.load(resumed).preprocessor.column is None


def test_folder_is_read_as_its_files(run: Run, tmp_path: Path):
    """Also where files in it cannot be read, or are empty."""
    folder = tmp_path / "mixed"
    good = [write(folder / f"{name}.txt", text) for name, text in (("a", "word1 good"), ("sub/c", "word2\nbad"))]
    bad = {write(folder / "b.txt", b"ab\xff"): "line 1, byte 2", write(folder / "d.txt", ""): "empty"}
    bad |= {write(folder / "e.txt", " \n"): "no text"}
    encoder, notes = sslcli.load(run), list[str]()
    found = read_text_files([str(folder)], encoder.preprocessor, notes)
    assert (list(found.ids), list(found.paths)) == (good, good)
    assert found.unreadable.keys() == bad.keys()
    assert all(part in found.unreadable[path] for path, part in bad.items())
    with pytest.raises(DataError, match=r"\w\.txt cannot be read"):
        encoder.embed(str(folder))
    both = read_text_files([good[0], str(folder)], encoder.preprocessor, notes)
    assert (len(both.dataset.train), both.unreadable) == (3, found.unreadable)
    for path in (*good, next(iter(bad))):
        Path(path).unlink()
    with pytest.raises(DataError, match=r"none of 2 files can be read: .*empty"):
        read_text_files([str(folder)], encoder.preprocessor, notes)


def test_predictions_of_a_folder_have_a_row_for_each_file(classified: Run, tmp_path: Path, cli):
    for name, text in (("a", "word1 good"), ("c", "word2 bad")):
        write(tmp_path / "mixed" / f"{name}.txt", text)
    write(tmp_path / "mixed" / "b.txt", b"ab\xff")
    done = cli("predict", str(classified.path), "mixed", "out=out.csv", "device=cpu")
    assert done.code == 0, done.err
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert {Path(row["path"]).name: bool(row["error"]) for row in rows} == {
        "a.txt": False,
        "c.txt": False,
        "b.txt": True,
    }


EMPTIES = {
    "rows.jsonl": ['{"text":"word1 good"}', '{"text":""}', '{"text":null}', '{"text":"   "}', '{"text":"word2 bad"}'],
    "rows.csv": ["text,id", "word1 good,1", ",2", '"  ",3', ",4", "word2 bad,5"],
    "rows.txt": ["word1 good", "", "   ", "", "word2 bad"],
}


@pytest.mark.parametrize("name", EMPTIES)
def test_empty_documents_are_rows_with_an_error(classified: Run, tmp_path: Path, cli, name: str):
    """In the order of the file, between rows that are those of the same texts elsewhere. Embeddings leave them out."""
    path, first = write(tmp_path / name, EMPTIES[name]), 2 if name.endswith(".csv") else 1
    done = cli("predict", str(classified.path), path, "device=cpu")
    assert done.code == 0, done.err
    assert f"{path}: 3 empty documents, in lines {first + 1}, {first + 2}, {first + 3}" in done.err
    rows = list(csv.DictReader(done.out.splitlines()))
    assert [row.pop("path") for row in rows] == [f"{path}:line {first + i}" for i in range(5)]
    assert [row["error"] for row in rows] == ["", *["the document is empty"] * 3, ""]
    encoder = sslcli.load(classified)
    texts = encoder.predict(["word1 good", "word2 bad"])
    assert [row["class"] for row in rows] == [texts[0]["class"], "", "", "", texts[1]["class"]]
    assert [row["error"] for row in encoder.predict(path)] == [row["error"] or None for row in rows]
    assert torch.equal(encoder.embed(path), encoder.embed(["word1 good", "word2 bad"]))
    out = cli("embed", str(classified.path), path, f"out={tmp_path / 'e.npz'}", "device=cpu")
    assert (out.code, "3 samples left out" in out.err) == (0, True), out.err
    assert np.load(tmp_path / "e.npz")["id"].tolist() == [f"{path}:line {first}", f"{path}:line {first + 4}"]


def test_empty_documents_of_several_files(run: Run, tmp_path: Path):
    paths = [write(tmp_path / "a.txt", ["word1", "", "word2"]), write(tmp_path / "b.txt", ["", *["word3", ""] * 9])]
    notes: list[str] = []
    found = read_text_files(paths, sslcli.load(run).preprocessor, notes)
    bad = found.dataset.train.bad
    assert sorted(bad) == [1, 3, *range(5, 22, 2)]
    assert [found.ids[i] for i in sorted(bad)[:3]] == [f"{paths[0]}:line 2", f"{paths[1]}:line 1", f"{paths[1]}:line 3"]
    assert any(note.endswith("10 empty documents, in lines 1, 3, 5, 7, 9 and 5 more") for note in found.dataset.notes)
    moved = read_text_files(
        [write(tmp_path / "a.txt", ["word1", "word2", ""]), paths[1]], sslcli.load(run).preprocessor, []
    )
    assert moved.dataset.fingerprint != found.dataset.fingerprint


def test_empty_rows_of_parquet(run: Run, tmp_path: Path):
    pytest.importorskip("pyarrow")
    from pyarrow import parquet, table

    path = str(tmp_path / "rows.parquet")
    parquet.write_table(table({"text": ["word1", None, "", "word2"]}), path)
    found = read_text_files([path], sslcli.load(run).preprocessor, [])
    assert f"warning: {path}: 2 empty documents, in rows 2, 3" in found.dataset.notes
    assert list(found.dataset.train.bad) == [1, 2]
