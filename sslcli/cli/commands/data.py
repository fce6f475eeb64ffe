"""sslcli data inspect | preview | pack: inspect a data set, preview its views, pack its files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from sslcli import console
from sslcli.cli.arguments import Request, subcommand_of
from sslcli.cli.command_table import COMMANDS
from sslcli.config import compose
from sslcli.errors import RequestError, command, target
from sslcli.training.configuration import resolve
from sslcli.training.method_images import denormalize


def main(request: Request) -> int:
    name = subcommand_of(request, COMMANDS["data"])
    subcommand = COMMANDS["data"].subcommand(name)
    assert subcommand is not None
    keys = {option.name for option in subcommand.options}
    given = [override.partition("=") for override in request.overrides]
    options = {key: value for key, _, value in given if key in keys}
    overrides = [f"{key}{equals}{value}" for key, equals, value in given if key not in keys]
    cfg = resolve(compose.compose("pretrain", overrides, request.config_dirs))
    if name != "inspect":
        console.ignore_json(f"data {name}")
    if name == "pack":
        return pack(cfg, options)
    if name == "preview":
        return preview(cfg, target(options.get("out", "views.png"), "out=views.png", (".png",)))
    return inspect(cfg, strict=request.has_flag("--strict"))


def pack(cfg: dict[str, Any], options: dict[str, str]) -> int:
    """Packs a data set of image files; the last line on stdout is the pack."""
    from sslcli.builders import load_dataset
    from sslcli.config import instantiate
    from sslcli.data.sources.pack_files.writer import write_pack

    out = target(options.get("out", ""), "out=photos.pack")
    form = options.get("format", "jpeg")
    if form not in ("jpeg", "raw"):
        raise RequestError(f"format={form}: expected jpeg or raw", "format=jpeg")
    size = None if options.get("size", "null") == "null" else _integer("size", options["size"], 8, 16384)
    quality = _integer("quality", options.get("quality", "90"), 1, 100)
    if os.path.lexists(out) and not (out / "manifest.json").is_file():
        raise RequestError(f"out={out} exists and is not a pack", "another out=")
    instantiate.check("dataset", cfg["dataset"])
    node = {k: v for k, v in cfg["dataset"].items() if k != "max_size"}  # a pack is the same on every device
    cfg = {**cfg, "dataset": {**node, "resident": False} if "resident" in node else node}
    if write_pack(load_dataset(cfg), out, form, size, quality):
        console.say(f"packed: {command('pretrain', 'dataset=pack', f'dataset.path={out}')}")
    else:
        console.say(f"{out} is complete")
    console.out(out)
    return 0


def _integer(key: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise RequestError(f"{key}={text}: expected an integer from {low} to {high}")
    return int(text)


def inspect(cfg: dict[str, Any], strict: bool) -> int:
    """Counts, classes, sizes, what was skipped; with --strict every sample is decoded.

    Exit code 7 where a training would stop: more unreadable samples than dataset.max_bad_fraction."""
    from sslcli.builders import load_dataset
    from sslcli.config import instantiate
    from sslcli.data.inspect import format_rows, require_readable
    from sslcli.data.inspect import inspect as look

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
    views = [denormalize(job.dataset, view) for view in batch.views]
    table = [[originals[i], *(view[i] for view in views)] for i in range(len(batch))]
    sheet(path, table, ["source", *_titles(batch.kinds)])
    console.say(f"{len(batch)} samples of {job.dataset.name}, plan {dict(cfg['method']['plan'])}")
    console.out(path)
    return 0


def _originals(job: Any, ids: Any, views: Any) -> list[Any]:
    from sslcli.data.loading.evaluation import iterate_batches

    found = {}
    for got, x in iterate_batches(job.dataset.pretrain, views, batch_size=len(ids), device="cpu", workers=0, ids=ids):
        found.update({int(i): v for i, v in zip(got, denormalize(job.dataset, x), strict=True)})
    return [found[int(i)] for i in ids]


def _titles(kinds: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    titles = []
    for kind in kinds:
        seen[kind] = seen.get(kind, 0) + 1
        titles.append(f"{kind} {seen[kind]}" if kinds.count(kind) > 1 else kind)
    return titles
