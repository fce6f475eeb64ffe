"""The distance of a sample is the percentile of its k-NN distance among those of training samples."""

from __future__ import annotations

import torch

from sslcli.classifier.reference import NEIGHBORS, SIZE, Reference, reference_rows


def slow_distance(bank: torch.Tensor, z: torch.Tensor, k: int) -> float:
    return sum(sorted(float((z - b).norm()) for b in bank)[:k]) / k


def test_reference_equals_a_slow_loop():
    g = torch.Generator().manual_seed(0)
    spread = torch.tensor([1.0, 5.0, 0.2, 40.0, 1.0, 3.0])
    x, z = torch.randn(40, 6, generator=g) * spread + 7, torch.randn(9, 6, generator=g) * spread * 2
    reference = Reference.of(x)
    std = x.double().std(dim=0, correction=0)
    bank, queries = reference.features.double(), (z.double() - x.double().mean(dim=0)) / std
    torch.testing.assert_close(bank, (x.double() - x.double().mean(dim=0)) / std, atol=2e-3, rtol=0)  # float16
    others = [slow_distance(torch.cat([bank[:i], bank[i + 1 :]]), bank[i], NEIGHBORS) for i in range(40)]
    torch.testing.assert_close(
        reference.distances.double(), torch.tensor(others).double().sort().values, atol=1e-4, rtol=0
    )
    expected = [slow_distance(bank, row, NEIGHBORS) for row in queries]
    torch.testing.assert_close(reference.distance(z).double(), torch.tensor(expected).double(), atol=1e-4, rtol=1e-4)
    shares = [100 * sum(o <= d for o in others) / 40 for d in expected]
    assert reference.percentile(z).tolist() == shares


def test_reference_has_bounds():
    assert Reference.of(torch.eye(2)).neighbors == 1
    twins = Reference.of(torch.ones(3, 4))
    assert twins.distances.abs().max() < 1e-3
    assert twins.percentile(-torch.ones(1, 4)).tolist() == [100.0]
    dead = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 0.0])
    assert Reference.of(dead).percentile(torch.tensor([[0.0, 0.0, 1.0]])).tolist() == [
        100.0
    ]  # alive in no training sample
    assert Reference.of(dead * 1e6).distances.isfinite().all()
    rows = reference_rows(3 * SIZE, seed=1)
    assert len(rows) == len(rows.unique()) == SIZE
    assert torch.equal(rows, rows.sort().values)
    assert not torch.equal(rows, reference_rows(3 * SIZE, seed=2))
    assert torch.equal(reference_rows(5, 0), torch.arange(5))
