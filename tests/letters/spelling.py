"""A kind of data as a user may bring it with --config-dir: words of six letters, which are shown as text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sslcli.backbones.base import Backbone
from sslcli.data.dataset import ArraySource, Dataset, Preprocessor
from sslcli.nn.values import Tokens, Values
from sslcli.rng import Draw
from sslcli.views.corruption import Corruption
from sslcli.views.modality import Modality, RawFeatures
from sslcli.views.op import Op
from sslcli.views.preview import Preview, Text

LENGTH = 6
VALUES = Tokens(27)  # 0 is padding, 1..26 are the letters


class LettersView:
    """The word itself."""

    shape = (LENGTH,)

    def resident(self, raw: Tensor, draw: Draw) -> Tensor:
        return raw

    def frame(self, samples: Sequence[Any], draw: Draw) -> Tensor:
        return torch.stack(list(samples))

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        return frame


class LetterCounts(RawFeatures):
    def transform(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x, VALUES.size).sum(dim=1).float()


def change_letters(x: Tensor, severity: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Replace the first letters by a Q."""
    return torch.where(torch.arange(x.shape[1]) <= severity, 17, x)


class Letters(Modality):
    noun = ("word", "words")
    ops: ClassVar[Mapping[str, type[Op]]] = {}

    def view(self, ops: list[Op], dataset: Dataset) -> LettersView:
        return LettersView()

    def dummy(self, shape: tuple[int, ...], values: Values, n: int) -> Tensor:
        return torch.ones(n, *shape, dtype=torch.int64)

    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        return [Text(word) for word in spell(x)]

    def raw_features(self, dataset: Dataset) -> LetterCounts:
        return LetterCounts()

    def corruptions(self, dataset: Dataset) -> dict[str, Corruption]:
        return {"change_letters": change_letters}


def spell(x: Tensor) -> list[str]:
    return ["".join(chr(96 + i) for i in word if i) for word in x.tolist()]


@dataclass(frozen=True)
class Speller(Preprocessor):
    """Text to ids of letters."""

    kind: ClassVar[str] = "letters"
    shape: tuple[int, ...] = (LENGTH,)
    values: Values = VALUES

    def to_json(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        return cls()

    @classmethod
    def of(cls, shape: tuple[int, ...], values: Values, details: Mapping[str, Any]) -> Self:
        return cls()

    def encode(self, samples: Any) -> Tensor:
        return torch.tensor([[ord(c) - 96 for c in word] for word in samples])

    def decode(self, raw: Tensor) -> list[str]:
        return spell(raw)


class CountLetters(Backbone):
    """The number of each letter, through a linear map."""

    accepts: ClassVar = {"tokens": (1,)}

    def __init__(self, input_shape: tuple[int, ...], values: Tokens, width: int = 16):
        super().__init__(input_shape, values)
        self.letters = nn.Embedding(values.size, width)
        self.dim = width

    def forward(self, x: Tensor) -> Tensor:
        return self.letters(x).sum(dim=1)


def words(n: int, seed: int) -> ArraySource:
    """Words with many a, or with many z."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (n,), generator=g)
    x = torch.randint(1, 27, (n, LENGTH), generator=g)
    x[:, ::2] = torch.where(y == 0, 1, 26)[:, None]
    return ArraySource(x, y)


def load(name: str = "letters") -> Dataset:
    train = words(60, 0)
    fingerprint = hashlib.sha256(train.x.numpy().tobytes()).hexdigest()
    return Dataset(
        name,
        "letters",
        (LENGTH,),
        train,
        words(40, 1),
        ("many a", "many z"),
        values=VALUES,
        preprocessor=Speller(),
        fingerprint=fingerprint,
    )
