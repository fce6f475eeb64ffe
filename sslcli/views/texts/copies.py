"""Near copies of documents, and documents that hold next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sslcli.views.copies import NearCopies, unit
from sslcli.views.modality import RawFeatures

SHINGLE = 3  # tokens
REPEATED = 0.8  # of the tokens of a document are one and the same
UNKNOWN = 0.5  # of the tokens of a document
SHORT = 5  # tokens: shorter documents repeat themselves by chance


class DocumentCopies(NearCopies):
    """Candidates have similar TF-IDF vectors. Their similarity is the Jaccard index of the sets of three tokens in a row (Broder,
    "On the resemblance and containment of documents", 1997), over the tokens of a view."""

    note: ClassVar[str] = "documents that share most sequences of three tokens, within the length of a view"
    candidate: ClassVar[float] = 0.6
    threshold: ClassVar[float] = 0.7

    def __init__(self, hidden: Sequence[int], features: RawFeatures):
        self.hidden, self.features = torch.tensor(sorted(hidden)), features

    def describe(self, x: Tensor) -> Tensor:
        return unit(self.features.transform(x))

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        scores = [_jaccard(self._shingles(first), self._shingles(second)) for first, second in zip(a, b, strict=True)]
        return torch.tensor(scores, dtype=torch.float32)

    def _shingles(self, ids: Tensor) -> set[tuple[int, ...]]:
        tokens = ids[~torch.isin(ids.cpu(), self.hidden)].tolist()
        n = min(SHINGLE, max(1, len(tokens)))
        return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}


def _jaccard(a: set[tuple[int, ...]], b: set[tuple[int, ...]]) -> float:
    return len(a & b) / len(a | b) if a and b else 0.0


def defects(x: Tensor, content: Tensor, unknown: int | None) -> dict[str, Tensor]:
    """Scores (B,) of views (B, L) by the name of a defect; NaN for documents without it.

    empty: 0, the number of tokens; repeated: the share of the most frequent token; unknown: the share of tokens that the vocabulary
    lacks. content: (B, L) bool, where a token is of the document."""
    count = content.sum(dim=1)
    ids = torch.where(
        content, x, -1 - torch.arange(x.shape[1], device=x.device)
    )  # what is no content differs everywhere
    most = (ids == ids.mode(dim=1, keepdim=True).values).sum(dim=1) / count.clamp(min=1)
    scores = {
        "empty": count.float().where(count == 0, torch.nan),
        "repeated": most.where((count >= SHORT) & (most > REPEATED), torch.nan),
    }
    if unknown is not None:
        share = ((x == unknown) & content).sum(dim=1) / count.clamp(min=1)
        scores["unknown"] = share.where((count > 0) & (share > UNKNOWN), torch.nan)
    return scores
