"""Raw features and baselines receive whole samples where a clean view is a part of one, and clean views otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sslcli.config import instantiate
from sslcli.data.dataset import Source
from sslcli.data.subset import Subset
from sslcli.evals.base.cross_validation import Fold, Pooled
from sslcli.evals.base.features import EvalData
from sslcli.evals.inputs.baselines import fit_classifiers
from sslcli.evals.inputs.label_subsets import Amount
from sslcli.evals.probe import probe
from sslcli.evals.robustness import robustness
from sslcli.views.modality import Baseline, RawFeatures, modality
from tests.evals import toys
from tests.letters import spelling


class Strings(list[str]):
    """Whole words, which a tensor of positions indexes."""

    def __getitem__(self, rows: Any) -> Any:
        return Strings([list.__getitem__(self, i) for i in rows.tolist()])


class CountLetters(RawFeatures):
    """The number of each letter of strings, or of views, and the mean number of those in the training samples."""

    fitted = True

    def __init__(self) -> None:
        self.mean = torch.zeros(26)
        self.seen: list[type] = []

    def fit(self, batches: Any) -> None:
        self.mean = torch.cat([self.counts(x) for x in batches]).mean(dim=0)

    def transform(self, x: Any) -> Tensor:
        return self.counts(x) - self.mean

    def counts(self, x: Any) -> Tensor:
        self.seen.append(type(x))
        words = spelling.spell(x) if isinstance(x, Tensor) else x
        return torch.tensor([[float(word.count(chr(97 + i))) for i in range(26)] for word in words])


class MoreOfA(Baseline):
    """Class 0 with as many votes as there are letters a, class 1 with as many as there are z."""

    note = "letters"
    lengths: set[int] = set()

    def fit(self, x: Strings, y: Tensor, seed: int, class_weight: str | None = None) -> Callable[[Strings], Tensor]:
        assert len(x) == len(y)
        self.lengths |= {len(word) for word in x}
        return lambda new: torch.tensor([[word.count("a") + 1e-3, word.count("z") + 1e-3] for word in new])


@pytest.fixture
def data(monkeypatch) -> EvalData:
    """Words of six letters, of which views hold all, and whose whole form is twice as long."""
    monkeypatch.setattr(instantiate, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    instantiate.trust_folder(Path(spelling.__file__).parent)
    kind = type(modality("letters"))

    def whole(self: Any, source: Source, ids: Tensor, dataset: Any) -> Strings:
        return Strings([spelling.spell(source.read(i)[None])[0] * 2 for i in ids.tolist()])

    monkeypatch.setattr(kind, "whole", whole)
    monkeypatch.setattr(kind, "raw_features", lambda self, dataset: CountLetters())
    monkeypatch.setattr(kind, "baselines", lambda self, dataset: {"letters": MoreOfA()})
    return EvalData(spelling.load(), batch_size=7)


def backbone() -> spelling.CountLetters:
    torch.manual_seed(0)
    return spelling.CountLetters((spelling.LENGTH,), spelling.VALUES)


def test_raw_features_are_of_whole_samples(data):
    x, y = data.raw("test")
    assert set(data.raw_features.seen) == {Strings}
    words = spelling.spell(data.dataset.test.x)
    counts = torch.tensor([[2.0 * word.count(chr(97 + i)) for i in range(26)] for word in words])
    torch.testing.assert_close(x, counts - data.raw_features.mean)
    assert torch.equal(y, data.dataset.test.labels)
    assert torch.equal(data.ids("test"), torch.arange(40))


def test_baselines_are_fitted_to_whole_samples(data):
    data.dataset.test.labels[3] = -1
    outputs, y = fit_classifiers(data, Amount("all"), 2)
    assert len(y) == 39
    assert outputs["letters"].scores(y, binary=True)["top1"] == [1.0, 1.0]
    assert MoreOfA.lengths == {12}


def test_probe_and_robustness_use_whole_samples(data):
    assert probe(backbone(), data).metrics["letters.top1"] == 1.0
    result = robustness(backbone(), data, baselines="raw")
    assert Tensor in data.raw_features.seen  # of corrupted samples there are views alone
    assert result.metrics["raw.clean.top1"] > 0.9
    assert any("fitted to whole samples" in note for note in result.protocol["notes"])


def test_folds_fit_raw_features_to_their_own_samples(data):
    fold = Fold(data, Pooled(data), {"train": torch.arange(20), "test": torch.arange(20, 30)})
    x, _ = fold.raw("test")
    assert x.shape == (10, 26)
    assert isinstance(fold.source("train"), Subset)
    words = spelling.spell(data.dataset.train.x[:20])
    torch.testing.assert_close(fold.raw_features.mean[0], torch.tensor(sum(2.0 * w.count("a") for w in words) / 20))


def test_clean_views_are_taken_without_whole_samples():
    data = EvalData(toys.dataset())
    x, ids = data.samples("train")
    views, same = data.inputs("train", torch.arange(len(data.dataset.train)))
    assert torch.equal(x, views)
    assert torch.equal(ids, same)
    assert torch.equal(data.raw("train")[0], views.flatten(1))
