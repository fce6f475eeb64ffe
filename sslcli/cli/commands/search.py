"""sslcli search E.npz QUERY...: the nearest neighbors of files or ids among embedded samples."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sslcli import console
from sslcli.cli.arguments import Request, split_options
from sslcli.cli.command_table import COMMANDS
from sslcli.cli.commands.embed import inference_values, positive_integer
from sslcli.cli.commands.pick import new_file
from sslcli.errors import RequestError

if TYPE_CHECKING:
    from sslcli.inference.search import Neighbor, Query


def main(request: Request) -> int:
    options, overrides = split_options(request.overrides, COMMANDS["search"].options)
    if len(request.positional) < 2:
        missing = "QUERY, a file, an id or a text" if request.positional else "E.npz"
        raise RequestError(f"missing argument: {missing}", f"sslcli search {COMMANDS['search'].usage}")
    file, *names = request.positional
    k = positive_integer("k", options.get("k", "10"))
    page = new_file("page", options["page"], ".html") if "page" in options else None
    values = inference_values(request, overrides, "search")

    from sslcli.inference.embeddings.reader import read_embeddings
    from sslcli.inference.search import make_queries, require_vectors, search

    embeddings = read_embeddings(Path(file).expanduser())
    require_vectors(embeddings, Path(file))
    queries, session = make_queries(embeddings, names, values, options.get("run"))
    found = search(embeddings, queries, k)
    if page is not None:
        from sslcli.inference.inputs import ITEMS
        from sslcli.inference.search import open_encoder_of
        from sslcli.report.neighbors_page import write_page

        session = session or open_encoder_of(embeddings, values, options.get("run"))
        pooled = embeddings.meta.get("settings", {}).get("pool")
        write_page(page, session.encoder, queries, found, ITEMS if pooled == ITEMS else "all")
        console.say(f"page  {page}")
    print_neighbors(queries, found)
    return 0


def print_neighbors(queries: list[Query], found: list[list[Neighbor]]) -> None:
    if console.flag(console.JSON):
        results = [
            {
                "query": query.name,
                "title": query.title,
                "neighbors": [{k: v for k, v in asdict(n).items() if k != "row"} for n in near],
            }
            for query, near in zip(queries, found, strict=True)
        ]
        console.out_json({"queries": results})
        return
    labeled = any(n.label is not None for near in found for n in near)
    titled = any(n.title for near in found for n in near)
    body = [
        [
            f"{query.name}: {query.title}" if query.title else query.name,
            str(rank),
            f"{n.similarity:.4f}",
            n.id,
            *([n.title] if titled else []),
            *(["" if n.label is None else str(n.label)] if labeled else []),
        ]
        for query, near in zip(queries, found, strict=True)
        for rank, n in enumerate(near, 1)
    ]
    head = ["query", "rank", "similarity", "id", *(["title"] if titled else []), *(["label"] if labeled else [])]
    console.out(*console.table(head, body, numbers=[1, 2]))
