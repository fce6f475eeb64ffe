"""The record of a run's data, and its comparison with the data that are read later.

`status.json` holds under `data` the absolute path, the fingerprint, the shape of a sample, the mean and the standard
deviation of the channels, and which samples were held out. Whatever reads the data of a run again (`resume`, `eval`,
`select`, `runs compare`, `runs report`) reads them from that path, with the run's own image size, channels and
normalization, and compares them with these. Runs of earlier versions keep less; what is missing is not compared.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from sslcli.config import Config, typecheck
from sslcli.console import escape, plural
from sslcli.data.dataset import Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.images.channels import convert_channels
from sslcli.errors import DataError, RequestError, command
from sslcli.nn.values import Continuous
from sslcli.runs import Record, records
from sslcli.runs.run import Run

RECORD_TYPES: dict[str, Any] = {
    "path": str,
    "fingerprint": str,
    "shape": list[int],
    "mean": list[float],
    "std": list[float],
    "split": str,
    "labels": str,
    "samples": dict[str, int],
    "range": list[float] | str,
    # mean and std of changed data that the user accepted in place of those of the first training
    "measured": dict[str, list[float]],
}
PATTERN = set("*?[{")  # a path with one of these names several files
CLOSE = 1e-3  # of the standard deviation: versions of an image decoder differ by less


@dataclass(frozen=True)
class DataRecord:
    """The record of a run's data (`known`, with the keys of RECORD_TYPES), and the options of the current command."""

    run: str
    known: Record
    moved_to: str | None = None  # `dataset.path=NEW`
    allow_change: bool = False


def describe_dataset(dataset: Dataset) -> Record:
    """The record of a data set, as it is written to status.json."""
    parts = {"train": dataset.train, "test": dataset.test, "unlabelled": dataset.unlabelled}
    record = {
        "path": dataset.path,
        "fingerprint": dataset.fingerprint,
        "shape": list(dataset.shape),
        "mean": list(dataset.values.mean),
        "std": list(dataset.values.std),
        "split": dataset.split,
        "labels": _labels(dataset),
        "samples": {name: len(part) for name, part in parts.items() if part is not None},
        "range": dataset.details.get("range"),
        "measured": dataset.details.get("measured"),
    }
    return {key: value for key, value in record.items() if value is not None or key == "range"}


def read_record(run: Run, moved_to: str | None = None, allow_change: bool = False) -> DataRecord:
    """The record of a run; for earlier versions, what status.json and encoder.json contain."""
    status = run.status
    data = status.get("data")
    if not isinstance(data, dict):
        encoder = records.encoder(run.path)
        data = {
            "fingerprint": status.get("fingerprint"),
            "shape": encoder.get("input_shape"),
            "mean": encoder.get("mean"),
            "std": encoder.get("std"),
            **({"range": encoder["range"]} if "range" in encoder else {}),
        }
    known = {
        key: data[key]
        for key, kind in RECORD_TYPES.items()
        if data.get(key) and typecheck.matches_type(data[key], kind)
    }
    numbers = {"shape", "mean", "std"}
    if known.keys() & numbers and not (
        numbers <= known.keys() and records.is_normalization(known["shape"], known["mean"], known["std"])
    ):
        known = {key: value for key, value in known.items() if key not in numbers}
    measured = known.get("measured", {})
    if measured and not (
        numbers <= known.keys()
        and records.is_normalization(known["shape"], measured.get("mean", []), measured.get("std", []))
    ):
        del known["measured"]
    if "range" in data:
        known.setdefault("range", None)
    return DataRecord(str(run.path), known, moved_to, allow_change)


def with_absolute_path(node: Config) -> Config:
    """A data set's configuration with an absolute path, if it has a path."""
    path = node.get("path")
    if not isinstance(path, str) or not path:
        return node
    return {**node, "path": os.path.abspath(os.path.expanduser(path))}


def with_recorded_path(node: Config, record: DataRecord) -> Config:
    """The configuration `node` of a run's data set, with the current location of its data and the run's image size and channels.
    DataError where no data exist there."""
    if not isinstance(node.get("path"), str):
        return node
    here, recorded = node["path"], record.known.get("path")
    if record.moved_to is not None:
        here = record.moved_to
    elif recorded is not None and (os.path.exists(recorded) or not os.path.exists(here)):
        here = recorded  # else the project moved as a whole, and the path of the configuration is valid
    node = with_recorded_range(with_absolute_path({**node, "path": here}), record.known)
    if record.moved_to is None and not (os.path.exists(node["path"]) or PATTERN & set(here)):
        raise DataError(
            f"the data of {record.run} were not found at {escape(node['path'])}",
            f"give their new location: {command('resume', record.run)} dataset.path=NEW (eval takes dataset.path=NEW, too)",
        )
    shape = record.known.get("shape", [])
    if len(shape) == 3:
        if "image_size" in node and node["image_size"] is None:
            node["image_size"] = shape[-1]
        if node.get("channels") == "auto":
            node["channels"] = shape[0]
    return node


def with_recorded_range(node: Config, known: Record) -> Config:
    """A data set's configuration with the range of values that was measured in training, unless it states two numbers itself.
    `known`: a record, or the contents of encoder.json."""
    wish = node.get("range")
    if not isinstance(wish, str):
        return node
    if (
        "range" not in known and "max_pixels" in node
    ):  # of an earlier version, where these named the range of each image
        return {**node, "range": {"minmax": "image_minmax", "percentile": "image_percentile"}.get(wish, wish)}
    return {**node, "range": known["range"]} if known.get("range") is not None else node


def is_same_dataset(node: Config, run_node: dict[str, Any], record: DataRecord) -> bool:
    """Whether a data set's configuration is that of the run."""
    path = with_recorded_path(run_node, record).get("path")
    return with_absolute_path(node) == (run_node if path is None else {**run_node, "path": path})


def apply_record(dataset: Dataset, record: DataRecord) -> Dataset:
    """The data in the shape and normalization of the run. DataError where they are not the run's data, unless that is
    allowed; the differences are then in `details["changed"]`."""
    changed = data_differences(record.known, dataset)
    if changed and not record.allow_change:
        where = f" at {escape(dataset.path)}" if dataset.path else ""
        raise DataError(
            f"the data of {dataset.name}{where} are not those that {record.run} was trained on: {'; '.join(changed)}",
            "put the files back"
            + (", or give their new location: dataset.path=NEW" if dataset.path else "")
            + "; to use the data as they are now: allow_data_change=true",
        )
    known, measured = record.known, {"mean": list(dataset.values.mean), "std": list(dataset.values.std)}
    if changed or "measured" in known:  # the data that were accepted are known by their own mean and std
        dataset = replace(dataset, details={**dataset.details, "measured": measured})
    if "shape" in known and tuple(known["shape"]) != dataset.shape:
        dataset = adapt_dataset(dataset, known["shape"], changed)
    if {"mean", "std"} <= known.keys():
        dataset = replace(dataset, values=Continuous(tuple(known["mean"]), tuple(known["std"])))
    return replace(dataset, details={**dataset.details, "changed": changed}) if changed else dataset


def data_differences(known: Record, dataset: Dataset) -> list[str]:
    """Descriptions of the differences between a record and a data set."""
    differences = []
    before, now = known.get("fingerprint"), dataset.fingerprint
    if before and now and before != now:
        differences.append(f"{_counts(before, now)} (fingerprint {now}, was {before})")
    elif known.get("split") and dataset.split and known["split"] != dataset.split:
        differences.append("other samples are held out (labels or groups changed)")
    elif known.get("labels") and known["labels"] != _labels(dataset):
        differences.append("other labels, of the same samples")
    elif "samples" in known:
        here = describe_dataset(dataset)["samples"]
        differences += [
            f"{plural(here.get(part, 0), 'sample')} in {part}, were {n:,}"
            for part, n in known["samples"].items()
            if here.get(part, 0) != n
        ]
    if "shape" in known and tuple(known["shape"]) != dataset.shape:
        differences.append(f"samples of {_shape(dataset.shape)}, were {_shape(known['shape'])}")
    elif {"mean", "std"} <= known.keys():
        known = known.get("measured", known)
        spread = [max(abs(s), 1e-6) for s in known["std"]]
        for name, values in (("mean", dataset.values.mean), ("standard deviation", dataset.values.std)):
            old = known["mean" if name == "mean" else "std"]
            if len(old) != len(values) or any(
                abs(a - b) > CLOSE * s for a, b, s in zip(old, values, spread, strict=True)
            ):
                differences.append(f"the {name} of the channels is {_numbers(values)}, was {_numbers(old)}")
    return differences


def adapt_dataset(dataset: Dataset, shape: Any, notes: list[str]) -> Dataset:
    """Data converted to the channels that an encoder takes; conversions are listed in `notes`. RequestError where shapes
    differ otherwise."""
    wanted, name = tuple(shape), dataset.name
    if len(wanted) == 3 and {dataset.shape[0], wanted[0]} == {1, 3}:
        how = (
            "gray, repeated to three channels"
            if wanted[0] == 3
            else "in color, reduced to its luminance (ITU-R BT.601)"
        )
        notes.append(f"{name} is {how}, as the encoder takes it")
        dataset = convert_channels(dataset, wanted[0])
    if dataset.shape != wanted:
        raise RequestError(
            f"this encoder takes samples of shape {wanted}; those of {name} have {dataset.shape}",
            f"dataset.image_size={wanted[-1]}" if len(wanted) == 3 and wanted[0] == dataset.shape[0] else None,
        )
    return dataset


def _labels(dataset: Dataset) -> str | None:
    """A hash of the names of samples with their classes. None where samples have no names: their fingerprint has the labels."""
    named = sorted(
        (name.encode("utf-8", "surrogateescape"), dataset.classes[label].encode("utf-8", "surrogateescape"))
        for part in (dataset.train, dataset.test)
        if part is not None and part.names is not None and part.labels is not None
        for name, label in zip(part.names, part.labels.tolist(), strict=True)
        if label >= 0
    )
    return fingerprint(len(named), (text for pair in named for text in pair)) if named else None


def _counts(before: str, now: str) -> str:
    """Describes how the numbers of samples in two fingerprints `NUMBER-HASH` differ."""
    a, b = (text.partition("-")[0] for text in (before, now))
    if not (a.isdecimal() and b.isdecimal()):
        return "other samples"
    if a == b:
        return f"{plural(int(b), 'sample')} as before, but names, sizes or contents differ"
    more = int(b) - int(a)
    return f"{plural(int(b), 'sample')}, were {int(a):,} ({abs(more):,} {'added' if more > 0 else 'removed'} in all)"


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape))


def _numbers(values: Any) -> str:
    return ", ".join(f"{v:.4g}" for v in values)
