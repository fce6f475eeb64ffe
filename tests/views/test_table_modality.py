"""What evaluators ask of tables: raw features, baselines, corruptions, constant guesses and errors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from sslcli.views.corruption import corrupt
from sslcli.views.modality import modality
from tests.rows import VALUES, dataset, rows

TABLE = modality("table")


def test_raw_features_are_scaled_and_one_hot():
    x = torch.tensor([[1.5, 2.0, math.nan, 0.0, 5.0, -1.0]])
    features = TABLE.raw_features(dataset()).transform(x)
    expected = [1.5, 0, -1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert features.tolist() == [expected]


def test_baselines_predict_labels():
    data = dataset(600)
    x, y = data.train.resident.tensor, data.train.labels
    test, truth = rows(300, 1)
    for name, baseline in TABLE.baselines(data).items():
        predict = baseline.fit(x, y, 3)
        p = predict(test)
        assert p.shape == (300, 2), name
        torch.testing.assert_close(p.sum(1), torch.ones(300, dtype=p.dtype))
        assert (p.argmax(1) == truth).float().mean() > 0.85, name
        assert torch.equal(p, baseline.fit(x, y, 3)(test)), name
        assert "scikit-learn" in baseline.note


def test_baselines_predict_values():
    data = replace(dataset(600), task="value")
    x = data.train.resident.tensor
    y = 3 * x[:, 0].double() + x[:, 1].double()
    test, _ = rows(300, 1)
    truth = 3 * test[:, 0].double() + test[:, 1].double()
    for name, baseline in TABLE.baselines(data).items():
        error = (baseline.fit(x, y, 0)(test).double() - truth).square().mean().sqrt()
        assert error < 0.25 * truth.std(), name


def test_boosting_treats_unknown_categories_as_missing():
    given = TABLE.baselines(dataset())["boosting"]._input(
        torch.tensor([[0.0, 0.0, math.nan, 1.0, 2.0, 1.0]]), torch.arange(6)
    )
    assert [None if v != v else v for v in given[0].tolist()] == [0.0, None, None, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("task", ["classes", "value"])
def test_baselines_fit_columns_without_any_value(task):
    """A column may have values in some samples, but in no labeled one."""
    data = replace(dataset(60), task=task)
    x, y = data.train.resident.tensor.clone(), data.train.labels
    test, _ = rows(300, 1)
    for missing in ([2, 3], list(range(6))):
        x = VALUES.remove(x, torch.isin(torch.arange(6), torch.tensor(missing)).expand_as(x))
        for baseline in TABLE.baselines(data).values():
            assert torch.isfinite(baseline.fit(x, y, 0)(test)).all()


def test_boosting_leaves_out_columns_that_its_rows_may_lack(monkeypatch):
    """scikit-learn holds a tenth of more than 10,000 rows out, and bins the others."""
    seen = []
    monkeypatch.setattr(
        "sklearn.ensemble.HistGradientBoostingClassifier.fit", lambda self, x, y: seen.append(x) or self
    )
    monkeypatch.setattr("sklearn.ensemble.HistGradientBoostingClassifier.predict_proba", lambda self, x: x)
    x = rows(10_010)[0]
    y = (x[:, 0] > 0).long()
    for n, values, columns in ((10_010, 20, 6), (10_010, 19, 5), (10_000, 1, 6), (10_000, 0, 5)):
        few = x[:n].clone()
        few[:values, 2], few[values:, 2] = 1.0, math.nan
        predict = TABLE.baselines(dataset())["boosting"].fit(few, y[:n], 0)
        assert seen[-1].shape == (n, columns)
        assert predict(x[:5]).shape == (5, columns)


def test_corruptions_grow_and_keep_categories():
    x, ids = rows(300)[0], torch.arange(300)
    category = VALUES.is_category(x)
    for name, corruption in TABLE.corruptions(dataset()).items():
        distances = []
        for strength in (1, 3, 5):
            out = corrupt(corruption, name, x, strength, ids, 0)
            if name == "missing":
                distances.append((~VALUES.present(out)).float().mean())
            else:
                assert torch.equal(out[:, category], x[:, category])
                distances.append((out - x).nan_to_num().abs().mean())
        assert distances == sorted(distances), name
        assert distances[0] > 0


def test_constant_guess_is_mean_or_most_frequent():
    x = torch.tensor([[1.0, 2.0, math.nan, 1, 0, 0], [3.0, 2.0, 4.0, 2, 0, 0], [5.0, 3.0, 6.0, 2, 4, 0]])
    guess = TABLE.mean(iter([x[:2], x[2:]]), dataset())
    torch.testing.assert_close(guess, torch.tensor([[3.0, 2.0, 5.0, 2.0, 4.0, 0.0]]))


def test_errors_of_numbers_and_categories():
    x = torch.tensor([[1.0, 2.0, math.nan, 0.0, 1.0, 0.0]])
    guess = torch.tensor([[3.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    errors = TABLE.errors(guess, x, VALUES)
    torch.testing.assert_close(errors["mse"][0, [0, 5]], torch.tensor([4.0, 1.0]))
    assert errors["mse"][0, [1, 2, 3, 4]].isnan().all()
    torch.testing.assert_close(errors["error_rate"][0, [1, 4]], torch.tensor([1.0, 0.0]))
    assert errors["error_rate"][0, [0, 2, 3, 5]].isnan().all()


def test_predictions_are_shown_as_rows():
    likelihood = VALUES.likelihood()
    logits = F.one_hot(torch.arange(likelihood.slices.outputs) % 3, 3).float()[:, 0][None]
    (shown,) = TABLE.preview(likelihood.mode(logits), dataset())
    assert "column 6" in shown.text()
