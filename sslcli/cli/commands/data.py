"""sslcli data inspect | preview | pack | audit: inspect a data set, preview its views, pack its files, find problems."""

from __future__ import annotations

import os
from pathlib import Path

from sslcli import console
from sslcli.cli.arguments import Request, split_options, subcommand_of
from sslcli.cli.command_table import COMMANDS
from sslcli.config import Config, compose
from sslcli.config.modalities import with_implied
from sslcli.errors import RequestError, command, target

MAX_SAMPLES = 8  # rows of a preview


def main(request: Request) -> int:
    from sslcli.training.configuration import resolve

    name = subcommand_of(request, COMMANDS["data"])
    if name == "audit":
        from sslcli.cli.commands.data_audit import audit

        return audit(request)
    options, overrides = split_options(request.overrides, COMMANDS["data"].options_of(name))
    overrides = with_implied(overrides)  # the views are those of the training
    cfg = resolve(compose.compose("pretrain", overrides, request.config_dirs))
    if name != "inspect":
        console.ignore_json(f"data {name}")
    if name == "pack":
        return pack(cfg, options)
    if name == "preview":
        return preview(cfg, target(options.get("out", "views.png"), "out=views.png", (".png",)))
    inspect(cfg, strict=request.has_flag("--strict"))
    console.say(f"next  {command('pretrain', *overrides)}")
    return 0


def pack(cfg: Config, options: dict[str, str]) -> int:
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


def inspect(cfg: Config, strict: bool) -> None:
    """Prints counts, classes, sizes and unreadable files; `strict` decodes every sample.

    Raises DataError (exit code 7) where training would fail: more unreadable samples than dataset.max_bad_fraction."""
    from sslcli.builders import load_dataset
    from sslcli.config import instantiate
    from sslcli.data.inspect import format_rows, require_readable
    from sslcli.data.inspect import inspect as inspect_dataset

    node = cfg["dataset"]
    instantiate.check("dataset", node)
    limit = node.get("max_bad_fraction")
    if limit is not None and 0 <= limit <= 1:
        cfg = {**cfg, "dataset": {**node, "max_bad_fraction": 1.0}}  # the limit applies after the report
    report = inspect_dataset(load_dataset(cfg), strict=strict, limit=limit)
    if console.flag(console.JSON):
        console.out_json(report)
    else:
        for key, value in format_rows(report):
            console.out(f"{key.ljust(14)} {value}")
    require_readable(report)


def preview(cfg: Config, path: Path) -> int:
    """Draws at most eight samples and their views; prints the path of the PNG."""
    from sslcli.training.method_images import save_views
    from sslcli.training.setup import prepare

    batch_size = cfg["train"]["batch_size"]
    few = MAX_SAMPLES if batch_size == "auto" else min(MAX_SAMPLES, batch_size)
    cfg["train"] = {**cfg["train"], "batch_size": few, "accumulate": 1}
    cfg["device"] = {**cfg["device"], "type": "cpu", "workers": 0}
    setup = prepare(cfg)
    count = save_views(setup.loader, setup.dataset, path)
    console.say(f"{count} samples of {setup.dataset.name}, plan {dict(cfg['method']['plan'])}")
    console.out(path)
    return 0
