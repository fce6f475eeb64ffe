"""Statistics of paired comparisons, against scipy and statsmodels, by hand, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from sslcli.errors import RequestError
from sslcli.evals.metrics.paired import bootstrap, compare, holm, mcnemar, permutation
from sslcli.evals.pairing.predictions import align, same_data
from sslcli.evals.pairing.separation import by_intervals, separation
from sslcli.runs.results import SavedResult


def answers(both: int, only_a: int, only_b: int, none: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([1.0, 1.0, 0.0, 0.0], [both, only_a, only_b, none])
    b = np.repeat([1.0, 0.0, 1.0, 0.0], [both, only_a, only_b, none])
    return a, b


def test_compare_of_known_case():
    found = compare(*answers(50, 3, 11, 36))
    assert (found.first, found.second, found.items) == (0.53, 0.61, 100)
    assert found.difference == pytest.approx(0.08)
    assert (found.better, found.worse) == (11, 3)
    assert found.p == pytest.approx(2 * (1 + 14 + 91 + 364) / 2**14)  # both tails of B(14, 1/2) from 3 down
    assert found.low < 0.08 < found.high
    same = compare(*answers(5, 0, 0, 5))
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_mcnemar_matches_statsmodels():
    tables = pytest.importorskip("statsmodels.stats.contingency_tables", exc_type=ImportError)
    for better, worse in ((3, 11), (0, 1), (40, 40), (200, 150), (0, 0)):
        theirs = tables.mcnemar([[50, better], [worse, 7]], exact=True).pvalue if better + worse else 1.0
        assert mcnemar(better, worse) == pytest.approx(theirs)


def test_mcnemar_matches_scipy_binomial_test():
    from scipy.stats import binomtest

    for better, worse in ((3, 11), (0, 1), (40, 40), (41, 40), (0, 900), (2000, 1800)):
        assert mcnemar(better, worse) == pytest.approx(binomtest(better, better + worse).pvalue, rel=1e-9)


def test_separation_by_intervals():
    assert by_intervals(0.1, [(0.85, 0.95), (0.75, 0.85)], "x").distinguishable
    assert not by_intervals(0.05, [(0.85, 0.95), (0.8, 0.9)], "x").distinguishable
    assert by_intervals(0.05, [(0.85, 0.95), (0.8, None)], "x").distinguishable is None


def test_mcnemar_decides_where_the_bootstrap_interval_excludes_zero(tmp_path):
    from safetensors.numpy import save_file

    labels = np.zeros(150, dtype=np.int64)
    predicted = np.zeros((2, 1, 150), dtype=np.int64)
    predicted[0, 0, :1], predicted[1, 0, 1:8] = 1, 1  # the first errs on 1 sample, the second on 7 others
    found = []
    for name, guess in zip("ab", predicted, strict=True):
        (tmp_path / name / "eval").mkdir(parents=True)
        arrays = {"ids": np.arange(150), "truth": labels, "predicted": guess}
        save_file(arrays, tmp_path / name / "eval" / "probe_predictions.safetensors")
        record = {"numbers": {"top1": float((guess == 0).mean())}, "fingerprint": "same"}
        found.append(SavedResult("probe", tmp_path / name, "eval/probe.json", record))
    result = separation(*found, "top1")
    assert result.difference.p == pytest.approx(0.0703125)
    assert result.difference.low > 0
    assert not result.distinguishable
    assert result.words.startswith("not distinguishable from the next (decided by McNemar p 0.07, not below 0.05; ")
    assert "bootstrap 95 % interval +0.007" in result.words


def test_holm_of_known_case_and_matches_statsmodels():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9]) == [0.9]
    multiple = pytest.importorskip("statsmodels.stats.multitest", exc_type=ImportError)
    ps = np.random.default_rng(0).uniform(size=9) ** 3
    assert holm(list(ps)) == pytest.approx(list(multiple.multipletests(ps, method="holm")[1]))


def test_bootstrap_matches_scipy():
    """scipy draws the items themselves; the interval of the mean is the same but for chance."""
    from scipy.stats import bootstrap as theirs

    a, b = answers(700, 60, 100, 140)
    low, high = bootstrap(b - a, seed=1)
    said = theirs((b - a,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0), batch=500)
    assert low == pytest.approx(said.confidence_interval.low, abs=1.5e-3)
    assert high == pytest.approx(said.confidence_interval.high, abs=1.5e-3)


def test_permutation_matches_scipy():
    from scipy.stats import permutation_test

    rng = np.random.default_rng(2)
    for m, shift in ((9, 0.4), (9, 0.0), (60, 0.25)):
        change = np.round(rng.normal(shift, 1, m), 1)  # some are equal
        p = permutation_test(
            (change, np.zeros(m)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000, rng=rng
        ).pvalue
        assert permutation(change, 3, 20_000) == pytest.approx(p, abs=0.015)
    assert permutation(np.zeros(5)) == 1
    assert permutation(np.ones(100)) == pytest.approx(1 / 10_001)


def test_bootstrap_depends_on_the_seed():
    change = np.random.default_rng(0).normal(size=50)
    assert bootstrap(change, seed=3) == bootstrap(change[::-1], seed=3)  # of the values, not of their order
    assert bootstrap(change, seed=3) != bootstrap(change, seed=4)


def test_bootstrap_is_equal_in_blocks(monkeypatch):
    many = np.random.default_rng(0).normal(size=500)  # 500 different values: 8,000 resamples at a time, and the rest
    low, high = bootstrap(many, seed=0)
    assert high - low == pytest.approx(2 * 1.96 * many.std() / 500**0.5, rel=0.05)


def test_bootstrap_interval_has_nominal_coverage():
    """Two models whose true difference is 3 points, on 300 items, drawn 1,000 times: 95 % of the intervals hold it.

    1,000 draws of a 95 % event scatter by 0.7 points; four of these are allowed."""
    rng = np.random.default_rng(0)
    shares = [0.80, 0.05, 0.08, 0.07]  # both right, only a, only b, none
    held = 0
    for trial in range(1_000):
        a, b = answers(*rng.multinomial(300, shares))
        low, high = bootstrap(b - a, seed=trial, resamples=1_000)
        held += low <= 0.03 <= high
    assert 0.922 < held / 1_000 < 0.978


def test_mcnemar_has_at_most_nominal_size():
    rng = np.random.default_rng(1)
    rejected = sum(mcnemar(*rng.multinomial(300, [0.05, 0.05, 0.9])[:2]) < 0.05 for _ in range(2_000))
    assert rejected / 2_000 < 0.05 + 4 * (0.05 * 0.95 / 2_000) ** 0.5


def test_align_matches_items_by_id():
    a = np.array([4, 2, 9]), np.array([0, 1, 1]), np.array([[0, 1, 0]])
    b = np.array([9, 4, 7]), np.array([1, 0, 5]), np.array([[1, 1, 5], [1, 0, 5]])
    ids, rights_a, rights_b = align(a, b)
    assert ids.tolist() == [4, 9]
    assert rights_a.tolist() == [1, 0]
    assert rights_b.tolist() == [0.5, 1]  # right in one of two draws, and in both
    with pytest.raises(RequestError, match="no test item in common"):
        align(a, (np.array([1]), np.array([0]), np.array([[0]])))
    with pytest.raises(RequestError, match="labels of the same test items differ"):
        align(a, (np.array([4]), np.array([7]), np.array([[7]])))


def test_compare_counts_an_item_once_for_any_draws():
    one = compare(*answers(50, 3, 11, 36))
    a, b = answers(50, 3, 11, 36)
    five = compare(np.stack([a] * 5).mean(axis=0), np.stack([b] * 5).mean(axis=0))
    assert five == one


def test_other_items_of_the_same_users_are_other_data(tmp_path):
    def result(**protocol: str) -> SavedResult:
        record = {"numbers": {}, "fingerprint": "f", "protocol": protocol}
        return SavedResult("recommend", tmp_path, "eval/recommend.json", record)

    last, by_time = result(division="the last item", part="test"), result(division="by date", part="test")
    assert same_data(last, result(division="the last item", part="test"))
    assert not same_data(last, by_time)
    assert not same_data(last, result(division="the last item", part="val"))
