"""The preprocessor of interactions: histories of item names to ids, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from sslcli.config import typecheck
from sslcli.console import escape, plural
from sslcli.data import notify
from sslcli.data.dataset import ArraySource, Dataset, Preprocessor, Source
from sslcli.data.histories.events import EventColumns, read_events
from sslcli.data.histories.next_items import FIRST, MASK, PAD
from sslcli.data.histories.select import recode_items, select_events
from sslcli.data.storage import Ragged
from sslcli.errors import DataError, RequestError
from sslcli.nn.values import Tokens

SHORTEST, LONGEST = 2, 1 << 14  # items of a view
VOCABULARY = "items.json"
BY_NAME = EventColumns()  # columns that are found by their names


@dataclass(frozen=True)
class InteractionsPreprocessor(Preprocessor):
    """Histories of users as the ids of items, (n,) int32 of any length, the latest item last.

    items: the names of all items; the id of the first is FIRST. max_length: the items of a view. titles: of items, for people; the
    name where there is none. columns: of the tables that the items come from."""

    kind: ClassVar[str] = "interactions"
    items: tuple[str, ...]
    max_length: int = 50
    titles: Mapping[str, str] = field(default_factory=dict)
    columns: EventColumns = BY_NAME

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.max_length,)

    @property
    def values(self) -> Tokens:  # type: ignore[override]
        return Tokens(len(self.items) + FIRST, pad=PAD, mask=MASK, special=(PAD, MASK))

    def title(self, id: int) -> str:
        """What people call an item."""
        if id < FIRST:
            return "[MASK]" if id == MASK else ""
        name = self.items[id - FIRST]
        return self.titles.get(name, name)

    def to_json(self) -> dict[str, Any]:
        columns = {
            key: value for key, value in vars(self.columns).items() if key != "label" and value not in (None, ())
        }
        return {"max_length": self.max_length, "columns": columns}

    def files(self) -> dict[str, bytes]:
        titled = {name: self.titles[name] for name in self.items if name in self.titles}
        content = json.dumps({"items": self.items, "titles": titled}, ensure_ascii=False)
        return {**super().files(), VOCABULARY: content.encode("utf-8", "surrogateescape")}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], files: Mapping[str, bytes]) -> Self:
        length, columns = content.get("max_length"), content.get("columns")
        if not typecheck.matches_type(length, int) or not SHORTEST <= (length or 0) <= LONGEST:
            raise ValueError(f"max_length: expected an integer from {SHORTEST} to {LONGEST}")
        try:
            vocabulary = json.loads(files.get(VOCABULARY, b"null").decode("utf-8", "surrogateescape"))
        except (UnicodeDecodeError, ValueError, RecursionError):
            vocabulary = None
        if not isinstance(vocabulary, dict):
            raise ValueError(f"{VOCABULARY} is no vocabulary of items")
        items, titles = vocabulary.get("items"), vocabulary.get("titles", {})
        if not typecheck.matches_type(items, list[str]) or not items or len(set(items)) != len(items):
            raise ValueError(f"{VOCABULARY}: expected different names of items")
        if not typecheck.matches_type(titles, dict[str, str]):
            raise ValueError(f"{VOCABULARY}: expected titles of items")
        return cls(tuple(items), int(length or 0), titles, _columns(columns))

    def encode(self, samples: Any) -> list[Tensor]:
        """The ids of each history, (n,) int32; unknown items are left out, and counted in a message.

        `samples`: histories, each a sequence of names of items, the latest last; or the path of a table of events. DataError for
        anything else."""
        if isinstance(samples, (str, os.PathLike)):
            return self._read(os.fspath(samples))
        index = {name: i for i, name in enumerate(self.items, FIRST)}
        out, unknown = [], 0
        for history in samples if isinstance(samples, Sequence) else [samples]:
            if isinstance(history, str) or not isinstance(history, Sequence):
                raise DataError(
                    f"expected histories, each a list of names of items, got {type(history).__name__}",
                    "embed([['item 1', 'item 2'], ['item 3']])",
                )
            known = [index[name] for name in map(str, history) if name in index]
            unknown += len(history) - len(known)
            out.append(torch.tensor(known, dtype=torch.int32))
        if unknown:
            notify.log(f"warning: {plural(unknown, 'item')} that the encoder does not know left out")
        return out

    def _read(self, path: str) -> list[Tensor]:
        notes: list[str] = []
        events = select_events(read_events(path, self.columns, False, notes), None, 1, notes)
        events = recode_items(events, list(self.items), notes)
        for note in notes:
            notify.log(note)
        counts = np.bincount(events.users, minlength=len(events.user_names)).tolist()
        return list(torch.from_numpy(events.items + FIRST).split(counts))

    def source(self, samples: Any) -> Source:
        histories = self.encode(samples)
        ends = torch.tensor([0, *map(len, histories)]).cumsum(0)
        flat = torch.cat(histories) if histories else torch.empty(0, dtype=torch.int32)
        return ArraySource(Ragged(flat, ends, fill=PAD))

    def decode(self, raw: Tensor | Sequence[Tensor]) -> list[list[str]]:
        """The names of the items of each history; padding and hidden items are left out."""
        return [[self.items[i - FIRST] for i in row.tolist() if i >= FIRST] for row in raw]

    def differences(self, other: Preprocessor) -> list[str]:
        if not isinstance(other, InteractionsPreprocessor):
            return super().differences(other)
        changed = []
        if self.items != other.items:
            new = len(set(other.items) - set(self.items))
            changed.append(
                f"there were {len(self.items):,} items, there are {len(other.items):,}, of which {new:,} are new"
            )
        if self.max_length != other.max_length:
            changed.append(f"max_length was {self.max_length}, is {other.max_length}")
        return changed or (["its files differ"] if self.sha256 != other.sha256 else [])

    def size_hint(self, shape: tuple[int, ...]) -> str | None:
        return f"dataset.max_length={self.max_length}" if shape != self.shape else None

    def adapt(self, dataset: Dataset, notes: list[str]) -> Dataset:
        """A data set that was read with these items, with views of the length of this encoder. RequestError for others."""
        own = dataset.preprocessor
        if not isinstance(own, InteractionsPreprocessor) or own.items != self.items:
            raise RequestError(
                f"this encoder takes histories of its own items; {escape(dataset.name)} was not read with them"
            )
        return replace(dataset, shape=self.shape, values=self.values, preprocessor=self)


def _columns(content: Any) -> EventColumns:
    """The columns of preprocessor.json. ValueError."""
    given = content if isinstance(content, dict) else {}
    names, missing = given.get("names"), given.get("missing", [])
    texts = {key: value for key, value in given.items() if key not in ("names", "missing")}
    known = {"user", "item", "time", "rating", "delimiter"}
    if not set(texts) <= known or not typecheck.matches_type(texts, dict[str, str]):
        raise ValueError("columns: expected the names of columns")
    if names is not None and not typecheck.matches_type(names, list[str]):
        raise ValueError("columns.names: expected names of columns")
    if not typecheck.matches_type(missing, list[str]):
        raise ValueError("columns.missing: expected words")
    return EventColumns(**texts, names=None if names is None else tuple(names), missing=tuple(missing))
