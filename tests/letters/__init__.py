"""A kind of data as an installed plug-in may bring it, whose samples are shown as text: words of six letters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from sslcli.config import registry
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.nn.values import Tokens
from sslcli.rng import Draw
from sslcli.views.corruption import Corruption
from sslcli.views.modality import Modality, RawFeatures
from sslcli.views.op import Op
from sslcli.views.preview import Preview, Text

LENGTH = 6


class LettersView:
    shape = (LENGTH,)

    def resident(self, raw: Tensor, draw: Draw) -> Tensor:
        return raw

    def frame(self, samples: Sequence[Any], draw: Draw) -> Tensor:
        return torch.stack(list(samples))

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        return frame

    def restore(self, x: Tensor) -> Tensor:
        return x


class CountedLetters(RawFeatures):
    def transform(self, x: Tensor) -> Tensor:
        return CountLetters()(x)


def change_letters(x: Tensor, severity: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Replace the first letters by a Q."""
    return torch.where(torch.arange(x.shape[1]) <= severity, 17, x)


class Letters(Modality):
    noun = ("word", "words")
    ops: ClassVar[Mapping[str, type[Op]]] = {}

    def view(self, ops: list[Op], dataset: Dataset) -> LettersView:
        return LettersView()

    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        return [Text("".join(chr(96 + i) for i in word)) for word in x.tolist()]

    def raw_features(self, dataset: Dataset) -> CountedLetters:
        return CountedLetters()

    def corruptions(self, dataset: Dataset) -> dict[str, Corruption]:
        return {"change_letters": change_letters}


class CountLetters(nn.Module):
    """The number of each letter."""

    dim = 27

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x, 27).sum(dim=1).float()


def words(n: int, seed: int) -> ArraySource:
    """Words with many a, or with many z."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (n,), generator=g)
    x = torch.randint(1, 27, (n, LENGTH), generator=g)
    x[:, ::2] = torch.where(y == 0, 1, 26)[:, None]
    return ArraySource(x, y)


def dataset() -> Dataset:
    return Dataset("words", "letters", (LENGTH,), words(60, 0), words(40, 1), ("a", "z"), values=Tokens(27))


def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register the plug-in for a test: `yield from` it in a fixture."""
    registry.targets.cache_clear()
    monkeypatch.setattr(registry, "plugin_packages", lambda: ("tests.letters",))
    yield
    registry.targets.cache_clear()
