"""Ops on rows of a table (B, F) float32: standardized numbers, NaN where one is missing, and indices of categories."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset, Source
from sslcli.data.loading.resident import move_to_device
from sslcli.data.storage import Dense
from sslcli.nn.values import Columns
from sslcli.rng import Draw
from sslcli.views.op import BadValue, Op, Params, constant, number


class TableOp(Op):
    """An op that knows the values of the columns, and the training rows."""

    values: Columns
    source: Source  # of the training rows

    def attach(self, dataset: Dataset) -> None:
        """Set the data set whose rows are transformed."""
        assert isinstance(dataset.values, Columns), dataset.values
        self.values, self.source = dataset.values, dataset.pretrain

    def training_rows(self, device: torch.device) -> Tensor:
        """All training rows (n, F), on the device unless they take more than half of its memory; a loader has the same copy."""
        rows = move_to_device(self.source, device)
        assert isinstance(rows, Dense), rows
        return rows.tensor


class Corrupt(TableOp):
    """Replace a `share` of the columns of each row by draws from the empirical marginal of that column: its value in a random
    training row, another one for each column; missing values occur as often as in the data.

    With `exact`, floor(share x F) columns of each row, at least 1 (Bahri et al., "SCARF", ICLR 2022, Algorithm 1); without, each
    column with probability `share` (Yoon et al., "VIME", NeurIPS 2020, eq. (3)).
    """

    name = "corrupt"

    def __init__(self, share: float = 0.6, exact: bool = True, p: float = 1.0):
        self.share = number("share", share, 0.0, 1.0)
        if not isinstance(exact, bool):
            raise BadValue("exact", "true or false")
        self.exact = exact
        self.p = p

    def bind(self, shape: tuple[int, ...]) -> str | None:
        self.count = max(1, int(self.share * shape[0] + 1e-9))
        if self.share == 0:
            self.p = 0.0
        return None

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        columns = x.shape[1]
        scores = draw.uniform("corrupt/column", columns)  # (B, F)
        if self.exact:
            where = scores.argsort(dim=1, stable=True).argsort(dim=1) < self.count
        else:
            where = scores < self.share
        rows = self.training_rows(x.device)
        drawn = rows.gather(0, draw.integers("corrupt/row", len(rows), columns).to(rows.device)).to(x.device)
        return torch.where(where.to(x.device), drawn, x)


class Mask(TableOp):
    """Hide each column with probability `share`: numbers become the mean, categories the unknown one."""

    name = "mask"

    def __init__(self, share: float = 0.3, p: float = 1.0):
        self.share = number("share", share, 0.0, 1.0)
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        return self.values.hide(x, draw.uniform("mask/column", x.shape[1]).to(x.device) < self.share)


class Noise(TableOp):
    """Add normal noise of `sigma` standard deviations to each number."""

    name = "noise"

    def __init__(self, sigma: float = 0.1, p: float = 1.0):
        self.sigma = number("sigma", sigma, 0.0)
        self.p = p

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        # not `add_noise`, which copies to the device: a CUDA graph cannot capture that, and `constant` is cached
        scale = constant(tuple(0.0 if n else self.sigma for n in self.values.categories), x.device)
        return x + draw.normal("noise/value", x.shape[1]).to(x.device) * scale


OPS: dict[str, type[Op]] = {op.name: op for op in (Corrupt, Mask, Noise)}
