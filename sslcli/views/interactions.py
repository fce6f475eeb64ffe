"""Views of histories: (L,) int64 ids of items, the latest item last, and padding after it.

Raw samples are whole histories, int32 ids of different lengths. A clean view is the last L items; the op `window` takes another
part of a history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.data.dataset import Dataset, Preprocessor, Source
from sslcli.data.histories.next_items import FIRST, PAD
from sslcli.data.histories.preprocessor import InteractionsPreprocessor
from sslcli.data.storage import RaggedBatch
from sslcli.data.user_files.interactions import item_samples, read_interaction_files
from sslcli.data.user_files.samples import UserFiles
from sslcli.nn.values import Values
from sslcli.rng import Draw
from sslcli.views.corruption import Corruption
from sslcli.views.histories.corruptions import corruptions
from sslcli.views.histories.features import ItemBag
from sslcli.views.histories.ops import OPS, Window
from sslcli.views.modality import Modality, RawFeatures, Terms
from sslcli.views.op import Op, OpRandoms
from sslcli.views.preview.base import Preview
from sslcli.views.preview.words import Words
from sslcli.views.text import batch_of, tokens_of
from sslcli.views.texts.terms import characteristic

NOTE = (
    "class-based TF-IDF of items, without those that more than half of the users have had, or that are less than 1.2 times as "
    "frequent in the cluster as in all"
)


class HistoryView:
    """One view: histories -> (B, L)."""

    def __init__(self, ops: list[Op], dataset: Dataset):
        self.shape = tuple(dataset.shape)
        for op in ops:
            self.shape = op.out_shape(self.shape)
        self.window = ops[0] if ops and isinstance(ops[0], Window) else None
        self.ops = ops[1:] if self.window is not None else ops
        self.randoms = ops

    def resident(self, raw: RaggedBatch | Tensor, draw: Draw) -> Tensor:
        """Raw histories -> (B, L). A tensor (B, n) has padding after the end of each history."""
        if isinstance(raw, Tensor):
            raw = batch_of(raw, PAD)
        randoms = OpRandoms(self.randoms, draw, raw.device)
        room, lengths = self.shape[0], raw.lengths
        start = (lengths - room).clamp(min=0)
        if self.window is not None:
            start = self.window.start(lengths, room, randoms.params(self.window)[0])
        x = raw.gather(start, room, PAD).long()
        return randoms.run(self.ops, x, slice(0, len(x)))

    def frame(self, samples: Sequence[Any], draw: Draw) -> Tensor:
        """Histories that are read one at a time, as (B, longest)."""
        histories = [torch.as_tensor(sample, dtype=torch.int32) for sample in samples]
        return torch.nn.utils.rnn.pad_sequence(histories, batch_first=True, padding_value=PAD)

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        """Apply all ops."""
        return self.resident(frame, draw)


class InteractionsModality(Modality):
    """Histories of users."""

    noun = ("history", "histories")
    ops = OPS
    unit = "items"
    deleted = "is left out, as padding"
    inserted = "into padding"

    def view(self, ops: list[Op], dataset: Dataset) -> HistoryView:
        return HistoryView(ops, dataset)

    def describe(self, shape: tuple[int, ...]) -> str:
        return f"history of at most {shape[0]:,} items"

    def dummy(self, shape: tuple[int, ...], values: Values, n: int) -> Tensor:
        return torch.full((n, *shape), FIRST, dtype=torch.int64)

    def read_files(self, paths: Sequence[str], preprocessor: Preprocessor, notes: list[str]) -> UserFiles:
        assert isinstance(preprocessor, InteractionsPreprocessor), preprocessor
        return read_interaction_files(paths, preprocessor, notes)

    def items(self, preprocessor: Preprocessor) -> UserFiles:
        assert isinstance(preprocessor, InteractionsPreprocessor), preprocessor
        return item_samples(preprocessor)

    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        """The titles of the items, the latest last."""
        out: list[Preview] = []
        for row in x.detach().cpu():
            at = (row != PAD).nonzero()[:, 0]
            titles = tuple(self.spell(row[at].tolist(), dataset))
            out.append(Words(" · ".join(titles), titles, (True,) * len(titles), tuple(at.tolist())))
        return out

    def spell(self, ids: Sequence[int], dataset: Dataset) -> list[str]:
        own = dataset.preprocessor
        return [own.title(i) if isinstance(own, InteractionsPreprocessor) else str(i) for i in ids]

    def terms(self, source: Source, groups: Tensor, dataset: Dataset, count: int) -> Terms:
        """The items of the whole histories."""
        from scipy.sparse import csr_matrix

        ids = torch.nonzero(groups >= 0)[:, 0]
        histories = [torch.as_tensor(source.read(i)) for i in ids.tolist()]
        items = torch.cat([*histories, torch.empty(0, dtype=torch.int32)]).numpy()
        rows = (
            torch.arange(len(ids))
            .repeat_interleave(torch.tensor([len(h) for h in histories], dtype=torch.int64))
            .numpy()
        )
        size = tokens_of(dataset.values).size
        counts = csr_matrix((np.ones(len(items), dtype=np.int64), (rows, items)), shape=(len(ids), size))
        total = int(groups.max()) + 1 if len(groups) else 0
        return Terms(NOTE, characteristic(counts, groups[ids], total, self.spell(range(size), dataset), count))

    def raw_features(self, dataset: Dataset) -> RawFeatures:
        return ItemBag(tokens_of(dataset.values))

    def doubts_copies(self, dataset: Dataset) -> str:
        return "users of few events can have equal histories"

    def defects(self, x: Tensor, dataset: Dataset) -> Mapping[str, Tensor]:
        """short: the number of items of a history of fewer than 3. repeated: the share of the most frequent item above 0.8."""
        count = (x >= FIRST).sum(dim=1)
        ids = torch.where(x >= FIRST, x, -1 - torch.arange(x.shape[1], device=x.device))
        most = (ids == ids.mode(dim=1, keepdim=True).values).sum(dim=1) / count.clamp(min=1)
        return {
            "short": count.float().where(count < 3, torch.nan),
            "repeated": most.where((count >= 5) & (most > 0.8), torch.nan),
        }

    def corruptions(self, dataset: Dataset) -> Mapping[str, Corruption]:
        return corruptions(tokens_of(dataset.values))

    def delete(self, x: Tensor, where: Tensor, values: Values) -> Tensor:
        """Padding, which every backbone ignores."""
        return values.remove(x, where)

    def removable(self, x: Tensor, values: Values) -> Tensor:
        return x != PAD

    def mean(self, batches: Iterator[Tensor], dataset: Dataset) -> Tensor:
        """The most popular item, at each place."""
        size = tokens_of(dataset.values).size
        counts = torch.zeros(size, dtype=torch.int64)
        for x in batches:
            counts += x.flatten().bincount(minlength=size).cpu()
        counts[:FIRST] = -1
        return torch.full((1, *dataset.shape), int(counts.argmax()), dtype=torch.int64)

    def interpolate(self, x: Tensor, known: Tensor) -> Tensor:
        """Each item that is not known is a copy of the last known one before it."""
        place = torch.where(known, torch.arange(x.shape[1], device=x.device), 0).cummax(dim=1).values
        return x.gather(1, place)

    def errors(self, guess: Tensor, target: Tensor, values: Values) -> dict[str, Tensor]:
        """`error_rate`: the share of items that differ."""
        return {"error_rate": values.likelihood().error(guess, target)}
