"""sslcli pick RUN [FILES ...] n= by=: which samples to label next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sslcli import console
from sslcli.cli.arguments import Request, split_options
from sslcli.cli.command_table import COMMANDS
from sslcli.cli.entries.samples import PICK_FORMATS
from sslcli.config import compose
from sslcli.config.overrides import allow_data_path, override_keys
from sslcli.errors import RequestError, command, listing, nearest, target

if TYPE_CHECKING:
    from sslcli.pick.picks import Picked

KEYS = ("dataset", "device", "train.devices")  # of the configuration, beside the options of the command


def main(request: Request) -> int:
    if not request.positional:
        raise RequestError("missing argument: RUN", "sslcli pick RUN [FILES ...]; `latest` is the newest run")
    options, overrides = split_options(request.overrides, COMMANDS["pick"].options)
    check_keys(overrides)
    form = file_format(options.get("format", "csv"))
    out = new_file("out", options["out"], PICK_FORMATS[form]) if "out" in options else None
    if form != "csv" and out is None:
        raise RequestError(f"format={form} writes a file", f"out=tasks{PICK_FORMATS[form]}")
    page = new_file("page", options["page"], ".html") if "page" in options else None
    from sslcli.inference.inputs import InputRequest
    from sslcli.pick.picks import PickRequest, pick
    from sslcli.training.configuration import resolve

    values = resolve(compose.compose("pretrain", allow_data_path(overrides), request.config_dirs))
    run, *files = request.positional
    samples = InputRequest.parse(files, values, overrides, "all" if files else "train")
    asked = PickRequest(
        run,
        samples,
        integer("n", options.get("n", "100")),
        options.get("by", "typical"),
        options.get("have"),
        integer("seed", options.get("seed", "0")),
    )
    picked = pick(asked, values)
    write(picked, form, out, page)
    keep_summary(picked, out or page)
    show(picked, out, page)
    return 0


def keep_summary(picked: Picked, file: Path | None) -> None:
    """What the report of the run shows. A run that cannot be written causes a warning."""
    from sslcli.errors import StorageError
    from sslcli.runs.records import save_summary
    from sslcli.runs.run import now

    if file is None or picked.run is None:
        return
    asked = picked.request
    numbers = {"samples": len(picked.inputs), "with a label before": picked.labeled}
    numbers[f"picked by={asked.by}"] = len(picked.samples)
    try:
        save_summary(picked.run.path, "pick", "Samples to label", file.name, numbers, list(picked.notes), now())
    except (StorageError, OSError) as error:
        console.warn(f"the summary is not in the report: {error}")


def write(picked: Picked, form: str, out: Path | None, page: Path | None) -> None:
    from sslcli.pick.output import write_csv, write_label_studio
    from sslcli.pick.page import write_page

    if out is not None:
        (write_csv if form == "csv" else write_label_studio)(picked, out)
    if page is not None:
        write_page(picked, page)


def show(picked: Picked, out: Path | None, page: Path | None) -> None:
    """The picks on stdout where they are in no file, else its name."""
    from sslcli.data.files.csv_text import written
    from sslcli.evals.inputs.label_file import OWN
    from sslcli.pick.output import columns, rows

    for note in picked.notes:
        console.say(note)
    spread = ", ".join(f"{n} of stratum {stratum}" for stratum, n in picked.per_stratum.items())
    console.say(f"picked {len(picked.samples):,} from {len(picked.per_stratum)} of {picked.strata} strata: {spread}")
    if page is not None:
        console.say(f"next  open {page} in a browser, label, save labels.csv")
    elif out is not None:
        console.say(
            f"next  {'fill in the column label' if out.suffix == '.csv' else f'import {out} into Label Studio'}"
        )
    if page is not None or out is not None:
        labels = out if page is None and out is not None and out.suffix == ".csv" else "labels.csv"
        labels = f"{OWN if picked.known.own else ''}{labels}"
        console.say(f"then  {command('eval', 'probe', f'run={picked.request.run}', f'labels={labels}')}")
    if console.flag(console.JSON):
        names = columns(picked)[:-1]
        picks = [dict(zip(names, row[:-1], strict=True)) for row in rows(picked)]
        record = {"out": out and str(out), "page": page and str(page), "by": picked.request.by}
        console.out_json({**record, "per_stratum": picked.per_stratum, "picks": picks})
    elif out is not None:
        console.out(out)
    else:
        console.out(*written(columns(picked), rows(picked)).splitlines())


def file_format(name: str) -> str:
    if name not in PICK_FORMATS:
        close = nearest(name, PICK_FORMATS)
        raise RequestError(
            f"format={name}: unknown format", f"format={close}" if close else f"one of {listing(PICK_FORMATS)}"
        )
    return name


def new_file(key: str, text: str, ending: str) -> Path:
    """A file that does not exist, in an existing folder. RequestError."""
    path = target(text, f"{key}=picks{ending}", (ending,), key)
    if os.path.lexists(path):
        raise RequestError(f"{key}={text} exists", "remove it, or give another name")
    return path


def integer(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise RequestError(f"{key}={text}: expected an integer", None) from None


def check_keys(overrides: list[str]) -> None:
    """RequestError for a key that the command does not take."""
    for override, key in zip(overrides, override_keys(overrides), strict=True):
        if key.split(".")[0] not in KEYS and key not in KEYS:
            known = [option.name for option in COMMANDS["pick"].options]
            close = nearest(key, [*known, *KEYS])
            hint = f"did you mean {close}=...?" if close else "sslcli pick --help"
            raise RequestError(f"unexpected argument '{override}' of sslcli pick", hint)
