"""sslcli predict RUN [FILES ...]: classes of new samples, by the classifier that `eval probe` or `eval finetune` kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sslcli import console
from sslcli.cli.arguments import Request, split_options
from sslcli.cli.command_table import COMMANDS
from sslcli.config import compose
from sslcli.config.overrides import allow_data_path, override_keys
from sslcli.errors import RequestError, nearest

if TYPE_CHECKING:
    from sslcli.inference.predictions import Summary

KEYS = ("dataset", "device", "train.devices")  # of the configuration, beside the options of the command


def main(request: Request) -> int:
    if not request.positional:
        raise RequestError("missing argument: RUN", "sslcli predict RUN [FILES ...]; `latest` is the newest run")
    options, overrides = split_options(request.overrides, COMMANDS["predict"].options)
    check_keys(overrides)
    from sslcli.inference.inputs import InputRequest
    from sslcli.inference.predict import Settings, predict
    from sslcli.inference.row_file import row_target
    from sslcli.training.configuration import resolve

    run, *files = request.positional
    out = row_target(options["out"], "out=predictions.csv") if "out" in options else None
    threshold = number("threshold", options["threshold"]) if "threshold" in options else None
    batch_size = int(number("batch_size", options.get("batch_size", "64"), whole=True))
    settings = Settings(options.get("from", ""), threshold, batch_size)
    values = resolve(compose.compose("pretrain", allow_data_path(overrides), request.config_dirs))
    samples = InputRequest.parse(files, values, overrides, options.get("split", "all"))
    summary = predict(run, samples, settings, values, out, Rows())
    for line in lines(summary):
        console.say(line)
    if out is not None and console.flag(console.JSON):
        console.out_json({"out": str(out), **summary.to_json()})
    elif out is not None:
        console.out(out)
    return 0


class Rows:
    """Prints rows on stdout as CSV under a header, or with --json an object for each."""

    def __init__(self) -> None:
        self.header = True

    def __call__(self, rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> None:
        from sslcli.data.files.csv_text import csv_lines

        if console.flag(console.JSON):
            console.out(*(json.dumps(dict(zip(columns, row, strict=True))) for row in rows))
            return
        console.out(*csv_lines([columns, *rows] if self.header else rows).splitlines())
        self.header = False


def check_keys(overrides: list[str]) -> None:
    """RequestError for a key that the command does not take."""
    for override, key in zip(overrides, override_keys(overrides), strict=True):
        if key.split(".")[0] not in KEYS and key not in KEYS:
            known = [o.name for o in COMMANDS["predict"].options]
            close = nearest(key, [*known, *KEYS])
            hint = f"did you mean {close}=...?" if close else "sslcli predict --help"
            raise RequestError(f"unexpected argument '{override}' of sslcli predict", hint)


def number(key: str, text: str, whole: bool = False) -> float:
    try:
        value = float(text)
        if not whole or (value == int(value) and value >= 1):
            return value
    except (ValueError, OverflowError):
        pass
    raise RequestError(f"{key}={text}: expected {'an integer of at least 1' if whole else 'a number'}", None)


def lines(summary: Summary) -> list[str]:
    """What stderr says at the end."""
    most = ", ".join(f"{name} {n:,}" for name, n in summary.classes.most_common(8))
    rest = f" and {len(summary.classes) - 8} more classes" if len(summary.classes) > 8 else ""
    return [f"{summary.predicted:,} predicted{f': {most}' if most else ''}{rest}", *summary.notes()]
