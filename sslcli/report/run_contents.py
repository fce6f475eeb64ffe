"""The content of a run folder. A folder may come from an untrusted source and be damaged: no type is assumed, nothing outside
it is opened, and unreadable files are listed in `notes`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcli.config import Config
from sslcli.errors import RequestError
from sslcli.evals.metrics.interval import SUFFIX
from sslcli.runs import Record, records, results
from sslcli.runs.files import files_in, size_of
from sslcli.runs.listing import run_state, training_length
from sslcli.runs.redact import redacted
from sslcli.runs.run import Run

BASELINES = ("given", "supervised", "scratch", "untrained", "raw")  # in the order of display
MOST_EVENTS = 200
MAX_IMAGE_BYTES = 20_000_000  # bytes; a larger file is named, not embedded


@dataclass
class CaptionedImage:
    """A PNG of an evaluation or of the method. `clips`: the samples on it as they play, a ZIP file of `clip_sheet`."""

    path: Path
    caption: str
    clips: Path | None = None


@dataclass
class Evaluation:
    """One eval/NAME.json. `numbers`: metric -> {"": of the run, "untrained": of a baseline, ...} -> (value, std or None);
    `intervals`: metric -> the same -> the ends of 95 %.

    `dataset`: the evaluated data set where it differs from the run's, else "". `labels`: as requested."""

    name: str
    numbers: dict[str, dict[str, tuple[float, float | None]]]
    protocol: Record
    details: Record
    images: list[CaptionedImage]
    about: Record  # other keys: step, seed, evaluator, dataset, seconds, time
    dataset: str = ""
    labels: str = "all"
    intervals: dict[str, dict[str, tuple[float | None, float | None]]] = field(default_factory=dict)
    tables: dict[str, Record] = field(default_factory=dict)  # by caption
    outdated: bool = False  # measured with other weights than the run has now

    def interval(self, metric: str, kind: str = "") -> tuple[float | None, float | None] | None:
        return self.intervals.get(metric, {}).get(kind)

    @property
    def kind(self) -> str:
        """The evaluator, without the data set and the labels of `probe@cifar10@5-class`."""
        return self.name.partition("@")[0]

    @property
    def step(self) -> str:
        """`step 22`, of the weights that were evaluated."""
        step = number(self.about.get("step"))
        return "an earlier step" if step is None else f"step {step:,.0f}"

    @property
    def baselines(self) -> list[str]:
        """The baselines of its metrics."""
        kinds = {kind for by_kind in self.numbers.values() for kind in by_kind if kind}
        return [k for k in BASELINES if k in kinds] + sorted(kinds - set(BASELINES))


@dataclass
class RunContents:
    """The content of a run folder."""

    path: Path
    state: str  # done, running, interrupted, failed, lost, unknown
    status: Record
    config: Config
    encoder: Record
    overrides: list[str]
    word: str  # pretrain or pipeline
    screen: dict[str, list[str]]  # the start screen's rows, from the log
    metrics: list[Record]
    events: list[Record]
    evals: list[Evaluation]
    images: list[CaptionedImage]
    notes: list[str] = field(default_factory=list)
    summaries: dict[str, Record] = field(default_factory=dict)  # by command

    @property
    def trained(self) -> bool:
        return size_of(self.path, "encoder.safetensors") is not None

    @property
    def step(self) -> float | None:
        return number(self.status.get("step"))

    @property
    def length(self) -> dict[str, float]:
        """Steps, epochs and samples that it trained for."""
        return training_length(self.step, self.config, self.metrics)

    def labels_seen(self) -> str:
        """Which labels the method saw, according to the start screen."""
        data = next(iter(self.screen.get("data", [])), "")
        if "(shown to the method)" in data:
            return "all of them"
        return "only to choose the classes" if "pretrained on" in data else "none"

    def choice(self, group: str) -> str:
        """`simclr` of `sslcli.methods.simclr.SimCLR`; a data set's own name."""
        node = mapping(self.config.get(group))
        if group == "dataset" and isinstance(node.get("name"), str):
            return str(node["name"])
        return str(node.get("_target_", "")).rpartition(".")[2]

    def curve(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of one metric of metrics.jsonl."""
        points = []
        for line in self.metrics:
            step, value = number(line.get("step")), number(line.get(key))
            if step is not None and value is not None:
                points.append((step, value))
        return points


def read_run(path: Path) -> RunContents:
    """Reads a run folder. RequestError where there is none."""
    run = Run(path)
    if not (path / "status.json").is_file():
        raise RequestError(f"{path} is no run folder", "sslcli runs lists them")
    status, notes = run.status, []
    if not status:
        notes.append("status.json cannot be read")
    try:
        config = redacted(run.config)
    except RequestError as e:
        config = {}
        notes.append(e.message)
    metrics, unreadable = records.metrics(path)
    if unreadable:
        notes.append(f"{unreadable} lines of metrics.jsonl cannot be read")
    overrides, word = records.request(path)
    return RunContents(
        path=path,
        state=run_state(path, status),
        status=status,
        config=config,
        encoder=records.encoder(path),
        overrides=overrides,
        word=word,
        screen=records.start_screen(path),
        metrics=metrics,
        events=records.events(path)[-MOST_EVENTS:],
        evals=evaluations(path, notes),
        images=[captioned_image(path, p, f"{p.stem}, by the method itself") for p in images(path, "pictures", notes)],
        notes=notes,
        summaries=records.summaries(path),
    )


def evaluations(path: Path, notes: list[str]) -> list[Evaluation]:
    drawn = images(path, "eval", notes)
    evals = []
    for result in results.saved_results(path).values():
        record = dict(result.record)
        if not record:
            notes.append(f"{result.file} cannot be read")
            continue
        captions = mapping(record.pop("artefacts", None))
        tables = {file: mapping(t) for file, t in mapping(record.pop("tables", None)).items()}
        # the file name determines the evaluation; a path from the record is never opened
        artefact_images = [
            captioned_image(path, p, str(caption))
            for artefact, caption in captions.items()
            if artefact not in tables
            for p in drawn
            if f"eval/{p.name}" == result.artefact_path(artefact)
        ]
        protocol = mapping(record.pop("protocol", None))
        kinds = baseline_kinds(protocol)
        evals.append(
            Evaluation(
                result.name,
                group_by_metric(mapping(record.pop("numbers", None)), kinds),
                protocol,
                mapping(record.pop("details", None)),
                artefact_images,
                record,
                result.dataset,
                result.labels,
                group_intervals(mapping(record.pop("intervals", None)), kinds),
                {str(captions.get(file, file)): table for file, table in tables.items()},
                result.outdated,
            )
        )
    return evals


def images(run: Path, folder: str, notes: list[str]) -> list[Path]:
    """The PNGs in a folder of a run. Symbolic links, which may point outside the run, are not followed."""
    regular = files_in(run, f"{folder}/*.png")
    notes += [
        f"{path.name} is no regular file and is left out"
        for path in sorted((run / folder).glob("*.png"))
        if f"{folder}/{path.name}" not in regular
    ]
    paths = []
    for name in regular:
        if (size_of(run, name) or 0) > MAX_IMAGE_BYTES:
            notes.append(f"{name.partition('/')[2]} is too large for a report and is left out")
        else:
            paths.append(run / name)
    return paths


def captioned_image(run: Path, png: Path, caption: str) -> CaptionedImage:
    """An image of a run, with the clips beside it where there are any."""
    clips = png.with_suffix(".zip")
    return CaptionedImage(png, caption, clips if size_of(run, f"{png.parent.name}/{clips.name}") is not None else None)


def baseline_kinds(protocol: Record) -> frozenset[str]:
    """The prefixes of metrics of baselines: those of all evaluators, and models of the field that a protocol describes, or those of
    its parts (`transfer`)."""
    parts = (protocol, *map(mapping, protocol.values()))
    return frozenset({*BASELINES, *(name for part in parts for name in mapping(part.get("baselines")))})


def group_by_metric(
    numbers: Record, kinds: Collection[str] = BASELINES
) -> dict[str, dict[str, tuple[float, float | None]]]:
    """`{"raw.top1": .9, "raw.top1_std": .01}` by metric and by baseline."""
    by_metric: dict[str, dict[str, tuple[float, float | None]]] = {}
    for key, value in numbers.items():
        if (mean := number(value)) is None or (key.endswith("_std") and key.removesuffix("_std") in numbers):
            continue
        kind, metric = split_name(key, kinds)
        by_metric.setdefault(metric, {})[kind] = (mean, number(numbers.get(f"{key}_std")))
    return by_metric


def group_intervals(
    intervals: Record, kinds: Collection[str] = BASELINES
) -> dict[str, dict[str, tuple[float | None, float | None]]]:
    """`{"raw.top1_ci95": [.8, .9]}` by metric and by baseline; None for an open end."""
    by_metric: dict[str, dict[str, tuple[float | None, float | None]]] = {}
    for key, value in intervals.items():
        if key.endswith(SUFFIX):
            kind, metric = split_name(key.removesuffix(SUFFIX), kinds)
            by_metric.setdefault(metric, {})[kind] = (number(value[0]), number(value[1]))
    return by_metric


def split_name(name: str, kinds: Collection[str] = BASELINES) -> tuple[str, str]:
    """("raw", "top1") for `raw.top1`; ("", name) for a metric of the run itself."""
    kind, _, metric = name.partition(".")
    return (kind, metric) if kind in kinds else ("", name)


def mapping(value: Any) -> Record:
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """A finite number below 1e100, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e100:
        return None
    return float(value)
