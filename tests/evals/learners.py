"""A data set that a linear model cannot solve, and a small network that can."""

from __future__ import annotations

import torch
from torch import nn

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.evals.base.features import EvalData


def crossed(n: int, seed: int) -> ArraySource:
    """8 x 8: class 1 where exactly one of two marks (upper left, lower right) is bright."""
    g = torch.Generator().manual_seed(seed)
    marks = torch.randint(0, 2, (n, 2), generator=g)
    x = torch.randint(0, 60, (n, 1, 8, 8), generator=g, dtype=torch.uint8)
    x[:, 0, :3, :3] += (marks[:, 0, None, None] * 150).to(torch.uint8)
    x[:, 0, 5:, 5:] += (marks[:, 1, None, None] * 150).to(torch.uint8)
    return ArraySource(x, marks[:, 0] ^ marks[:, 1])


class Net(nn.Module):
    """Two layers with batch norm between; its weights are a function of `draw`."""

    dim = 24

    def __init__(self, draw: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw)
            self.first, self.norm, self.second = nn.Linear(64, 48), nn.BatchNorm1d(48), nn.Linear(48, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.norm(self.first(x.flatten(1))))))


def dataset(n: int = 200, n_test: int = 100) -> Dataset:
    return Dataset("crossed", "image", (1, 8, 8), crossed(n, 0), crossed(n_test, 1), ("same", "other"))


def data(rows: Dataset | None = None, **given) -> EvalData:
    return EvalData(rows or dataset(), untrained=Net, recipes={"weak": {}}, **given)
