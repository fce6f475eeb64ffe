"""What the numbers of a view are: continuous measurements, ids of a vocabulary, or the columns of a table.

A data set describes its samples by one `Values` object, which is stored beside the weights of an encoder. Backbones and methods
ask it instead of the kind of data: which entries of a view hold a value, how to hide one, and how a prediction is judged.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslcli.nn.likelihood import Categorical, ColumnSlices, Gaussian, Likelihood, Mixed
from sslcli.nn.rescale import Rescale
from sslcli.nn.words import are_flags, unpack_flags, word_starts


class Values(ABC):
    """The values of a view x (B, *shape)."""

    kind: ClassVar[str]
    channel_axes: ClassVar[int] = 0  # leading axes whose values belong to one position
    mean: tuple[float, ...] = ()  # normalization of each channel, or column of numbers; () where there are no numbers
    std: tuple[float, ...] = ()

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The fields, with `kind`; `values_json.values_from_json` is the inverse."""

    @abstractmethod
    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a view of this shape can have these values, which are in their range: for files of untrusted sources."""

    @abstractmethod
    def describe(self) -> str:
        """A few words for messages, such as "3 channels of continuous values"."""

    @abstractmethod
    def present(self, x: Tensor) -> Tensor:
        """Bool, of the shape of x: the entries that hold a value. The others are padding or missing."""

    def after_end(self, x: Tensor) -> Tensor:
        """Bool, broadcasts to x: the positions after the last one that holds a value, with which a short sample is filled up."""
        held = self.present(x).flatten(1, -2).any(dim=1) if x.ndim > 2 else self.present(x)  # (B, T)
        until = held.flip(1).int().cumsum(dim=1).flip(1) > 0
        return ~until.view(len(x), *[1] * (x.ndim - 2), -1)

    @abstractmethod
    def hide(self, x: Tensor, where: Tensor) -> Tensor:
        """Replace the values where `where` is true, which broadcasts to x, by one that carries no information. What is not present
        stays as it is, so that a backbone cannot tell a hidden value from a missing one."""

    @abstractmethod
    def complete(self, x: Tensor) -> Tensor:
        """x with a value that carries no information wherever there is none."""

    @abstractmethod
    def remove(self, x: Tensor, where: Tensor) -> Tensor:
        """Make the values where `where` is true, which broadcasts to x, missing."""

    @abstractmethod
    def random(self, n: int, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        """`n` random samples (n, *shape) without missing values, to try a method with: standard normal numbers, uniform ids."""

    def add_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """Add `noise`, of the shape of x, to the values that are numbers."""
        return x + noise

    def mask_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a mask over the positions of one sample, which broadcasts to `shape`: one entry for all channels."""
        return (*[1] * self.channel_axes, *self.grid(shape))

    def grid(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The arrangement of the positions of one sample."""
        return shape[self.channel_axes :]

    @abstractmethod
    def likelihood(self, patch_dim: int = 1) -> Likelihood:
        """How predictions of these values are judged. `patch_dim`: the number of values that one token predicts."""

    @abstractmethod
    def conversion(self, to: Values) -> nn.Module:
        """A module without parameters that maps a view (B, *shape) of these values to one of `to`, such as the values that another
        backbone was trained on. ValueError where there is no such map."""


@dataclass(frozen=True)
class Continuous(Values):
    """Real numbers, normalized per channel by `mean` and `std`; NaN is padding or missing.

    `mean`, `std`: (C,) of training samples, before normalization; images in 0..1. `fill`: what a backbone without a mask uses
    where there is no value. `silence`: (F,) of spectrograms (1, F, T), the values of a frame without sound."""

    kind: ClassVar[str] = "continuous"
    channel_axes: ClassVar[int] = 1
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    fill: float = 0.0
    silence: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        content = {"kind": self.kind, "mean": list(self.mean), "std": list(self.std), "fill": self.fill}
        return content | ({"silence": list(self.silence)} if self.silence else {})

    def fits(self, shape: tuple[int, ...]) -> bool:
        fits = len(shape) > 1 and len(self.mean) == len(self.std) == shape[0] and _are_sizes(shape)
        fits = fits and (not self.silence or (len(shape) == 3 and len(self.silence) == shape[1]))
        return fits and _is_scale(self.mean, self.std) and all(map(math.isfinite, (self.fill, *self.silence)))

    def present(self, x: Tensor) -> Tensor:
        return ~x.isnan()

    def hide(self, x: Tensor, where: Tensor) -> Tensor:
        return x.masked_fill(where & ~x.isnan(), self.fill)

    def complete(self, x: Tensor) -> Tensor:
        return x.nan_to_num(self.fill)

    def remove(self, x: Tensor, where: Tensor) -> Tensor:
        return x.masked_fill(where, math.nan)

    def random(self, n: int, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, *shape, generator=generator)

    def likelihood(self, patch_dim: int = 1) -> Likelihood:
        return Gaussian(patch_dim)

    def conversion(self, to: Values) -> nn.Module:
        if not isinstance(to, Continuous):
            raise ValueError(f"there are {len(self.mean)} channels of continuous values, not {to.describe()}")
        return Rescale(self.mean, self.std, to.mean, to.std)

    def describe(self) -> str:
        n = len(self.mean)
        return f"{n} channel{'' if n == 1 else 's'} of continuous values"


@dataclass(frozen=True)
class Tokens(Values):
    """Ids 0..size - 1 of a vocabulary. `pad`: the id of padding; `mask`: the id that stands for a hidden token; `start`: the class
    token, before the content of a sample; `separator`: the end of a sample, or of one of its segments; `special`: all ids that are
    no content; `continues`: the ids that do not begin a word, as a string of `pack_flags`, "" where all do."""

    kind: ClassVar[str] = "tokens"
    size: int
    pad: int = 0
    mask: int | None = None
    special: tuple[int, ...] = ()
    start: int | None = None
    separator: int | None = None
    continues: str = ""

    def to_json(self) -> dict[str, Any]:
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"kind": self.kind, **content, "special": list(self.special)}

    def fits(self, shape: tuple[int, ...]) -> bool:
        ids = (self.pad, *self.special, *(i for i in (self.mask, self.start, self.separator) if i is not None))
        inside = all(0 <= i < self.size for i in ids) and are_flags(self.continues, self.size)
        return len(shape) == 1 and _are_sizes(shape) and 0 < self.size < 1 << 31 and inside

    def word_starts(self, x: Tensor) -> Tensor:
        """Bool, of the shape of x (B, L): the tokens that begin a word. Special tokens do, and the token after one of them does."""
        markers = {self.pad, *self.special}
        return word_starts(x, unpack_flags(self.continues, self.size), markers)

    def present(self, x: Tensor) -> Tensor:
        return x != self.pad

    def hide(self, x: Tensor, where: Tensor) -> Tensor:
        return x.masked_fill(where & (x != self.pad), self.pad if self.mask is None else self.mask)

    def complete(self, x: Tensor) -> Tensor:
        return x

    def remove(self, x: Tensor, where: Tensor) -> Tensor:
        return x.masked_fill(where, self.pad)

    def random(self, n: int, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        content = torch.tensor(sorted(set(range(self.size)) - {self.pad, self.mask, *self.special}))
        return content[torch.randint(len(content), (n, *shape), generator=generator)]

    def add_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        return x

    def likelihood(self, patch_dim: int = 1) -> Likelihood:
        return Categorical(self.size, ignore=self.pad)

    def conversion(self, to: Values) -> nn.Module:
        if to != self:
            raise ValueError(f"there are {self.describe()}, not {to.describe()}")
        return nn.Identity()

    def describe(self) -> str:
        return f"ids of a vocabulary of {self.size:,}"


@dataclass(frozen=True)
class Columns(Values):
    """The columns of a table, x (B, F): numbers, normalized by `mean` and `std` of each of them, NaN where one is
    missing; and categories as indices, of which 0 is a missing or unknown one.

    `categories`: for each of the F columns, in their order, the number of its categories with the unknown one, or 0 for a column of
    numbers. `mean`, `std`: one entry per column of numbers."""

    kind: ClassVar[str] = "columns"
    categories: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        scale = {"mean": list(self.mean), "std": list(self.std)}
        return {"kind": self.kind, "categories": list(self.categories), **scale}

    @property
    def slices(self) -> ColumnSlices:
        return ColumnSlices(self.categories)

    def is_category(self, x: Tensor) -> Tensor:
        """(F,) bool on the device of x."""
        return torch.tensor([n > 0 for n in self.categories], device=x.device)

    def fits(self, shape: tuple[int, ...]) -> bool:
        numbers = self.categories.count(0)
        fits = tuple(shape) == (len(self.categories),) and _are_sizes(shape) and min(self.categories) >= 0
        return fits and len(self.mean) == len(self.std) == numbers and _is_scale(self.mean, self.std)

    def present(self, x: Tensor) -> Tensor:
        return torch.where(self.is_category(x), x != 0, ~x.isnan())

    def after_end(self, x: Tensor) -> Tensor:
        return torch.zeros(1, 1, dtype=torch.bool, device=x.device)  # the last column may be missing

    def hide(self, x: Tensor, where: Tensor) -> Tensor:
        return x.masked_fill(where & ~x.isnan(), 0.0)  # the mean of a number, the unknown category

    def complete(self, x: Tensor) -> Tensor:
        return x.nan_to_num()

    def remove(self, x: Tensor, where: Tensor) -> Tensor:
        return torch.where(where, torch.where(self.is_category(x), 0.0, math.nan), x)

    def random(self, n: int, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        numbers = torch.randn(n, *shape, generator=generator)
        last = torch.tensor(self.categories).sub(1).clamp(min=1)
        ids = 1 + (torch.rand(n, *shape, generator=generator) * last).floor()
        return torch.where(self.is_category(numbers), ids, numbers)

    def add_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        return torch.where(self.is_category(x), x, x + noise)

    def likelihood(self, patch_dim: int = 1) -> Likelihood:
        return Mixed(self.slices)

    def conversion(self, to: Values) -> nn.Module:
        if not isinstance(to, Columns) or to.categories != self.categories:
            raise ValueError(f"there are {self.describe()}, not {to.describe()}")
        scaled = [self._of_all(v, empty) for v, empty in ((self.mean, 0.0), (self.std, 1.0))]
        other = [self._of_all(v, empty) for v, empty in ((to.mean, 0.0), (to.std, 1.0))]
        return Rescale(*scaled, *other)

    def _of_all(self, values: tuple[float, ...], of_category: float) -> tuple[float, ...]:
        """(F,) from one entry per column of numbers."""
        numbers = iter(values)
        return tuple(of_category if n else next(numbers) for n in self.categories)

    def describe(self) -> str:
        numbers = self.categories.count(0)
        return f"{numbers} columns of numbers and {len(self.categories) - numbers} of categories"


def _are_sizes(sizes: Iterable[int]) -> bool:
    return all(0 < n < 1 << 20 for n in sizes)


def _is_scale(mean: tuple[float, ...], std: tuple[float, ...]) -> bool:
    return all(map(math.isfinite, (*mean, *std))) and all(s > 0 for s in std)
