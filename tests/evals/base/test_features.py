from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import DataError, TrainingError
from sslcli.evals.base.embedding import evaluating
from sslcli.evals.base.features import EvalData
from sslcli.evals.knn import knn
from tests.evals import toys


def test_features_are_computed_in_eval_mode(data):
    backbone = toys.Rows().train()
    x, y = data.features(backbone, "test")
    raw = (data.dataset.test.x.float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = toys.Rows().eval()(raw)
    torch.testing.assert_close(x, expected)
    assert torch.equal(y, data.dataset.test.labels)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert backbone.norm.num_batches_tracked == 0  # no statistics were updated
    assert not x.requires_grad


def test_features_restore_training_flags():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval()).train(), nn.ReLU())
    net[1][1].eval()
    before = [m.training for m in net.modules()]
    with evaluating(net):
        assert not any(m.training for m in net.modules())
    assert [m.training for m in net.modules()] == before

    def fail():
        with evaluating(net):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [m.training for m in net.modules()] == before
    assert True in before
    assert False in before


def test_features_do_not_depend_on_the_batch(data):
    other = EvalData(data.dataset, batch_size=7)
    backbone = toys.Rows()
    torch.testing.assert_close(
        data.features(backbone, "train")[0], other.features(backbone, "train")[0], rtol=0, atol=1e-6
    )


def test_memory_cache_follows_the_weights(data):
    backbone = toys.Rows()
    first, _ = data.features(backbone, "test")
    calls = backbone.calls
    assert data.features(backbone, "test")[0] is first
    assert backbone.calls == calls
    with torch.no_grad():
        backbone.norm.weight.mul_(2)
    torch.testing.assert_close(data.features(backbone, "test")[0], 2 * first)


@pytest.fixture
def cached(tmp_path):
    def make(**changes):
        return EvalData(changes.pop("dataset", toys.dataset()), cache=tmp_path / "features", key="abc", **changes)

    return make


def test_disk_cache_is_used_and_leaves_no_temporary_file(cached, tmp_path):
    backbone = toys.Rows()
    x, y = cached().features(backbone, "train")
    calls = backbone.calls
    again = cached()
    x2, y2 = again.features(backbone, "train")
    assert backbone.calls == calls
    assert torch.equal(x, x2)
    assert torch.equal(y, y2)
    (file,) = (tmp_path / "features").iterdir()
    assert file.name.startswith("abc-train-240-")


def test_disk_cache_is_not_used_for_other_inputs(cached):
    backbone = toys.Rows()
    cached().features(backbone, "train")
    calls = backbone.calls
    other = toys.dataset()
    other.fingerprint = "other samples"
    cached(dataset=other).features(backbone, "train")
    assert backbone.calls == calls + 1
    half = lambda: torch.autocast("cpu", dtype=torch.bfloat16)  # noqa: E731
    cached(autocast=half).features(backbone, "train")
    assert backbone.calls == calls + 2


@pytest.mark.parametrize("harm", ["flip a bit", "truncate", "empty"])
def test_disk_cache_is_rewritten_when_corrupt(cached, tmp_path, harm):
    backbone = toys.Rows()
    x, _ = cached().features(backbone, "test")
    (file,) = (tmp_path / "features").iterdir()
    good = file.read_bytes()
    bad = bytearray(good)
    bad[-9] ^= 1
    file.write_bytes({"flip a bit": bytes(bad), "truncate": good[:-100], "empty": b""}[harm])
    again = cached()
    assert torch.equal(again.features(backbone, "test")[0], x)
    assert any("computed again" in note for note in again.notes)
    assert file.read_bytes() == good


def test_disk_cache_reports_failed_writes(tmp_path):
    (tmp_path / "file").write_text("in the way")
    data = EvalData(toys.dataset(), cache=tmp_path / "file")
    assert len(data.features(toys.Rows(), "test")[0]) == 120
    assert any("could not be cached" in note for note in data.notes)


def test_features_must_be_finite(data):
    backbone = toys.Rows()
    with torch.no_grad():
        backbone.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="120 of 120 test samples are not finite"):
        data.features(backbone, "test")


def test_features_require_a_test_split():
    whole = toys.dataset()
    whole.test = None
    with pytest.raises(DataError, match="no test split") as error:
        EvalData(whole).features(toys.Rows(), "test")
    assert "dataset.holdout" in error.value.hint


def test_features_of_unlabeled_samples_have_label_minus_one():
    unlabelled = Dataset("u", "image", (1, 8, 8), ArraySource(toys.images(5, 0).x), None)
    assert EvalData(unlabelled).features(toys.Rows(), "train")[1].tolist() == [-1] * 5


def test_features_use_autocast():
    entered = []

    @contextlib.contextmanager
    def autocast():
        entered.append(1)
        yield

    EvalData(toys.dataset(), autocast=autocast, batch_size=60).features(toys.Rows(), "test")
    assert len(entered) >= 2


def test_raw_features_are_of_the_clean_view(data):
    x, y = data.raw("test")
    torch.testing.assert_close(x, ((data.dataset.test.x.float() / 255 - 0.5) / 0.5).flatten(1))
    assert torch.equal(y, data.dataset.test.labels)


def test_unseen_classes_are_in_every_result():
    rows = toys.dataset(40, 20, classes=4)
    rows.train.labels = torch.where(rows.train.labels == 1, -1, rows.train.labels)
    rows.test.labels[0] = -1
    n = int((rows.test.labels == 1).sum())
    rows.notes.append("warning: 3 test images also in train")
    rows.notes.append("all 8x8")
    data = EvalData(rows)
    assert data.notes == [
        "warning: 3 test images also in train",
        f"warning: class {rows.classes[1]} occurs in the test split only: its {n} samples of 19 cannot be classified correctly "
        "from training labels",
        "1 of 20 test samples have no label and do not count for the accuracy",
    ]
    assert set(data.notes) <= set(knn(toys.Rows(), data, k=2, baselines=False).protocol["notes"])
    rows.test.labels[:] = -1
    assert "the test split has no labels" in EvalData(rows).notes[1]
