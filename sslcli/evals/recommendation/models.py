"""What scores items: the method of a run, the users most similar by their features, and the field's baselines.

A scorer maps users and places in their histories to scores (B, I) of all items, on the CPU. Baselines are fitted to the training
events alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from sslcli.data.histories.next_items import FIRST, NextItems
from sslcli.data.storage import Ragged
from sslcli.errors import TrainingError
from sslcli.evals.base.embedding import Context, evaluating
from sslcli.evals.base.features import EvalData
from sslcli.methods.base import Method


class Scorer(ABC):
    note: ClassVar[str]  # what it is, for the protocol

    @abstractmethod
    def scores(self, users: Tensor, places: Tensor) -> Tensor:
        """(B, I): of all items to come at `places` (B,) of the histories of `users` (B,)."""


class MethodScores(Scorer):
    """Those of a method that predicts the next item."""

    note = "the method's own scores of the next item"

    def __init__(self, method: Method, whole: NextItems, length: int, device: torch.device, autocast: Context):
        """length: of a view."""
        self.method, self.whole, self.length, self.device, self.autocast = method, whole, length, device, autocast

    @torch.no_grad()
    def scores(self, users: Tensor, places: Tensor) -> Tensor:
        x = self.whole.histories(users, places, self.length).to(self.device)
        with evaluating(self.method), self.autocast():
            scores = self.method.next_scores(x)
        assert scores is not None, type(self.method)
        out = scores[:, FIRST : FIRST + self.whole.items].float().cpu()
        if not out.isfinite().all():
            raise TrainingError("scores of items are not finite", "train with a lower optimizer.lr")
        return out


class SimilarUsers(Scorer):
    """The items of the users whose features are most similar, by cosine, weighted by it. The row of the user is left out."""

    note = "items of the users with the most similar features (cosine), weighted by the similarity"

    def __init__(self, backbone: nn.Module, data: EvalData, whole: NextItems, neighbors: int = 100):
        self.backbone, self.data, self.whole, self.neighbors = backbone, data, whole, neighbors
        features, _ = data.features(backbone, "train")
        self.features = nn.functional.normalize(features, dim=1)
        self.rows = torch.full((len(whole.events),), -1)  # the row of each user that training reads
        trained = (whole.trained & (whole.train > 0)).nonzero()[:, 0][data.ids("train")]
        self.rows[trained] = torch.arange(len(trained))
        self.bags = bags(whole.first(trained, whole.train[trained]), whole.items)

    @torch.no_grad()
    def scores(self, users: Tensor, places: Tensor) -> Tensor:
        x = self.whole.histories(users, places, self.data.dataset.shape[0]).to(self.data.device)
        with evaluating(self.backbone), self.data.autocast():
            z = nn.functional.normalize(self.backbone(x).float().cpu(), dim=1)
        similarity = z @ self.features.T
        own = self.rows[users]
        similarity[(own >= 0).nonzero()[:, 0], own[own >= 0]] = -torch.inf
        best, who = similarity.topk(min(self.neighbors, similarity.shape[1]), dim=1)
        weights = best.clamp(min=0).double().numpy()
        at = (np.repeat(np.arange(len(users)), weights.shape[1]), who.flatten().numpy())
        of_users = sparse.csr_matrix((weights.ravel(), at), shape=similarity.shape)
        return torch.from_numpy((of_users @ self.bags).toarray())


class Popularity(Scorer):
    note = "how many training events an item has"

    def __init__(self, train: Ragged, whole: NextItems):
        self.counts = item_counts(train, whole.items).double()

    def scores(self, users: Tensor, places: Tensor) -> Tensor:
        return self.counts.expand(len(users), -1)


class Markov(Scorer):
    note = "how often an item follows the last one in training; popularity where that is equal"

    def __init__(self, train: Ragged, whole: NextItems):
        self.whole = whole
        counts = item_counts(train, whole.items).double().numpy()
        self.popularity = counts / (counts.sum() + 1)
        items = train.flat.numpy() - FIRST
        inside = np.ones(max(0, len(items) - 1), bool)
        inside[train.offsets[1:-1].numpy() - 1] = False  # a pair of two users
        pairs = (items[:-1][inside], items[1:][inside])
        self.follows = sparse.csr_matrix((np.ones(len(pairs[0])), pairs), shape=(whole.items, whole.items))

    def scores(self, users: Tensor, places: Tensor) -> Tensor:
        last = self.whole.items_at(users, places - 1).numpy() - FIRST
        return torch.from_numpy(self.follows[last].toarray() + self.popularity)


class ItemKNN(Scorer):
    """Similarities of few items are computed once; of more than MOST, those of the items of a batch, some at a time."""

    RECENT: ClassVar[int] = 10
    MOST: ClassVar[int] = 4096
    AT_ONCE: ClassVar[int] = 256
    note = f"the cosine of the users of two items, summed over the last {RECENT} items of a history"

    def __init__(self, train: Ragged, whole: NextItems):
        self.whole = whole
        self.users: Any = bags(train, whole.items)
        self.users.data[:] = 1  # an item counts once for a user
        self.items = self.users.T.tocsr()
        norm = np.sqrt(np.asarray(self.users.sum(axis=0)).ravel())
        self.scale = np.divide(1, norm, out=np.zeros_like(norm), where=norm > 0)
        parts = np.split(np.arange(whole.items), range(self.AT_ONCE, whole.items, self.AT_ONCE))
        self.known = np.concatenate([self._similarity(part) for part in parts]) if whole.items <= self.MOST else None

    def similarity(self, items: np.ndarray) -> np.ndarray:
        """(n, I): the cosine of items (n,) and all others, 0 with itself."""
        return self._similarity(items) if self.known is None else self.known[items]

    def _similarity(self, items: np.ndarray) -> np.ndarray:
        both: np.ndarray = (self.items[items] @ self.users).toarray() * self.scale[items, None] * self.scale
        both[np.arange(len(items)), items] = 0
        return both

    def scores(self, users: Tensor, places: Tensor) -> Tensor:
        recent = self.whole.histories(users, places, self.RECENT)
        rows, at = (recent >= FIRST).nonzero(as_tuple=True)
        items, columns = np.unique(recent[rows, at].numpy() - FIRST, return_inverse=True)
        history: Any = sparse.csr_matrix(
            (np.ones(len(columns)), (rows.numpy(), columns)), shape=(len(users), len(items))
        )
        history.data[:] = 1
        out = np.zeros((len(users), self.whole.items))
        for start in range(0, len(items), self.AT_ONCE):
            part = slice(start, start + self.AT_ONCE)
            out += history[:, part] @ self.similarity(items[part])
        return torch.from_numpy(out)


BASELINES: dict[str, Any] = {"popularity": Popularity, "markov": Markov, "item_knn": ItemKNN}


def item_counts(train: Ragged, items: int) -> Tensor:
    """(I,) int64: the training events of each item."""
    return torch.bincount(train.flat.long() - FIRST, minlength=items)


def bags(histories: Ragged, items: int) -> Any:
    """(U, I) sparse: how often each user has had each item."""
    rows = np.repeat(np.arange(len(histories)), histories.lengths.numpy())
    counts: Any = sparse.csr_matrix(
        (np.ones(len(rows)), (rows, histories.flat.numpy() - FIRST)), shape=(len(histories), items)
    )
    return counts
