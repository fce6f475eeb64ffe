"""sslcli predict RUN [FILES ...]: classes of new samples, by the classifier that `eval probe` or `eval finetune` kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sslcli import console
from sslcli.cli.arguments import Request, split_options
from sslcli.cli.command_table import COMMANDS
from sslcli.cli.commands.embed import encoder_and_files, inference_values, positive_integer
from sslcli.errors import RequestError

if TYPE_CHECKING:
    from sslcli.inference.predictions import Summary


def main(request: Request) -> int:
    options, overrides = split_options(request.overrides, COMMANDS["predict"].options)
    spec, files = encoder_and_files(request, COMMANDS["predict"])
    batch_size = positive_integer("batch_size", options.get("batch_size", "64"))
    threshold = number("threshold", options["threshold"]) if "threshold" in options else None

    from sslcli.inference.inputs import InputRequest
    from sslcli.inference.predict import Settings, predict
    from sslcli.inference.row_file import row_target

    out = row_target(options["out"], "out=predictions.csv") if "out" in options else None
    settings = Settings(options.get("from", ""), threshold, batch_size)
    values = inference_values(request, overrides, "predict")
    samples = InputRequest.parse(files, values, overrides, options.get("split", "all"))
    summary = predict(spec, samples, settings, values, out, Rows())
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


def number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RequestError(f"{key}={text}: expected a number", f"{key}=0.9") from None


def lines(summary: Summary) -> list[str]:
    """What stderr says at the end."""
    most = ", ".join(f"{name} {n:,}" for name, n in summary.classes.most_common(8))
    rest = f" and {len(summary.classes) - 8} more classes" if len(summary.classes) > 8 else ""
    return [f"{summary.predicted:,} predicted{f': {most}' if most else ''}{rest}", *summary.notes()]
