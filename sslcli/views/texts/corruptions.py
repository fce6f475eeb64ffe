"""Corruptions of text: functions of clean views (B, L), a severity 0..4 and a generator for each document. See `corruption.py`.

A view is decoded, its words are changed, and it is encoded again with the tokenizer of the run: a misspelled word has other
tokens, as it would have if a user typed it. What then exceeds the length of the view is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.views.corruption import Corruption, Generators

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)  # of the words
LETTERS = "abcdefghijklmnopqrstuvwxyz"

Change = Callable[[list[str], float, torch.Generator], list[str]]


def typos(words: list[str], share: float, generator: torch.Generator) -> list[str]:
    """A character of a word deleted, doubled, replaced by a letter, or exchanged with the next one."""
    chosen = (torch.rand(len(words), generator=generator) < share).tolist()
    kinds = torch.randint(4, (len(words),), generator=generator).tolist()
    places = torch.rand(len(words), generator=generator).tolist()
    letters = torch.randint(len(LETTERS), (len(words),), generator=generator).tolist()
    out = []
    for word, hit, kind, place, letter in zip(words, chosen, kinds, places, letters, strict=True):
        if hit and len(word) > 1:
            i = int(place * (len(word) - 1))
            changed = (
                word[:i] + word[i + 1 :],
                word[: i + 1] + word[i:],
                word[:i] + LETTERS[letter] + word[i + 1 :],
                word[:i] + word[i + 1] + word[i] + word[i + 2 :],
            )
            word = changed[kind]
        out.append(word)
    return out


def dropped(words: list[str], share: float, generator: torch.Generator) -> list[str]:
    """Words left out; at least one remains."""
    keep = torch.rand(len(words), generator=generator)
    return [word for word, u in zip(words, keep.tolist(), strict=True) if u >= share or u == float(keep.max())]


def swapped(words: list[str], share: float, generator: torch.Generator) -> list[str]:
    """Words exchanged with the next one."""
    out = list(words)
    for i, u in enumerate(torch.rand(max(0, len(words) - 1), generator=generator).tolist()):
        if u < share:
            out[i], out[i + 1] = out[i + 1], out[i]
    return out


def upper_case(words: list[str], share: float, generator: torch.Generator) -> list[str]:
    """Words in capital letters. A tokenizer that lower-cases text is not affected."""
    chosen = (torch.rand(len(words), generator=generator) < share).tolist()
    return [word.upper() if hit else word for word, hit in zip(words, chosen, strict=True)]


CHANGES: Mapping[str, Change] = {"typos": typos, "dropped": dropped, "swapped": swapped, "upper_case": upper_case}


def corruptions(
    preprocessor: TextPreprocessor, assemble: Callable[[list[Tensor], int], Tensor]
) -> Mapping[str, Corruption]:
    """By name. `assemble`: from the content of documents and the length of the view to views (B, L)."""

    def corruption(change: Change) -> Corruption:
        def apply(x: Tensor, severity: int, generators: Generators) -> Tensor:
            texts = [
                " ".join(change(text.split(), SHARES[severity], g))
                for text, g in zip(preprocessor.decode(x), generators, strict=True)
            ]
            contents = [torch.as_tensor(ids) for ids in preprocessor.tokenizer.encode(texts)]
            return assemble(contents, x.shape[1])

        return apply

    return {name: corruption(change) for name, change in CHANGES.items()}
