"""sslcli data audit [run=RUN|none] [dataset=...] [out=FILE.csv] [page=FILE.html]: find problems of a data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sslcli import console
from sslcli.cli.arguments import Request, split_options
from sslcli.cli.command_table import COMMANDS
from sslcli.config import Config, compose
from sslcli.config.overrides import allow_data_path
from sslcli.errors import RequestError, command, target

if TYPE_CHECKING:
    from sslcli.audit.audit import Audit


def audit(request: Request) -> int:
    """Writes the findings and their page; the last line on stdout is the CSV file."""
    from sslcli.training.configuration import resolve

    options, overrides = split_options(request.overrides, COMMANDS["data"].options_of("audit"))
    out = _new_file("out", options.get("out", "audit.csv"), ".csv")
    page = _new_file("page", options.get("page", str(out.with_suffix(".html"))), ".html")
    given = allow_data_path([f"run={options.get('run', 'none')}", "evaluator=quality", *overrides])
    values = resolve(compose.compose("eval", given, request.config_dirs))

    from sslcli.audit.findings import HEADER
    from sslcli.audit.page import audit_page
    from sslcli.data.files.csv_text import written
    from sslcli.runs.files import replace_file
    from sslcli.runs.records import save_summary
    from sslcli.runs.run import now

    found, path = run_audit(values, given)
    for note in found.notes:
        console.say(f"note  {note}")
    replace_file(page.parent, page.name, audit_page(found, out.name))
    replace_file(out.parent, out.name, written(HEADER, found.rows()))
    if path is not None:
        numbers = {"samples": len(found.pool), **found.counts()}
        save_summary(path, "audit", f"Audit of {found.pool.dataset.name}", out.name, numbers, found.notes, now())
    console.say(f"page  {page}")
    words = [word for word in overrides if word.startswith(("dataset=", "dataset."))]
    if "run" in options and not words:
        words = ["dataset=..."]
    console.say(f"next  {command('pretrain', *words, f'dataset.exclude={out}')}")
    if console.flag(console.JSON):
        record = {"csv": str(out), "page": str(page), "samples": len(found.pool), "issues": found.counts()}
        console.out_json({**record, "notes": found.notes})
        return 0
    for issue, count in found.counts().items():
        console.out(f"{issue.ljust(26)} {count:,}")
    console.out(out)
    return 0


def run_audit(values: Config, overrides: list[str]) -> tuple[Audit, Path | None]:
    """The audit of the data set of a request, by the features of its run where it names one, and the folder of the run."""
    from sslcli.audit.audit import audit
    from sslcli.config import instantiate
    from sslcli.evals.base.evaluated_model import load_model
    from sslcli.evals.base.evaluation import open_run
    from sslcli.evals.base.request import check_overrides, with_data_keys

    check_overrides(values, [o for o in overrides if not o.startswith(("run=", "evaluator="))])
    values = with_data_keys(values, overrides)
    run, run_cfg = open_run(values)
    if run is None:
        instantiate.check("dataset", run_cfg["dataset"])
    if run is None or values.get("data_given"):  # the data of the run itself are read as it read them
        run_cfg = _tolerant(run_cfg)
    model = load_model(values, run_cfg, None if run is None else run.path)
    backbone = model.backbone if run is not None or model.init else None
    return audit(model.data, backbone, values["seed"]), None if run is None else run.path


def _tolerant(cfg: Config) -> Config:
    """The configuration with a data set that is read however many of its samples are unreadable."""
    node = cfg["dataset"]
    return {**cfg, "dataset": {**node, "max_bad_fraction": 1.0}} if "max_bad_fraction" in node else cfg


def _new_file(key: str, text: str, ending: str) -> Path:
    path = target(text, f"{key}=FILE{ending}", (ending,))
    if os.path.lexists(path):
        raise RequestError(f"{key}={path} exists", f"another {key}=, or remove the file")
    return path
