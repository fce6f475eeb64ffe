from __future__ import annotations

import pytest
import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.views.grid import fill
from sslcli.views.modality import modality


def raw_features(x: torch.Tensor) -> torch.Tensor:
    name = "image" if x.ndim == 4 else "series"
    dataset = Dataset("any", name, tuple(x.shape[1:]), ArraySource(torch.empty(0)), None)
    return modality(name).raw_features(dataset).transform(x)


def test_raw_features_are_small():
    assert torch.equal(raw_features(torch.arange(12.0).view(1, 3, 2, 2)), torch.arange(12.0)[None])
    x = torch.rand(2, 3, 64, 48)
    small = raw_features(x)
    assert small.shape == (2, 3 * 32 * 32)
    assert small[0, 0] == pytest.approx(float(x[0, 0, :2, :2].mean()), abs=1e-6)  # columns 0 and 1 make the first
    assert raw_features(torch.rand(2, 6, 10_000)).shape == (2, 3072)
    padded = torch.tensor([[[1.0, 2.0, float("nan")]]])
    assert raw_features(padded).tolist() == [[1.0, 2.0, 0.0]]
    long = torch.full((1, 3072, 4), 2.0)
    long[..., 1:] = float("nan")
    assert torch.equal(raw_features(long), torch.full((1, 3072), 2.0))  # padding does not pull an average down


def test_fill_of_known_case():
    nan = float("nan")
    x = torch.tensor([[[1.0, nan, nan, 4.0]]])
    # halves: (1 from 1), (4 from 4); linear between their centres, a quarter and three quarters of the way
    torch.testing.assert_close(fill(x, ~x.isnan()), torch.tensor([[[1.0, 1.75, 3.25, 4.0]]]))
    image = torch.full((2, 3, 9, 7), 5.0)
    known = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0)) < 0.1
    torch.testing.assert_close(fill(torch.where(known, image, nan), known), image)
    assert fill(torch.full((1, 1, 4, 4), nan), torch.zeros(1, 1, 4, 4, dtype=torch.bool)).abs().max() == 0


def test_holes_of_clips_are_filled_from_neighbors():
    """Also where an axis is halved to one value before the others."""
    x = torch.ones(2, 1, 3, 16, 9)
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    torch.testing.assert_close(fill(torch.where(known, x, 7.0), known), x)
