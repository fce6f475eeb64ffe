"""sslcli runs compare A B ...: compare runs by metrics, configuration, predictions, encoders and training curves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from sslcli import console
from sslcli.config import Config
from sslcli.errors import RequestError, listing, nearest, target
from sslcli.report.comparison.comparison import Comparison, compare
from sslcli.runs import Record
from sslcli.runs.find import find
from sslcli.runs.listing import format_length
from sslcli.runs.run import Run

KEYS = ("out", "cka", "seed")
MAX_VALUE = 40  # characters of a configuration value that are printed


def main(words: list[str], overrides: list[str]) -> int:
    options, devices = parse_overrides(overrides)
    runs = [Run.open(find(word)) for word in words]
    if len({r.path.resolve() for r in runs}) < 2:
        raise RequestError("runs compare requires two or more runs", "sslcli runs compare RUN RUN")
    plot = target(options.get("out", "compare.png"), "out=compare.png", (".png",))
    values = evaluation_values(devices) if options.get("cka", "true") == "true" else None
    comparison = compare(runs, int(options.get("seed", "0")), plot, values)
    if console.flag(console.JSON):
        console.out_json(asdict(comparison))
    else:
        print_comparison(comparison)
    return 0


def parse_overrides(overrides: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options of the command, and the overrides of the device. RequestError for any other key."""
    pairs = [o.partition("=") for o in overrides]
    options = {key: value for key, _, value in pairs if key in KEYS}
    devices = [o for o in overrides if o.startswith(("device=", "device."))]
    for key, _, _ in pairs:
        if key not in KEYS and not key.startswith("device"):
            close = nearest(key, KEYS)
            raise RequestError(
                f"runs compare has no key `{key}`", f"did you mean {close}=?" if close else listing(KEYS)
            )
    if options.get("cka", "true") not in ("true", "false"):
        raise RequestError(f"cka={options['cka']}: expected true or false", "cka=false")
    if not options.get("seed", "0").isdigit():
        raise RequestError(f"seed={options['seed']}: expected an integer", "seed=0")
    return options, devices


def evaluation_values(devices: list[str]) -> Config:
    from sslcli.config import compose
    from sslcli.training.configuration import resolve

    return resolve(compose.compose("eval", ["evaluator=quality", *devices]))


def print_comparison(comparison: Comparison) -> None:
    names = [run["name"] for run in comparison.runs]
    two = len(names) == 2
    for run in comparison.runs:
        time = f" in {console.human_time(run['seconds'])}" if run["seconds"] else ""
        length = format_length(run["length"]) or "no step"
        console.out(f"{run['name']}  {run['short']}  {run['status']}, {length}{time}")
    if comparison.numbers:
        head = ["metrics", *names, *(["B - A"] if two else [])]
        body = [_metric_cells(name, comparison, two) for name in comparison.numbers]
        _print_table(head, body, range(1, len(head)))
    if comparison.items:
        head = ["same test samples", "A", "run", "run - A", "95 % interval", "run better", "A better", "p"]
        several = any(row["p"] != row["p_holm"] for row in comparison.items) or not two
        head += ["Holm p", "test"] if several else ["test"]
        body = [_prediction_cells(row, several) for row in comparison.items]
        _print_table(head, body, range(1, len(head) - 1))
        said = {f"{row['evaluation']} {row['run']}: {note}": None for row in comparison.items for note in row["notes"]}
        for note in said:
            console.out(f"  {note}")
    if comparison.config:
        body = [[key, *map(_config_value, values)] for key, values in comparison.config.items()]
        _print_table(["configuration", *names], body)
    if comparison.cka:
        body = [[row["run"], _number(row["cka"]), f"{row['samples']:,}"] for row in comparison.cka]
        _print_table(["encoders, with A", "CKA", "test samples"], body, (1, 2))
    for note in comparison.notes:
        console.warn(note)
    if comparison.picture:
        console.out("", comparison.picture)


def _print_table(head: list[str], body: list[list[str]], right: Iterable[int] = ()) -> None:
    console.out("", *console.table(head, body, numbers=right))


def _prediction_cells(row: Record, several: bool) -> list[str]:
    return [
        f"{row['evaluation']}.{row['metric']} {row['run']}",
        f"{row['first']:.4f}",
        f"{row['second']:.4f}",
        f"{row['difference']:+.4f}",
        f"{row['low']:+.4f} .. {row['high']:+.4f}",
        f"{row['better']:,}",
        f"{row['worse']:,}",
        f"{row['p']:.2g}",
        *([f"{row['p_holm']:.2g}"] if several else []),
        row["test"],
    ]


def _metric_cells(name: str, comparison: Comparison, two: bool) -> list[str]:
    """A value of other weights than the run has now is marked with its step, and no difference to it is printed."""
    values, steps = comparison.numbers[name], comparison.earlier.get(name, [None] * len(comparison.runs))
    cells = [
        _number(value) + ("" if step is None or value is None else f" (step {step:,})")
        for value, step in zip(values, steps, strict=True)
    ]
    if not two:
        return [name, *cells]
    return [name, *cells, *(_difference(values) if steps == [None, None] else [""])]


def _difference(values: list[float | None]) -> list[str]:
    first, second = values
    return ["" if first is None or second is None else f"{second - first:+.4g}"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _config_value(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"
