from __future__ import annotations

import pytest
import torch

from sslcli.backbones.mlp import MLP
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.evals.base.features import EvalData
from sslcli.nn.values import Columns


def source(n: int, seed: int) -> ArraySource:
    """Rows of 6 numbers; the value is a function of the first two, with noise."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g)
    value = 10 + 4 * x[:, 0] + 3 * x[:, 1] + 0.1 * torch.randn(n, generator=g)
    return ArraySource(x, targets={"value": value.double()})


def dataset(n: int = 120, n_test: int = 60) -> Dataset:
    values = Columns(categories=(0,) * 6, mean=(0.0,) * 6, std=(1.0,) * 6)
    return Dataset(
        "planes", modality="table", shape=(6,), train=source(n, 0), test=source(n_test, 1), values=values, task="value"
    )


def backbone(draw: int = 0) -> MLP:
    torch.manual_seed(draw)
    return MLP((6,), width=16, values=dataset().values).eval()


@pytest.fixture
def planes() -> EvalData:
    return EvalData(dataset(), untrained=backbone)
