"""sslcli data inspect | preview: look before you train."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from sslcli import compose, console
from sslcli.cli import Request
from sslcli.commands.pretrain import denormalised, plain
from sslcli.errors import RequestError, nearest


def main(request: Request) -> int:
    verb, *rest = request.words or [""]
    if verb not in ("inspect", "preview") or rest:
        close = nearest(verb, ("inspect", "preview")) if verb else None
        raise RequestError(
            f"data cannot `{verb}`" if verb else "data what?", f"sslcli data {close or 'inspect|preview'}"
        )
    target = next((o.split("=", 1)[1] for o in request.overrides if o.startswith("out=")), "views.png")
    overrides = [o for o in request.overrides if not o.startswith("out=")]
    cfg = plain(compose.compose("pretrain", overrides, request.config_dirs))
    return inspect(cfg, strict="--strict" in request.flags) if verb == "inspect" else preview(cfg, Path(target))


def inspect(cfg: dict[str, Any], strict: bool) -> int:
    """Counts, classes, sizes, what was skipped; with --strict every sample is decoded.

    Exit code 7 where a training would stop: more unreadable samples than dataset.max_bad_fraction."""
    from sslcli import build
    from sslcli.data.inspect import inspect as look
    from sslcli.data.inspect import require_readable, rows
    from sslcli.job import load_dataset

    node = cfg["dataset"]
    build.check("dataset", node)
    limit = node.get("max_bad_fraction")
    if limit is not None and 0 <= limit <= 1:
        cfg = {**cfg, "dataset": {**node, "max_bad_fraction": 1.0}}  # look at all of it first
    found = look(load_dataset(cfg), strict=strict, limit=limit)
    if console.flag(console.JSON):
        console.out_json(found)
    else:
        for key, value in rows(found):
            console.out(f"{key.ljust(14)} {value}")
    require_readable(found)
    return 0


def preview(cfg: dict[str, Any], path: Path) -> int:
    """A picture sheet: each row a sample, its source first, then the views the method would see."""
    from sslcli.job import prepare
    from sslcli.views import clean, sheet

    if path.suffix.lower() != ".png":
        raise RequestError(f"out={path}: the sheet is a PNG", f"out={path.with_suffix('.png')}")
    if not path.absolute().parent.is_dir():
        raise RequestError(f"out={path}: there is no folder {path.absolute().parent}")
    source = cfg["train"]
    cfg["train"] = {**source, "batch_size": min(8, source["batch_size"]), "accumulate": 1}
    cfg["device"] = {**cfg["device"], "type": "cpu", "workers": 0}
    job = prepare(cfg)
    with contextlib.closing(job.loader.stream(0)) as stream:
        batch = next(stream)
    originals = _originals(job, batch.ids, clean(job.dataset))
    views = [denormalised(job.dataset, view) for view in batch.views]
    table = [[originals[i], *(view[i] for view in views)] for i in range(len(batch))]
    sheet(path, table, ["source", *_titles(batch.kinds)])
    console.say(f"{len(batch)} samples of {job.dataset.name}, plan {dict(cfg['method']['plan'])}")
    console.out(path)
    return 0


def _originals(job: Any, ids: Any, views: Any) -> list[Any]:
    from sslcli.data.loader import in_order

    found = {}
    for got, x in in_order(job.dataset.pretrain, views, batch_size=len(ids), device="cpu", workers=0, ids=ids):
        found.update({int(i): v for i, v in zip(got, denormalised(job.dataset, x), strict=True)})
    return [found[int(i)] for i in ids]


def _titles(kinds: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    titles = []
    for kind in kinds:
        seen[kind] = seen.get(kind, 0) + 1
        titles.append(f"{kind} {seen[kind]}" if kinds.count(kind) > 1 else kind)
    return titles
