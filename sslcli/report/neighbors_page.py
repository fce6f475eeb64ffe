"""The page of `sslcli search page=FILE.html`: each query beside its nearest neighbors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from sslcli.data.loading.evaluation import iterate_batches
from sslcli.errors import RequestError, SslError
from sslcli.inference.encoder import TrainedEncoder
from sslcli.inference.inputs import InputRequest, Inputs, read_inputs
from sslcli.inference.search import Neighbor, Query
from sslcli.report.html.elements import section
from sslcli.report.html.markup import Html, el
from sslcli.report.html.page import page
from sslcli.runs.files import replace_file
from sslcli.views import clean, whole_previews

MOST = 2000  # samples that a page shows


def write_page(
    out: Path,
    encoder: TrainedEncoder,
    queries: Sequence[Query],
    found: Sequence[Sequence[Neighbor]],
    split: str = "all",
) -> None:
    """Writes a self-contained page. Samples whose files or data set cannot be read any more are shown by their ids. `split`: of the
    run's own data set, or ITEMS.

    RequestError for more than MOST samples, StorageError."""
    if (n := sum(1 + len(near) for near in found)) > MOST:
        raise RequestError(
            f"page={out}: {n:,} samples are too many for a page, of {MOST:,} at most", "fewer queries, or k="
        )
    paths = {q.name: q.path for q in queries} | {n.id: n.path for near in found for n in near}
    shown = sample_previews(encoder, paths, split)
    sections = [
        section(
            f"query-{number}",
            f"{query.name}: {query.title}" if query.title else query.name,
            el("div", _figure(shown, query.name, "the query"), class_="groups"),
            el("div", *(_neighbor(shown, rank, n) for rank, n in enumerate(near, 1)), class_="groups"),
        )
        for number, (query, near) in enumerate(zip(queries, found, strict=True), 1)
    ]
    top = el("div", el("h1", "Nearest neighbors"), el("p", f"By cosine similarity of the features of {encoder.spec}."))
    replace_file(out.absolute().parent, out.name, page("Nearest neighbors", sections, top))


def _neighbor(shown: dict[str, Html], rank: int, n: Neighbor) -> Html:
    rest = "".join(f", {text}" for text in (n.title or None, n.label) if text is not None)
    return _figure(shown, n.id, f"{rank}: {n.id}{rest}, similarity {n.similarity:.4f}")


def _figure(shown: dict[str, Html], name: str, caption: str) -> Html:
    return el("figure", shown.get(name) or el("p", name, class_="preview"), el("figcaption", caption))


def sample_previews(encoder: TrainedEncoder, paths: dict[str, str], split: str = "all") -> dict[str, Html]:
    """The previews of samples by id. `paths`: id -> the file with the sample, "" for a sample of the run's own data set."""
    shown: dict[str, Html] = {}
    files = tuple(path for path in dict.fromkeys(paths.values()) if path and os.path.exists(path))
    requests = [InputRequest(files)] if files else []
    if encoder.run is not None and not all(paths.values()):
        requests.append(InputRequest(split=split))
    for request in requests:
        try:
            shown |= _drawn(read_inputs(encoder, request), paths)
        except SslError:  # the files have changed since
            continue
    return shown


def _drawn(inputs: Inputs, paths: dict[str, str]) -> dict[str, Html]:
    names = {path: name for name, path in paths.items() if path}
    wanted = {}
    for i, name in enumerate(inputs.ids):
        if name in paths:
            wanted[i] = name
        elif name == inputs.paths[i] and name in names:  # the file is the sample, which a data set gave another id
            wanted[i] = names[name]
    drawn: dict[str, Html] = {}
    ids = torch.tensor(list(wanted), dtype=torch.int64)
    for part, x in iterate_batches(inputs.source, clean(inputs.dataset), batch_size=64, ids=ids):
        for i, preview in zip(part.tolist(), whole_previews(inputs.dataset, x, inputs.source, part), strict=True):
            drawn[wanted[i]] = Html(preview.html())
    return drawn
