"""The tables of scikit-learn are those that scikit-learn loads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import datasets

import sslcli.data


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "diabetes"])
def test_table_equals_that_of_scikit_learn(name):
    dataset = getattr(sslcli.data, name)(holdout=0)
    raw = getattr(datasets, f"load_{name}")(**({"scaled": False} if name == "diabetes" else {}))
    expected = (raw.data - raw.data.mean(0)) / raw.data.std(0)
    assert np.allclose(dataset.train.resident.tensor, expected, atol=1e-5)
    assert dataset.preprocessor.names == [str(f) for f in raw.feature_names]
    if name == "diabetes":
        assert (dataset.task, dataset.train.labels) == ("value", None)
        assert dataset.train.targets["value"].tolist() == raw.target.tolist()
    else:
        assert [dataset.classes[i] for i in dataset.train.labels] == [str(raw.target_names[t]) for t in raw.target]


@pytest.mark.parametrize(
    ("name", "train", "test"), [("breast_cancer", 455, 114), ("wine", 142, 36), ("diabetes", 353, 89)]
)
def test_fifth_is_held_out(name, train, test):
    dataset = getattr(sslcli.data, name)()
    assert (len(dataset.train), len(dataset.test)) == (train, test)
    like = getattr(sslcli.data, name)(split_seed=1, like=dataset.preprocessor)
    assert like.values == dataset.values
    assert torch.allclose(dataset.train.resident.tensor.mean(0), torch.zeros(dataset.shape), atol=1e-5)
