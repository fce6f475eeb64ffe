"""Small data sets and backbones for the tests of evaluators."""

from __future__ import annotations

import torch
from torch import nn

from sslcli.data.dataset import ArraySource, Dataset


def images(n: int, seed: int, classes: int = 3) -> ArraySource:
    """8 x 8 images with noise; the class is the brightest row."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=g)
    x = torch.randint(0, 160, (n, 1, 8, 8), generator=g, dtype=torch.uint8)
    x[torch.arange(n), 0, y] += 60
    return ArraySource(x, y)


def dataset(n: int = 240, n_test: int = 120, classes: int = 3) -> Dataset:
    names = tuple(f"row {i}" for i in range(classes))
    return Dataset("rows", "image", (1, 8, 8), images(n, 0, classes), images(n_test, 1, classes), names)


class Rows(nn.Module):
    """The mean of each row: a good backbone for these images. Counts its calls."""

    dim = 8

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.norm(x.mean(dim=(1, 3)))


class Blind(Rows):
    """One feature, the mean of the image, like that of an untrained backbone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).mean(dim=1, keepdim=True).repeat(1, 8)
