"""The parts of an audit against slow references."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from sslcli.audit.copies import candidate_pairs, connected
from sslcli.audit.labels import confident_class, out_of_fold
from sslcli.audit.outliers import neighbor_distances, robust_scores
from sslcli.evals.inputs import label_subsets
from sslcli.nn.values import Columns
from sslcli.views.copies import NearCopies, unit
from sslcli.views.signals.copies import SeriesCopies
from sslcli.views.signals.copies import defects as series_defects
from sslcli.views.tables.baselines import OneHot
from sslcli.views.tables.copies import RowCopies
from sslcli.views.tables.copies import defects as row_defects
from sslcli.views.texts.copies import DocumentCopies
from sslcli.views.texts.copies import defects as document_defects


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_confident_classes_are_those_of_the_paper() -> None:
    """Eq. 1 of Northcutt et al., sample by sample."""
    p = torch.rand(200, 4, generator=generator()).softmax(dim=1)
    y = torch.randint(4, (200,), generator=generator(1))
    thresholds = [float(p[y == j, j].mean()) for j in range(4)]
    expected = []
    for row, label in zip(p.tolist(), y.tolist(), strict=True):
        above = [(row[j], j) for j in range(4) if row[j] >= thresholds[j]]
        best = max(above)[1] if above else -1
        expected.append(best if best != label else -1)
    assert confident_class(p, y, torch.ones(200, dtype=torch.bool)).tolist() == expected
    assert any(e >= 0 for e in expected)


def test_out_of_fold_probabilities_are_those_of_scikit_learn() -> None:
    x = torch.randn(120, 5, generator=generator())
    y = (x[:, 0] + 0.5 * torch.randn(120, generator=generator(1)) > 0).long() + (x[:, 1] > 1).long()
    p, fitted = out_of_fold(x, y, 3, 0, None)
    assert fitted.all()
    fold = label_subsets.folds(y, 5, 0, 0)
    z = ((x - x.mean(0)) / x.std(0, correction=0)).double().numpy()
    candidates = []
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0):
        other = np.zeros((120, 3))
        for f in range(5):
            model = LogisticRegression(C=strength, max_iter=5000, tol=1e-8).fit(z[fold != f], y[fold != f])
            other[fold == f] = model.predict_proba(z[fold == f])
        candidates.append(float(np.abs(other - p.numpy()).max()))
    assert min(candidates) < 2e-3  # the strength that was chosen


def test_groups_of_copies() -> None:
    assert connected([(1, 2), (5, 6), (2, 3), (6, 9), (3, 1)]) == [[1, 2, 3], [5, 6, 9]]
    assert connected([]) == []


def test_candidates_are_all_near_neighbors() -> None:
    class Mirrored(NearCopies):
        candidate, threshold, note = 0.9, 0.9, ""

        def describe(self, x: Tensor) -> Tensor:
            return unit(x)

        def variants(self, descriptors: Tensor) -> list[Tensor]:
            return [descriptors, descriptors.flip(1)]

        def similarity(self, a: Tensor, b: Tensor) -> Tensor:
            raise NotImplementedError

    x = torch.randn(60, 8, generator=generator())
    x[40] = x[3] + 0.05 * torch.randn(8, generator=generator(1))
    x[50] = x[7].flip(0)
    d = Mirrored().describe(x)
    cosine = torch.maximum(d @ d.T, d @ d.flip(1).T).fill_diagonal_(0)
    expected = {(i, j) for i, j in torch.nonzero(cosine >= 0.9).tolist() if i < j}
    assert {(3, 40), (7, 50)} <= expected
    assert set(map(tuple, candidate_pairs(Mirrored(), d).tolist())) == expected


def test_distance_to_neighbors() -> None:
    x = torch.randn(30, 4, generator=generator())
    x[4] = x[9]  # a copy, which is as near as the sample itself
    z = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    expected = [float((1 - z[i] @ z[[j for j in range(30) if j != i]].T).sort().values[:3].mean()) for i in range(30)]
    torch.testing.assert_close(neighbor_distances(x, 3), torch.tensor(expected), atol=1e-5, rtol=0)
    scores = robust_scores(torch.tensor([1.0, 2.0, 3.0, 4.0, 100.0]))
    torch.testing.assert_close(scores, torch.tensor([-2.0, -1.0, 0.0, 1.0, 97.0]) / 1.4826)


def test_copies_of_series() -> None:
    x = torch.randn(3, 2, 50, generator=generator()).cumsum(2)
    rule = SeriesCopies()
    shifted = torch.roll(x, 2, dims=2)
    assert bool((rule.similarity(x, 3 * x + 1) > 0.999).all())
    assert bool((rule.similarity(x, shifted) > 0.99).all())
    assert bool((rule.similarity(x, x.roll(1, dims=0)) < 0.95).all())
    x[0, :, 10:] = torch.nan
    x[1] = 2.0
    found = series_defects(x, padded=False)
    assert found["missing"].isnan().tolist() == [False, True, True]
    assert found["constant"].isnan().tolist() == [True, False, True]
    x[2, 1] = torch.nan
    padded = series_defects(x, padded=True)
    assert padded["missing"].isnan().all(), "padding is not missing, and half of the values are no more than half"
    assert padded["empty_channel"].nan_to_num(0.0).tolist() == [0, 0, 1]


def test_copies_of_rows() -> None:
    values = Columns((0,) * 9 + (4, 3), (0.0,) * 9, (1.0,) * 9)
    x = torch.randn(4, 11, generator=generator())
    x[:, 9:] = torch.tensor([[1.0, 2], [2, 1], [3, 2], [1, 1]])
    rule = RowCopies(values, OneHot(values))
    one = x.clone()
    one[:, 0] += 1
    two = one.clone()
    two[:, 9] = 0
    assert bool((rule.similarity(x, one) >= rule.threshold).all())
    assert bool((rule.similarity(x, two) < rule.threshold).all())
    x[0, :7] = torch.nan
    assert row_defects(x, values)["missing"].isnan().tolist() == [False, True, True, True]


def test_copies_of_documents() -> None:
    rule = DocumentCopies([0], None)  # type: ignore[arg-type]
    a = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 0], [1, 2, 3, 0, 0, 0, 0, 0], [0] * 8])
    b = torch.tensor([[5, 6, 7, 8, 9, 10, 12, 0], [3, 2, 1, 0, 0, 0, 0, 0], [0] * 8])
    torch.testing.assert_close(rule.similarity(a, b), torch.tensor([4 / 6, 0.0, 0.0]))
    x = torch.tensor([[4, 4, 4, 4, 4, 5], [1, 1, 1, 2, 3, 0], [0] * 6, [4, 5, 6, 7, 8, 9]])
    found = document_defects(x, x != 0, 1)
    assert found["repeated"].isnan().tolist() == [False, True, True, True]
    assert found["unknown"].isnan().tolist() == [True, False, True, True]
    assert found["empty"].isnan().tolist() == [True, True, False, True]
