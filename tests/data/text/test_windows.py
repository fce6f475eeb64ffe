"""Features of long documents are means over their windows (`dataset.windows`), in evaluations as in `embed`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import sslcli
from sslcli.audit.pool import pool_of
from sslcli.audit.samples import measure
from sslcli.builders import load_dataset
from sslcli.config.compose import compose
from sslcli.data.record import is_same_dataset, read_record
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.errors import RequestError
from sslcli.evals.base import features as features_module
from sslcli.evals.base.features import EvalData
from sslcli.inference.encoder import open_trained
from sslcli.inference.inputs import InputRequest, read_inputs
from sslcli.nn.windows import mean_over_windows
from sslcli.rng import Draw
from sslcli.runs.run import Run
from sslcli.training.configuration import resolve
from sslcli.views import clean, whole
from tests.data.text.conftest import write
from tests.data.text.test_run_of_text import BACKBONE, TINY

LENGTH, ROOM = 8, 6
WORDS = [f"word{i}" for i in range(17)]
DOCUMENTS = [" ".join(WORDS[:n]) for n in (17, 6, 7, 0, 3, 12)]


def views_of(read_lines, windows: int):
    dataset = read_lines([*DOCUMENTS[:3], "word0", *DOCUMENTS[4:]], max_length=LENGTH, windows=windows)
    raw = dataset.train.resident.batch(torch.arange(len(dataset.train)), torch.device("cpu"))
    draw = Draw(0, 0, torch.arange(len(raw)))
    return dataset, clean(dataset)(raw, draw)[0], whole(dataset)(raw, draw)[0]


def test_windows_are_consecutive_and_hold_the_whole_document(read_lines):
    dataset, first, windows = views_of(read_lines, 3)
    assert windows.shape == (6, 3, LENGTH)
    assert torch.equal(windows[:, 0], first)
    pad, tokenizer = dataset.values.pad, dataset.preprocessor.tokenizer
    assert [tokenizer.decode(row.flatten()).split() for row in windows[:3]] == [text.split() for text in DOCUMENTS[:3]]
    assert (windows != pad).any(dim=2).tolist() == [
        [True, True, True],  # of 17 words
        [True, False, False],
        [True, True, False],
        [True, False, False],
        [True, False, False],
        [True, True, False],  # of 12, which end with the second window
    ]
    _, _, two = views_of(read_lines, 2)
    assert torch.equal(two, windows[:, :2])  # what is beyond is left out


def test_one_window_is_the_clean_view(read_lines):
    _, first, views = views_of(read_lines, 1)
    assert torch.equal(views, first)


def test_mean_is_weighted_by_tokens(read_lines):
    dataset, _, windows = views_of(read_lines, 3)
    values, seen = dataset.values, []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return torch.stack([x.sum(dim=1), (x != values.pad).sum(dim=1)], dim=1).double()

    found = mean_over_windows(network, windows, values)
    assert seen == [6, 4]  # six at a time, and none of the empty ones
    assert sum(seen) == int((windows != values.pad).any(dim=2).sum())
    for row, z in zip(windows, found, strict=True):
        parts = [(part, int((part != values.pad).sum())) for part in row]
        total = sum(count for _, count in parts)
        expected = sum(count * network(part[None])[0] for part, count in parts) / total
        assert torch.allclose(z, expected)


def test_a_document_without_tokens_has_the_features_of_its_first_window(read_lines):
    values = read_lines(["a b"], max_length=LENGTH).values
    x = torch.full((2, 3, LENGTH), values.pad)
    x[1, 0, 0] = values.start
    found = mean_over_windows(lambda x: x.double(), x, values)
    assert torch.equal(found, x[:, 0].double())


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("windows")
    rows = [
        "text,label",
        *(f"{' '.join(WORDS[i % 5 : i])} {mood},{mood}" for i in range(20) for mood in ("good", "bad")),
    ]
    path = write(folder / "rows.csv", rows)
    data = ["dataset=text_table", f"dataset.path={path}", f"dataset.max_length={LENGTH}", "dataset.tokenizer=words"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLCLI_RUNS", str(folder / "runs"))
        return sslcli.pretrain(*data, *BACKBONE, method="mlm", **TINY)


def test_embed_and_evaluations_agree(run):
    encoder = sslcli.load(run)
    assert encoder.preprocessor.windows == 8  # the default of the YAML
    dataset = load_dataset(run.config)
    texts = dataset.preprocessor.decode([dataset.test.resident[i] for i in range(len(dataset.test))])
    features, _ = EvalData(dataset).features(encoder.module, "test")
    assert torch.allclose(encoder.embed(texts), features, atol=1e-5)
    assert torch.equal(encoder.embed(texts, batch_size=1), encoder.embed(texts, batch_size=5))
    first, _ = EvalData(dataset).without_windows().features(encoder.module, "test")
    changed = (features - first).abs().amax(dim=1) > 1e-5
    longer = dataset.test.resident.lengths > ROOM
    assert torch.equal(changed, longer)
    assert longer.any()


def test_a_document_of_two_windows_is_the_mean_of_two_documents(run):
    encoder = sslcli.load(run)
    first, second = " ".join(WORDS[:ROOM]), " ".join(WORDS[ROOM : ROOM + 2])
    one, other = encoder.embed([first, second])
    whole_text = encoder.embed([f"{first} {second}"])[0]
    count = torch.tensor([ROOM + 2, 2 + 2])  # with [CLS] and [SEP]
    assert torch.allclose(whole_text, (count[0] * one + count[1] * other) / count.sum(), atol=1e-5)


def test_an_evaluation_may_have_another_number(run):
    default = sslcli.evaluate(run, "knn")
    data = ["dataset=text_table", f"dataset.path={run.config['dataset']['path']}", "dataset.tokenizer=words"]
    fewer = sslcli.evaluate(run, "knn", *data, f"dataset.max_length={LENGTH}", "dataset.windows=1")
    assert default.keys() == fewer.keys()
    assert sslcli.load(run).preprocessor.windows == 8


@pytest.fixture(scope="module")
def short_run(run, tmp_path_factory) -> Run:
    """Another run on the same data, which reads the start of documents alone."""
    data = [f"dataset.path={run.config['dataset']['path']}", f"dataset.max_length={LENGTH}", "dataset.tokenizer=words"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSLCLI_RUNS", str(tmp_path_factory.mktemp("short")))
        return sslcli.pretrain("dataset=text_table", *data, "dataset.windows=1", *BACKBONE, method="mlm", **TINY)


@pytest.mark.parametrize(("given", "windows"), [([], 1), (["dataset.windows=3"], 3), (["dataset.windows=8"], 8)])
def test_named_data_have_the_number_of_the_run(short_run, monkeypatch, given, windows):
    """Unless another one is given, as a data set of an evaluation and of embed."""
    data = ["dataset=text_table", f"dataset.path={short_run.config['dataset']['path']}", "dataset.tokenizer=words"]
    data += [f"dataset.max_length={LENGTH}", *given]
    found = []
    init = EvalData.__init__

    def spy(self, dataset, *args, **options):
        found.append(dataset.preprocessor.windows)
        init(self, dataset, *args, **options)

    monkeypatch.setattr(EvalData, "__init__", spy)
    sslcli.evaluate(short_run, "knn", *data)
    assert set(found) == {windows}
    values = resolve(compose("pretrain", data))
    inputs = read_inputs(open_trained(str(short_run.path)), InputRequest.parse([], values, data))
    assert inputs.dataset.preprocessor.windows == windows


def test_data_of_the_run_need_no_number(run, short_run):
    """The configuration of an earlier version has the default, which is null now."""
    own = short_run.config["dataset"]
    assert is_same_dataset({**own, "windows": None}, own, read_record(Run(short_run.path)))
    record, node = read_record(Run(run.path)), run.config["dataset"]
    assert node["windows"] is None
    assert is_same_dataset(node, {**node, "windows": 8}, record)
    assert not is_same_dataset({**node, "windows": 1}, node, record)


def test_training_does_not_depend_on_it(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCLI_RUNS", str(tmp_path))
    data = [f"dataset.path={run.config['dataset']['path']}", f"dataset.max_length={LENGTH}", "dataset.tokenizer=words"]
    other = sslcli.pretrain("dataset=text_table", *data, "dataset.windows=1", *BACKBONE, method="mlm", **TINY)
    a, b = (sslcli.load(r).module.state_dict() for r in (run, other))
    assert all(torch.equal(value, b[key]) for key, value in a.items())
    file = json.loads((Path(other.path) / "preprocessor" / "preprocessor.json").read_text())
    assert "windows" not in file  # as written by earlier versions


def test_values_that_are_none(read_lines, run):
    with pytest.raises(RequestError, match=r"dataset\.windows: expected 1 to 1,024, got 0"):
        read_lines(["a b"], windows=0)
    files = dict(sslcli.load(run).preprocessor.files())
    content = json.loads(files["preprocessor.json"])
    for wrong in (0, 1025, "8", 1.5):
        files["preprocessor.json"] = json.dumps({**content, "windows": wrong}).encode()
        with pytest.raises(ValueError, match="windows"):
            TextPreprocessor.from_json({**content, "windows": wrong}, files)


def test_audit_compares_features_of_whole_documents(run):
    dataset = load_dataset(run.config)
    backbone, data = sslcli.load(run).module, EvalData(dataset)
    pool = pool_of(dataset)
    found = measure(pool, data, backbone, None)
    n = len(dataset.train)
    expected, _ = data.features(backbone, "train")
    assert torch.allclose(found.features[:n], expected, atol=1e-5)


def test_other_processes_compute_the_features_that_are_asked_for(run, monkeypatch):
    """Also where an evaluator asks for the start of each document alone."""
    backbone, dataset = sslcli.load(run).module, load_dataset(run.config)
    asked, computed = [], []
    monkeypatch.setattr(features_module, "world_size", lambda: 2)
    monkeypatch.setattr(features_module, "broadcast_from_rank0", asked.append)
    whole_documents = EvalData(dataset)
    found = [data.features(backbone, "test")[0] for data in (whole_documents, whole_documents.without_windows())]
    requests = iter([*asked, None])
    monkeypatch.setattr(features_module, "broadcast_from_rank0", lambda _: next(requests))
    compute = EvalData.compute_features

    def spy(self, backbone, split):
        computed.append(compute(self, backbone, split)[0])
        return computed[-1], torch.empty(0)

    monkeypatch.setattr(EvalData, "compute_features", spy)
    EvalData(dataset).serve_features(backbone)
    assert len(computed) == 2
    assert not torch.equal(*found)
    assert all(torch.equal(a, b) for a, b in zip(found, computed, strict=True))


def test_a_run_of_an_earlier_version_reads_the_start_alone(tmp_path, monkeypatch):
    """Its configuration and its preprocessor have no such key."""
    monkeypatch.setenv("SSLCLI_RUNS", str(tmp_path))
    rows = ["text,label", *(f"{' '.join(WORDS[:i])} {mood},{mood}" for i in range(20) for mood in ("good", "bad"))]
    data = [
        f"dataset.path={write(tmp_path / 'rows.csv', rows)}",
        f"dataset.max_length={LENGTH}",
        "dataset.tokenizer=words",
    ]
    earlier = sslcli.pretrain("dataset=text_table", *data, "dataset.windows=1", *BACKBONE, method="mlm", **TINY)
    file = Path(earlier.path) / "config.yaml"
    kept = [line for line in file.read_text().splitlines() if line.strip() != "windows: 1"]
    file.write_text("\n".join(kept) + "\n")
    dataset = load_dataset(Run(earlier.path).config)
    assert dataset.preprocessor.windows == 1
    assert not EvalData(dataset).windowed
    assert 0 <= sslcli.evaluate(earlier.path, "knn")["top1"] <= 1
