"""How a prediction of values is judged: squared error of numbers, cross-entropy of categories, or both, column by column.

Methods that reconstruct ask the backbone for its `Likelihood`, and do not know what the values of a view are.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.losses import masked_mse
from sslcli.nn.patches import masked_l1
from sslcli.nn.precision import full_precision


class Likelihood(ABC):
    """Predictions have a last axis of outputs, targets one of values. `where` is bool, broadcasts to the target, and restricts
    what is judged; targets without a value (NaN, padding) are never judged. Losses are means over the global batch."""

    @abstractmethod
    def head(self, width: int, prefix: int = 0) -> nn.Module:
        """A layer from token features (B, prefix + N, width) to predictions of the last N tokens, for `loss`."""

    @abstractmethod
    def loss(self, predicted: Tensor, target: Tensor, where: Tensor | None = None, absolute: bool = False) -> Tensor:
        """The negative log-likelihood up to constants, a scalar: squared error of numbers, absolute error with `absolute`;
        cross-entropy of categories in nats."""

    @abstractmethod
    def nll(self, predicted: Tensor, target: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        """The negative log-likelihood per value in nats, with the log variance () of numbers, and `loss`."""

    @abstractmethod
    def mode(self, predicted: Tensor) -> Tensor:
        """The most likely values, in the form of a target."""

    @abstractmethod
    def error(self, values: Tensor, target: Tensor) -> Tensor:
        """The error of each entry of `values` (such as `mode`), of the shape of the target: the squared difference of numbers, 0
        or 1 for categories. NaN where the target has no value."""

    @property
    def normalizes(self) -> bool:
        """Whether a token predicts several numbers, whose own mean and standard deviation can be removed from the target."""
        return False

    @property
    def has_variance(self) -> bool:
        """Whether some values are numbers, so that `nll` depends on the variance."""
        return False


class TokenLinear(nn.Linear):
    """(B, prefix + N, width) -> (B, N, outputs)."""

    def __init__(self, width: int, outputs: int, prefix: int = 0):
        super().__init__(width, outputs)
        self.prefix = prefix

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens)[:, self.prefix :]


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Numbers with equal variance: squared error. `outputs`: the values that one token predicts."""

    outputs: int = 1

    def head(self, width: int, prefix: int = 0) -> nn.Module:
        return TokenLinear(width, self.outputs, prefix)

    def loss(self, predicted: Tensor, target: Tensor, where: Tensor | None = None, absolute: bool = False) -> Tensor:
        if absolute:
            return masked_l1(predicted, target, torch.ones_like(target, dtype=torch.bool) if where is None else where)
        return masked_mse(predicted, target, where)

    def nll(self, predicted: Tensor, target: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        error = masked_mse(predicted, target)
        return gaussian_nll(error, log_variance), error

    def mode(self, predicted: Tensor) -> Tensor:
        return predicted

    def error(self, values: Tensor, target: Tensor) -> Tensor:
        return (values.float() - target).square()

    @property
    def normalizes(self) -> bool:
        return self.outputs > 1

    @property
    def has_variance(self) -> bool:
        return True


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Ids of a vocabulary of `size`: cross-entropy of logits (B, N, size) for targets (B, N) int64, or (B, N, 1) as tokens have
    them. `ignore`: the id of padding."""

    size: int
    ignore: int = 0

    def head(self, width: int, prefix: int = 0) -> nn.Module:
        return TokenLinear(width, self.size, prefix)

    @full_precision
    def loss(self, predicted: Tensor, target: Tensor, where: Tensor | None = None, absolute: bool = False) -> Tensor:
        target = target.flatten(1)
        valid = target != self.ignore
        if where is not None:
            valid = valid & where.flatten(1)
        return mean_where(F.cross_entropy(predicted.movedim(-1, 1), target, reduction="none"), valid)

    def nll(self, predicted: Tensor, target: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        loss = self.loss(predicted, target)
        return loss, loss

    def mode(self, predicted: Tensor) -> Tensor:
        return predicted.argmax(dim=-1)

    def error(self, values: Tensor, target: Tensor) -> Tensor:
        return (values != target).float().masked_fill(target == self.ignore, math.nan)


@dataclass(frozen=True)
class ColumnSlices:
    """Where the outputs of each column lie in one vector: one output for a number, one per category otherwise.

    `categories`: of each column, 0 for a number."""

    categories: tuple[int, ...]

    @property
    def widths(self) -> list[int]:
        return [max(1, n) for n in self.categories]

    @property
    def outputs(self) -> int:
        return sum(self.widths)

    @property
    def starts(self) -> list[int]:
        return [0, *itertools.accumulate(self.widths)][:-1]

    @property
    def numeric(self) -> list[int]:
        """The columns of numbers."""
        return [i for i, n in enumerate(self.categories) if n == 0]


class ColumnHeads(nn.Module):
    """(B, prefix + F, width) features of the tokens of F columns -> (B, outputs): a linear layer for each column."""

    def __init__(self, width: int, slices: ColumnSlices, prefix: int = 0):
        super().__init__()
        bound = 1 / math.sqrt(width)  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(slices.outputs, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(slices.outputs))
        self.column: Tensor
        widths = torch.tensor(slices.widths)
        self.register_buffer("column", prefix + torch.arange(len(widths)).repeat_interleave(widths), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.einsum("bow,ow->bo", tokens[:, self.column], self.weight.to(tokens.dtype)) + self.bias


@dataclass(frozen=True)
class Mixed(Likelihood):
    """Columns of numbers and of categories: the mean over all entries of squared errors and cross-entropies.

    Predictions are (B, outputs); targets (B, F), or (B, F, 1) as tokens have them."""

    slices: ColumnSlices

    def head(self, width: int, prefix: int = 0) -> nn.Module:
        return ColumnHeads(width, self.slices, prefix)

    @full_precision
    def loss(self, predicted: Tensor, target: Tensor, where: Tensor | None = None, absolute: bool = False) -> Tensor:
        flat = target.flatten(1)
        valid = ~flat.isnan() & self._known(flat)
        if where is not None:
            valid = valid & where.flatten(1)
        return mean_where(self._each(predicted, flat, absolute), valid)

    @full_precision
    def nll(self, predicted: Tensor, target: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        flat = target.flatten(1)
        each, valid = self._each(predicted, flat, False), ~flat.isnan() & self._known(flat)
        number = self._is_number(flat)
        densities = torch.where(number, gaussian_nll(each, log_variance), each)
        return mean_where(densities, valid), mean_where(each, valid)

    def mode(self, predicted: Tensor) -> Tensor:
        columns = []
        for start, n in zip(self.slices.starts, self.slices.categories, strict=True):
            if n > 1:  # never the unknown category
                columns.append(1 + predicted[:, start + 1 : start + n].argmax(dim=1).float())
            else:
                columns.append(predicted[:, start].float() if n == 0 else predicted.new_zeros(len(predicted)).float())
        return torch.stack(columns, dim=1)

    def error(self, values: Tensor, target: Tensor) -> Tensor:
        values = values.float()
        known = self._known(target.flatten(1)).view(target.shape)
        number = self._is_number(target.flatten(1)).expand(target.flatten(1).shape).view(target.shape)
        each = torch.where(number, (values - target).square(), (values != target).float())
        return torch.where(known, each, math.nan)

    @property
    def has_variance(self) -> bool:
        return bool(self.slices.numeric)

    def _is_number(self, target: Tensor) -> Tensor:
        return torch.tensor([n == 0 for n in self.slices.categories], device=target.device)[None]

    def _known(self, target: Tensor) -> Tensor:
        """(B, F): numbers, and categories other than the unknown one."""
        return self._is_number(target) | (target != 0)

    def _each(self, predicted: Tensor, target: Tensor, absolute: bool) -> Tensor:
        """(B, F): the error of each number and the cross-entropy of each category; 0 where a number is missing."""
        starts, numeric = self.slices.starts, self.slices.numeric
        numbers = target[:, numeric]
        difference = predicted[:, [starts[j] for j in numeric]] - numbers.nan_to_num()
        difference = difference.masked_fill(numbers.isnan(), 0.0)
        columns, parts = list(numeric), [difference.abs() if absolute else difference.square()]
        for j, n in enumerate(self.slices.categories):
            if n:
                logits = predicted[:, starts[j] : starts[j] + n]
                parts.append(F.cross_entropy(logits, target[:, j].long(), reduction="none")[:, None])
                columns.append(j)
        order = sorted(range(len(columns)), key=columns.__getitem__)
        return torch.cat(parts, dim=1)[:, order]


def gaussian_nll(squared_error: Tensor, log_variance: Tensor) -> Tensor:
    """-log N(x | m, exp(log_variance)) from (x - m)^2, in nats."""
    return (squared_error / log_variance.exp() + log_variance + math.log(2 * math.pi)) / 2


def mean_where(each: Tensor, where: Tensor) -> Tensor:
    """The mean of `each` over the entries where `where` is true, of the global batch. 0 without any."""
    count = all_reduce_mean(where.sum().to(each.dtype))  # the number of entries differs between processes
    return each.masked_fill(~where, 0.0).sum() / count.clamp(min=1)
