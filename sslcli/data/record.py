"""The record of a run's data, and its comparison with the data that are read later.

`status.json` holds under `data` the absolute paths, the fingerprint, the shape and the values of a view, the hash of the
preprocessor, and which samples were held out. Whatever reads the data of a run again (`resume`, `eval`, `select`,
`runs compare`, `runs report`) reads them from that path, with the run's own preprocessor, and compares them with these.
Runs of earlier versions keep less (the mean and the standard deviation of the channels); what is missing is not compared.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sslcli.config import Config, instantiate, typecheck
from sslcli.console import escape, plural
from sslcli.data import preprocess
from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.fingerprint import fingerprint
from sslcli.data.images.preprocessor import with_range_of_each_image
from sslcli.errors import DataError
from sslcli.nn.values import Values
from sslcli.nn.values_json import values_from_json
from sslcli.runs import Record, records
from sslcli.runs.find import resume_command
from sslcli.runs.run import Run

RECORD_TYPES: dict[str, Any] = {
    "path": str,
    "paths": dict[str, str],  # of further files, by their key
    "fingerprint": str,
    "modality": str,
    "shape": list[int],
    "values": dict[str, Any],
    "preprocessor": str,  # its SHA-256
    "split": str,
    "labels": str,
    "samples": dict[str, int],
    "measured": dict[str, Any],  # values of changed data that the user accepted in place of those of the first training
    "range": list[float] | str,  # of images, recorded by earlier versions without a preprocessor
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

    @property
    def preprocessor(self) -> Preprocessor | None:
        """The preprocessor of the run; None where an earlier version recorded nothing of it. TrainingError where it cannot be
        read."""
        known = self.known
        if "preprocessor" in known:
            return preprocess.load(Path(self.run), known["preprocessor"])
        if "values" not in known:
            return None
        details = {"range": known["range"]} if "range" in known else {}
        values = values_from_json(known["values"])
        return preprocess.from_format_1(tuple(known["shape"]), values, details, known.get("modality"))


def describe_dataset(dataset: Dataset) -> Record:
    """The record of a data set, as it is written to status.json."""
    parts = {"train": dataset.train, "test": dataset.test, "unlabelled": dataset.unlabelled}
    record = {
        "path": dataset.path,
        "paths": dataset.other_paths or None,
        "fingerprint": dataset.fingerprint,
        "modality": dataset.modality,
        "shape": list(dataset.shape),
        "values": dataset.values.to_json(),
        "preprocessor": preprocess.preprocessor_of(dataset).sha256,
        "split": dataset.split,
        "labels": _labels(dataset),
        "samples": {name: len(part) for name, part in parts.items() if part is not None},
        "measured": dataset.details.get("measured"),
    }
    return {key: value for key, value in record.items() if value is not None}


def read_record(run: Run, moved_to: str | None = None, allow_change: bool = False) -> DataRecord:
    """The record of a run; for earlier versions, what status.json and encoder.json contain."""
    status = run.status
    data = status.get("data")
    if not isinstance(data, dict):
        encoder = records.encoder(run.path)
        data = {
            "fingerprint": status.get("fingerprint"),
            "shape": encoder.get("input_shape"),
            "preprocessor": encoder.get("preprocessor", {}).get("sha256"),
            **{key: encoder[key] for key in ("modality", "values", "range") if key in encoder},
        }
    elif "values" not in data:
        data = records.values_of_format_1(data)
    known = {
        key: data[key]
        for key, kind in RECORD_TYPES.items()
        if data.get(key) and typecheck.matches_type(data[key], kind)
    }
    shape = tuple(known.get("shape", ()))
    for key in ("values", "measured"):
        if key in known and not _are_values(known[key], shape):
            del known[key]
    if not {"shape", "values"} <= known.keys():
        known = {k: v for k, v in known.items() if k not in ("shape", "values", "measured", "preprocessor")}
    if "range" in data:
        known.setdefault("range", None)
    return DataRecord(str(run.path), known, moved_to, allow_change)


def _are_values(content: Record, shape: tuple[int, ...]) -> bool:
    try:
        return values_from_json({"kind": "continuous", **content}).fits(shape)
    except ValueError:
        return False


def path_keys(node: Config) -> list[str]:
    """The keys of a data set's configuration that name files or folders: its `path_keys`, or `path` alone, and `exclude`."""
    keys = node.get("path_keys")
    own = keys if typecheck.matches_type(keys, list[str]) and keys else ["path"]
    return [*own, *(key for key in ("exclude",) if key in node)]


def with_absolute_paths(node: Config) -> Config:
    """A data set's configuration with absolute paths; of keys besides `path`, where they exist, since readers look for such a file
    beside `path`, too."""
    out = dict(node)
    for key in path_keys(node):
        given = node.get(key)
        if isinstance(given, str):
            out[key] = _absolute(given, key == "path")
        elif isinstance(given, list) and typecheck.matches_type(given, list[str]):
            out[key] = [_absolute(path, key == "path") for path in given]
    return out


def _absolute(path: str, always: bool) -> str:
    place = os.path.abspath(os.path.expanduser(path))
    return place if path and (always or os.path.exists(place)) else path


def with_recorded_paths(node: Config, record: DataRecord) -> Config:
    """The configuration `node` of a run's data set, with the current location of its data and the run's image size and channels.
    DataError where no data exist there."""
    others = record.known.get("paths", {})
    found = {
        key: _location(node[key], others[key])
        for key in path_keys(node)
        if key != "path" and key in others and isinstance(node.get(key), str)
    }
    if isinstance(node.get("path"), str):
        found["path"] = record.moved_to or _location(node["path"], record.known.get("path"))
    node = with_absolute_paths({**node, **found})
    here = found.get("path")
    if here is None:
        return node
    if record.moved_to is None and not (os.path.exists(node["path"]) or PATTERN & set(here)):
        raise DataError(
            f"the data of {record.run} were not found at {escape(node['path'])}",
            f"give their new location: {resume_command(Path(record.run), 'dataset.path=NEW')} (eval takes dataset.path=NEW, too)",
        )
    if record.preprocessor is not None:
        return record.preprocessor.configure(node, same_data=True)
    return node if "range" in record.known else with_range_of_each_image(node)


def _location(configured: str, recorded: str | None) -> str:
    """Where a file is now: at its recorded absolute path or, if the project moved as a whole, at the path of the configuration."""
    exists = recorded is not None and (os.path.exists(recorded) or not os.path.exists(configured))
    return recorded if recorded is not None and exists else configured


def is_same_dataset(node: Config, run_node: dict[str, Any], record: DataRecord) -> bool:
    """Whether a data set's configuration is that of the run. A key that an earlier version did not have means its default, and one
    that is null the choice of the run's preprocessor."""
    located = with_recorded_paths(run_node, record)
    run_node = run_node | {key: located[key] for key in path_keys(run_node) if key in located}
    absent = {
        k: v for k, v in instantiate.default_arguments("dataset", node).items() if k in node and k not in run_node
    }
    nodes = (with_absolute_paths(node), run_node | absent)
    given, own = (instantiate.without_facts("dataset", _resolve_null(n, record.preprocessor)) for n in nodes)
    return given == own


def _resolve_null(node: Config, preprocessor: Preprocessor | None) -> Config:
    configured = {} if preprocessor is None else preprocessor.configure(node)
    return {key: configured.get(key) if value is None else value for key, value in node.items()}


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
    if changed or "measured" in record.known:  # the data that were accepted are known by their own values
        dataset = replace(dataset, details={**dataset.details, "measured": dataset.values.to_json()})
    if record.preprocessor is not None:
        dataset = record.preprocessor.adapt(dataset, changed)
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
    elif "values" in known:
        measured: Record = known.get("measured") or known["values"]
        differences += values_differences(values_from_json({"kind": "continuous", **measured}), dataset.values)
    return differences


def values_differences(before: Values, now: Values) -> list[str]:
    """Descriptions of the differences of two descriptions of values, which may differ by rounding."""
    differences = []
    spread = [max(abs(s), 1e-6) for s in before.std]
    for name, old, new in (("mean", before.mean, now.mean), ("standard deviation", before.std, now.std)):
        if len(old) != len(new) or any(abs(a - b) > CLOSE * s for a, b, s in zip(old, new, spread, strict=True)):
            differences.append(f"the {name} of the channels is {_numbers(new)}, was {_numbers(old)}")
    rest = [{k: v for k, v in x.to_json().items() if k not in ("mean", "std")} for x in (before, now)]
    return differences or ([] if rest[0] == rest[1] else [f"the values are {rest[1]}, were {rest[0]}"])


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
