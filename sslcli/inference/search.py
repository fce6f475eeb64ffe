"""`sslcli search`: exact nearest neighbors by cosine similarity among embedded samples."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.config import Config, registry
from sslcli.console import escape
from sslcli.data.user_files.samples import EMPTY
from sslcli.errors import DataError, RequestError, listing, nearest
from sslcli.evals.fit.neighbors import BANK, nearest_in_blocks
from sslcli.inference.embeddings.reader import Embeddings
from sslcli.inference.features import ROWS, collect
from sslcli.inference.given_samples import described_by
from sslcli.inference.inputs import ITEMS, InputRequest, read_inputs
from sslcli.inference.session import Session, open_session
from sslcli.inference.vectors.shared_space import SHARED, SharedSpace
from sslcli.views.modality import modality

BYTES = 64 << 20  # of a block of vectors
FILE_NAME = re.compile(r"\S*[/\\*]\S*|.*\.[A-Za-z]\w{1,4}", re.DOTALL)  # a path, a pattern, or a name with an ending
TEXT_HINT = "texts are queries of embeddings of text, and of those that were written with pool=shared (clip, siglip)"


@dataclass(frozen=True)
class Query:
    """A sample whose neighbors are asked for: its id. row: of the embeddings; None for a file. path: of its file, or "". title: for
    people, or ""."""

    name: str
    vector: Tensor  # (dim,)
    row: int | None = None
    path: str = ""
    title: str = ""


@dataclass(frozen=True)
class Neighbor:
    id: str
    path: str
    label: Any  # None without one
    similarity: float
    row: int  # of the embeddings
    title: str = ""


def search(embeddings: Embeddings, queries: Sequence[Query], k: int) -> list[list[Neighbor]]:
    """The k samples with the largest cosine similarity to each query, the most similar first; fewer where there are fewer.

    Exact: all vectors are compared, a block of them in memory at a time. A query that is an id is not its own neighbor."""
    itself = any(query.row is not None for query in queries)
    most = min(len(embeddings), k + itself)
    vectors = torch.nn.functional.normalize(torch.stack([query.vector for query in queries]), dim=1)
    values, rows = nearest_in_blocks(_blocks(embeddings.vectors), vectors, most)
    return [
        [_neighbor(embeddings, i, s) for i, s in zip(near, similar, strict=True) if i != query.row][:k]
        for query, near, similar in zip(queries, rows.tolist(), values.tolist(), strict=True)
    ]


def _blocks(vectors: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows, and 1 / their norm, 0 for a vector of zeros."""
    size = min(BANK, max(1, BYTES // (4 * vectors.shape[1])))
    for start in range(0, len(vectors), size):
        block = torch.from_numpy(np.array(vectors[start : start + size]))
        norm = torch.linalg.vector_norm(block, dim=1)
        yield block, torch.where(norm > 0, 1 / norm, 0.0)


def _neighbor(embeddings: Embeddings, row: int, similarity: float) -> Neighbor:
    label = None if embeddings.labels is None else embeddings.labels[row]
    label = label.item() if isinstance(label, np.generic) else label
    missing = label in ("", None) or (isinstance(label, float) and math.isnan(label))
    path = str(embeddings.paths[row])
    return Neighbor(
        str(embeddings.ids[row]), path, None if missing else label, similarity, row, _title_of(embeddings, row)
    )


def _title_of(embeddings: Embeddings, row: int) -> str:
    return "" if embeddings.titles is None else str(embeddings.titles[row] or "")


def require_vectors(embeddings: Embeddings, file: Path) -> None:
    """DataError for embeddings of which a sample is not one vector, or that have none."""
    if len(embeddings.vectors.shape) != 2 or not len(embeddings):
        raise DataError(
            f"{escape(str(file))} has no vector of each sample: its shape is {tuple(embeddings.vectors.shape)}",
            "sslcli embed RUN ... pool=mean",
        )


def make_queries(
    embeddings: Embeddings, names: Sequence[str], values: Config, run: str | None = None
) -> tuple[list[Query], Session | None]:
    """Queries of ids, or of titles; of files, which the encoder of the embeddings embeds; and of texts, where it is one of text, or
    images and texts share their space. The encoder is opened where a query is none of the ids and titles.

    `run`: where the encoder is now. RequestError for names of neither, and where the encoder is gone or another one."""
    rows = {name: row for name in names if (row := _row_of(embeddings, name)) is not None}
    others = [name for name in dict.fromkeys(names) if name not in rows]
    by_text = _takes_texts(embeddings)
    texts = [name for name in others if by_text and _is_text(name)]
    files = [name for name in others if name not in texts]
    queries = {
        name: [
            Query(
                str(embeddings.ids[row]),
                torch.from_numpy(np.array(embeddings.vectors[row])),
                row,
                str(embeddings.paths[row]),
                _title_of(embeddings, row),
            )
        ]
        for name, row in rows.items()
    }
    if files and embeddings.meta.get("settings", {}).get("pool") == ITEMS:
        raise RequestError(
            f"there is no item {escape(files[0])}; embeddings of items are searched by ids and titles",
            f"did you mean {escape(close)}?"
            if (close := _nearest(embeddings, files[0]))
            else "embed RUN pool=mean embeds histories",
        )
    request = _request(embeddings, files) if files else None
    session = open_encoder_of(embeddings, values, run) if others else None
    if session is not None and request is not None:
        for query in _embed(session, request):
            queries.setdefault(query.name, []).append(query)
    if session is not None and texts:
        for text, vector in zip(texts, _of_texts(session, texts), strict=True):
            queries[text] = [Query(text, vector)]
    ordered = [name for name in dict.fromkeys(names) if name in queries] + [n for n in queries if n not in names]
    return [query for name in ordered for query in queries[name]], session


def _takes_texts(embeddings: Embeddings) -> bool:
    if embeddings.meta.get("settings", {}).get("pool") == SHARED:
        return True
    kind = embeddings.meta.get("encoder", {}).get("modality")
    return kind in registry.choices("modality") and modality(kind).strings


def _of_texts(session: Session, texts: Sequence[str]) -> Tensor:
    """Vectors (n, dim) of texts."""
    encoder = session.encoder
    if isinstance(encoder.module, SharedSpace):
        return encoder.module.of_texts(texts)
    source, dataset = encoder.preprocessor.source(list(texts)), described_by(encoder.preprocessor, "queries")
    return collect(session.extractor.blocks(source, dataset))[0]


def _is_text(name: str) -> bool:
    """Whether a query is a text: neither an existing file nor written as the name or pattern of one."""
    return not os.path.lexists(os.path.expanduser(name)) and FILE_NAME.fullmatch(name) is None


def _row_of(embeddings: Embeddings, name: str) -> int | None:
    """The row of an id, else of a title, in any case. RequestError for a title of several samples."""
    if isinstance(embeddings.ids, np.ndarray):
        found = np.flatnonzero(embeddings.ids == name)
        if len(found):
            return int(found[0])
    elif name in embeddings.ids:
        return embeddings.ids.index(name)
    wanted = name.casefold()
    titles = () if embeddings.titles is None else embeddings.titles
    rows = [i for i, title in enumerate(titles) if title and str(title).casefold() == wanted]
    if len(rows) > 1:
        ids = listing((escape(str(embeddings.ids[i])) for i in rows), 6)
        raise RequestError(f"{len(rows)} samples have the title {escape(name)}", f"name one by its id: {ids}")
    return rows[0] if rows else None


def _request(embeddings: Embeddings, files: list[str]) -> InputRequest:
    try:
        return InputRequest.parse(files, {}, [])
    except RequestError as error:
        close = _nearest(embeddings, files[0])
        hint = f"did you mean {escape(close)}?" if close else error.hint or TEXT_HINT
        raise RequestError(f"{error.message}, and no embedded sample has this id", hint) from None


def _nearest(embeddings: Embeddings, name: str) -> str | None:
    known = [*embeddings.ids[:10_000], *(() if embeddings.titles is None else embeddings.titles[:10_000])]
    ids = [str(known) for known in known if known]
    return next((id for id in ids if id.endswith(f"/{name}")), None) or nearest(name, ids)  # of a split: train/NAME


def open_encoder_of(embeddings: Embeddings, values: Config, run: str | None = None) -> Session:
    """The encoder that computed the embeddings. RequestError where it is gone, or has other weights or another preprocessor now."""
    about, settings = embeddings.meta["encoder"], embeddings.meta.get("settings", {})
    spec = run or str(about.get("spec"))
    try:
        session = open_session(spec, values, ROWS, settings.get("pool"))
    except RequestError as error:
        raise RequestError(
            f"the encoder of these embeddings cannot be opened: {error.message}",
            "run=RUN names where it is now; an id instead of a file needs no encoder",
        ) from None
    same = session.encoder.sha256 == about.get("sha256")
    if not same or session.encoder.preprocessor.sha256 != embeddings.meta.get("preprocessor"):
        raise RequestError(
            f"{spec} is not the encoder of these embeddings: its {'preprocessor' if same else 'weights'} differ",
            "embed the samples again with this encoder, or run=RUN names the one that computed them",
        )
    return session


def _embed(session: Session, request: InputRequest) -> list[Query]:
    inputs = read_inputs(session.encoder, request)
    features, ids, unreadable = collect(session.blocks(inputs))
    samples = {inputs.ids[i]: why for i, why in unreadable.items() if why != EMPTY}
    for name, reason in {**inputs.unreadable, **samples}.items():
        raise DataError(f"{escape(name)} cannot be read: {reason}")
    return [
        Query(inputs.ids[i], vector, path=inputs.paths[i]) for i, vector in zip(ids.tolist(), features, strict=True)
    ]
