"""sslcli data inspect | preview | pack: look before you train; make one large file of many small ones."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.cli.commands.pretrain import denormalised, plain
from sslcli.cli.main import Request, stray
from sslcli.config import compose
from sslcli.errors import RequestError, command, nearest, target

VERBS = ("inspect", "preview", "pack")


def main(request: Request) -> int:
    verb, *rest = request.words or [""]
    if verb in VERBS and rest:
        raise stray(rest[0], f"data {verb}")
    if verb not in VERBS:
        close = nearest(verb, VERBS) if verb else None
        raise RequestError(f"data cannot `{verb}`" if verb else "data what?", f"sslcli data {close or '|'.join(VERBS)}")
    keys = {"preview": ("out",), "pack": ("out", "size", "format", "quality")}.get(verb, ())
    own = dict(o.split("=", 1) for o in request.overrides if o.split("=", 1)[0] in keys)
    overrides = [o for o in request.overrides if o.split("=", 1)[0] not in own]
    cfg = plain(compose.compose("pretrain", overrides, request.config_dirs))
    if verb != "inspect":
        console.ignore_json(f"data {verb}")
    if verb == "pack":
        return pack(cfg, own)
    if verb == "preview":
        return preview(cfg, target(own.get("out", "views.png"), "out=views.png", (".png",)))
    return inspect(cfg, strict="--strict" in request.flags)


def pack(cfg: dict[str, Any], own: dict[str, str]) -> int:
    """Packs a data set of image files; the last line on stdout is the pack."""
    from sslcli.config import instantiate
    from sslcli.data.sources.pack_files.writer import write_pack
    from sslcli.training.setup import load_dataset

    out = target(own.get("out", ""), "out=photos.pack")
    form = own.get("format", "jpeg")
    if form not in ("jpeg", "raw"):
        raise RequestError(f"format={form}: a pack is jpeg or raw", "format=jpeg")
    size = None if own.get("size", "null") == "null" else _whole("size", own["size"], 8, 16384)
    quality = _whole("quality", own.get("quality", "90"), 1, 100)
    if os.path.lexists(out) and not (out / "manifest.json").is_file():
        raise RequestError(f"out={out} is there already, and is no pack", "another out=")
    instantiate.check("dataset", cfg["dataset"])
    node = {k: v for k, v in cfg["dataset"].items() if k != "max_size"}  # a pack is the same wherever it is made
    cfg = {**cfg, "dataset": {**node, "resident": False} if "resident" in node else node}
    if write_pack(load_dataset(cfg), out, form, size, quality):
        console.say(f"packed: {command('pretrain', 'dataset=pack', f'dataset.path={out}')}")
    else:
        console.say(f"{out} holds this already")
    console.out(out)
    return 0


def _whole(key: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise RequestError(f"{key}={text}: a whole number from {low} to {high} is wanted")
    return int(text)


def inspect(cfg: dict[str, Any], strict: bool) -> int:
    """Counts, classes, sizes, what was skipped; with --strict every sample is decoded.

    Exit code 7 where a training would stop: more unreadable samples than dataset.max_bad_fraction."""
    from sslcli.config import instantiate
    from sslcli.data.inspect import format_rows, require_readable
    from sslcli.data.inspect import inspect as look
    from sslcli.training.setup import load_dataset

    node = cfg["dataset"]
    instantiate.check("dataset", node)
    limit = node.get("max_bad_fraction")
    if limit is not None and 0 <= limit <= 1:
        cfg = {**cfg, "dataset": {**node, "max_bad_fraction": 1.0}}  # look at all of it first
    found = look(load_dataset(cfg), strict=strict, limit=limit)
    if console.flag(console.JSON):
        console.out_json(found)
    else:
        for key, value in format_rows(found):
            console.out(f"{key.ljust(14)} {value}")
    require_readable(found)
    return 0


def preview(cfg: dict[str, Any], path: Path) -> int:
    """A picture sheet: each row a sample, its source first, then the views the method would see."""
    from sslcli.training.setup import prepare
    from sslcli.views import clean, sheet

    source, batch = cfg["train"], cfg["train"]["batch_size"]
    cfg["train"] = {**source, "batch_size": 8 if batch == "auto" else min(8, batch), "accumulate": 1}
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
    from sslcli.data.loading.evaluation import iterate_batches

    found = {}
    for got, x in iterate_batches(job.dataset.pretrain, views, batch_size=len(ids), device="cpu", workers=0, ids=ids):
        found.update({int(i): v for i, v in zip(got, denormalised(job.dataset, x), strict=True)})
    return [found[int(i)] for i in ids]


def _titles(kinds: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    titles = []
    for kind in kinds:
        seen[kind] = seen.get(kind, 0) + 1
        titles.append(f"{kind} {seen[kind]}" if kinds.count(kind) > 1 else kind)
    return titles
