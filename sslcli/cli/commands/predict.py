"""sslcli predict RUN [FILES ...]: classes of new samples, by the classifier that `eval probe` or `eval finetune` kept, or by the
names of classes; or the next items of users, by a method that predicts them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sslcli import console
from sslcli.cli.arguments import Request, split_options
from sslcli.cli.command_table import COMMANDS
from sslcli.cli.commands.embed import encoder_and_files, inference_values, positive_integer, refuse_dataset_keys
from sslcli.errors import RequestError

if TYPE_CHECKING:
    from pathlib import Path

    from sslcli.config import Config
    from sslcli.inference.inputs import InputRequest
    from sslcli.inference.next_items import NextSummary
    from sslcli.inference.predictions import Summary

CLASSIFIER_KEYS = {"threshold", "probabilities", "batch_size", "classes", "templates"}
ZEROSHOT_KEYS = {"classes", "templates"}
NEXT_KEYS = {"k", "seen"}
NEXT_METHOD = "sasrec and bert4rec do: sslcli pretrain method=sasrec dataset=interactions dataset.path=FILE"


def main(request: Request) -> int:
    options, overrides = split_options(request.overrides, COMMANDS["predict"].options)
    spec, files = encoder_and_files(request, COMMANDS["predict"])

    from sslcli.inference.inputs import InputRequest
    from sslcli.inference.row_file import row_target

    out = row_target(options["out"], "out=predictions.csv") if "out" in options else None
    refuse_dataset_keys("predict", request, spec, files, overrides)
    values = inference_values(request, overrides, "predict")
    samples = InputRequest.parse(files, values, overrides, options.get("split", "all"))
    summary = run(spec, samples, options, values, out)
    for line in summary.lines():
        console.say(line)
    if out is not None and console.flag(console.JSON):
        console.out_json({"out": str(out), **summary.to_json()})
    elif out is not None:
        console.out(out)
    return 0


def run(
    spec: str, samples: InputRequest, options: dict[str, str], values: Config, out: Path | None
) -> Summary | NextSummary:
    """Predicts next items where the run's method does and no classifier is asked for, else classes or values. RequestError for
    options of the other kind."""
    from sslcli.inference.next_items import NextSettings, predict_next, predicts_next
    from sslcli.inference.predict import Settings, predict
    from sslcli.inference.zero_shot import ZeroShot

    source = options.get("from", "")
    following = source in ("", "next") and predicts_next(spec)
    if source == "next" and not following:
        raise RequestError(f"the method of {spec} predicts no next item", NEXT_METHOD)
    for key in set(options) & (CLASSIFIER_KEYS if following else NEXT_KEYS):
        if following:
            raise RequestError(f"{key}= is of classes", f"from=probe predicts them; for next items leave {key}= out")
        raise RequestError(f"{key}= is of next items, which the method of {spec} does not predict", NEXT_METHOD)
    if following:
        settings = NextSettings(positive_integer("k", options.get("k", "10")), options.get("seen", "mask"))
        return predict_next(spec, samples, settings, values, out, Rows())
    for key in set(options) & ZEROSHOT_KEYS if source != "zeroshot" else ():
        raise RequestError(
            f"{key}= is of classification by names", f"from=zeroshot {key}=..., by a run of clip or siglip"
        )
    threshold = number("threshold", options["threshold"]) if "threshold" in options else None
    size = positive_integer("batch_size", options.get("batch_size", "64"))
    zero_shot = ZeroShot.parse(options.get("classes"), options.get("templates")) if source == "zeroshot" else None
    kept = "" if zero_shot is not None else source
    classes = Settings(kept, zero_shot, threshold, size, options.get("probabilities", "auto"))
    return predict(spec, samples, classes, values, out, Rows())


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
