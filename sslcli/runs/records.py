"""Schemas of the files of a run folder. A key whose value has another type is dropped on reading, so that the types hold
for files of any source. Keys that are not listed here (of newer versions) are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.config import Config, safe_yaml, schema, typecheck
from sslcli.errors import RequestError, first_line
from sslcli.runs import Record
from sslcli.runs.files import MAX_LINES, files_in, is_bounded, make_folder, read_file, read_json, read_lines, write_json
from sslcli.runs.redact import redacted_overrides

Schema = dict[str, Any]

STATUS: Schema = {
    **dict.fromkeys(("status", "created", "heartbeat", "sslcli", "python", "host", "platform"), str),
    **dict.fromkeys(("config_hash", "fingerprint"), str),
    **dict.fromkeys(("format", "pid", "step"), int),
    **dict.fromkeys(("seconds", "peak_memory_mb"), float),
    **dict.fromkeys(("packages", "online"), dict),
    "argv": list[str],
    "config_dirs": list[str],
    "error": str | None,
    "git": str | None,
}
RESULT: Schema = {  # eval/NAME.json
    **dict.fromkeys(("numbers", "intervals", "protocol", "details", "artefacts", "evaluator"), dict),
    **dict.fromkeys(("sha256", "config_hash", "dataset", "fingerprint", "time"), str),
    **dict.fromkeys(("step", "seed", "draws"), int),
    "seconds": float,
    "overrides": list[str],
}
PROTOCOL: Schema = {"dim": int, "seeds": int, "notes": list[str], "splits": dict}
ENCODER: Schema = {  # encoder.json; these define how to build the encoder
    "backbone": dict,
    "input_shape": list[int],
    "values": dict,
    "dataset": str,
    "modality": str,
    "sha256": str,
}
ENCODER_MORE: Schema = {
    "format": int,
    "preprocessor": dict[str, str],  # kind and sha256
    "step": int,
    "dim": int,
    "method": str,
    "facts": dict[str, int],
    "given": str,  # SHA-256 of the weights that the training started from
}
ENCODER_1: Schema = {"mean": list[float], "std": list[float], "range": list[float] | str | None}  # instead of values
LINE: Schema = {"step": int, "epoch": float, "seconds": float, "nonfinite": list[str]}  # metrics.jsonl
EVENT: Schema = {"time": str, "event": str, "step": int}  # events.jsonl
SUMMARY: Schema = {  # summaries/COMMAND.json: what a command found in files that it wrote elsewhere
    **dict.fromkeys(("title", "file", "time"), str),
    "numbers": dict[str, float],
    "notes": list[str],
}
JOB: Schema = {  # jobs/NUMBER.json of a sweep
    **dict.fromkeys(("status", "host", "time", "error", "command"), str),
    **dict.fromkeys(("job", "pid", "code"), int),
    "numbers": dict,  # of an evaluation
    "overrides": list[str],
    "run": str | None,
    "hint": str | None,  # beside the error
}


def fitting(record: Record, schema: Schema) -> Record:
    """The record without values whose type differs from the schema."""
    return {
        k: v
        for k, v in record.items()
        if k not in schema or (typecheck.matches_type(v, schema[k]) and not _is_endless(v))
    }


def _is_endless(value: object) -> bool:
    """Whether a value is NaN or infinite, which JSON does not have."""
    return isinstance(value, float) and not math.isfinite(value)


def numbers(record: Record, key: str) -> dict[str, float]:
    """The finite numbers in a mapping of a record."""
    values = record.get(key)
    return (
        {k: v for k, v in values.items() if typecheck.matches_type(v, float) and not _is_endless(v)}
        if isinstance(values, dict)
        else {}
    )


def status(run: Path) -> Record:
    """status.json; {} where it cannot be read."""
    record = fitting(read_json(run, "status.json"), STATUS)
    return record | ({"online": numbers(record, "online")} if "online" in record else {})


def encoder(folder: Path) -> Record:
    """encoder.json of a run or of an exported folder, with the keys of format 2; {} where it cannot be read."""
    record = fitting(read_json(folder, "encoder.json"), {**ENCODER, **ENCODER_MORE, **ENCODER_1})
    return values_of_format_1(record) if record and record.setdefault("format", 1) == 1 else record


def values_of_format_1(record: Record) -> Record:
    """A record of format 1, which held the mean and the standard deviation of the channels, with values instead."""
    rest = {key: value for key, value in record.items() if key not in ("mean", "std")}
    known = {key: record[key] for key in ("mean", "std") if record.get(key)}
    return {**rest, "values": {"kind": "continuous", **known}} if len(known) == 2 else rest


def result(run: Path, name: str) -> Record:
    """eval/NAME.json, with numbers, protocol and details; {} where it cannot be read."""
    record = fitting(read_json(run, f"eval/{name}.json"), RESULT)
    if not record:
        return {}
    protocol = fitting(record.get("protocol", {}), PROTOCOL)
    fields = {"numbers": numbers(record, "numbers"), "intervals": intervals(record), "protocol": protocol}
    return {"details": {}, **record, **fields}


def intervals(record: Record) -> dict[str, tuple[float | None, float | None]]:
    """The two ends of each interval of a result; None for one that is open."""
    by_metric = record.get("intervals", {})
    pairs = {k: v for k, v in by_metric.items() if isinstance(v, list) and len(v) == 2}
    pairs = {k: v for k, v in pairs.items() if all(typecheck.matches_type(end, float | None) for end in v)}
    low_high = {k: [None if _is_endless(end) else end for end in v] for k, v in pairs.items()}
    return {k: (low, high) for k, (low, high) in low_high.items()}


def metrics(run: Path) -> tuple[list[Record], int]:
    """The lines of metrics.jsonl, and how many cannot be read. Every value is a number or None."""
    lines, bad = read_lines(run, "metrics.jsonl")
    rows = [
        {k: v for k, v in fitting(line, LINE).items() if k in LINE or typecheck.matches_type(v, float | None)}
        for line in lines
    ]
    return rows, bad


def events(run: Path) -> list[Record]:
    """The lines of events.jsonl."""
    return [fitting(line, EVENT) for line in read_lines(run, "events.jsonl")[0]]


def summaries(run: Path) -> dict[str, Record]:
    """The summaries of a run by command, such as `audit`; those with a title alone."""
    names = [file.removeprefix("summaries/").removesuffix(".json") for file in files_in(run, "summaries/*.json")]
    found = {name: fitting(read_json(run, f"summaries/{name}.json"), SUMMARY) for name in names}
    return {name: record for name, record in found.items() if record.get("title")}


def save_summary(
    run: Path, command: str, title: str, file: str, numbers: Mapping[str, float], notes: list[str], time: str
) -> None:
    """Writes summaries/COMMAND.json, which the report shows, in place of an earlier one. `file`: what the command wrote, "" for
    none. `numbers`: by what they count. `time`: that of `run.now`. StorageError."""
    make_folder(run, "summaries")
    content = {"title": title, "file": file, "numbers": dict(numbers), "notes": notes, "time": time}
    write_json(run, f"summaries/{command}.json", content)


def job(sweep: Path, number: str) -> Record:
    """jobs/NUMBER.json of a sweep; {} where it cannot be read or lacks the number of the job."""
    record = fitting(read_json(sweep, f"jobs/{number}.json"), JOB)
    return {"status": "unknown", "overrides": [], **record} if "job" in record else {}


def jobs(sweep: Path) -> list[Record]:
    """All jobs of a sweep, by number."""
    names = [file.removeprefix("jobs/").removesuffix(".json") for file in files_in(sweep, "jobs/*.json")]
    return sorted((record for name in names if (record := job(sweep, name))), key=lambda j: j["job"])


def yaml_of(folder: Path, name: str) -> Any:
    """The content of a YAML file, plain and bounded. RequestError."""
    import yaml

    path = folder / name
    try:
        text = safe_yaml.decode_yaml(read_file(folder, name, safe_yaml.MAX_YAML_BYTES), path)
        content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as e:
        raise RequestError(f"{path} cannot be read: {e.strerror}") from None
    except (ValueError, yaml.YAMLError, RecursionError) as e:  # ValueError: an invalid date
        raise RequestError(f"{path} is not valid YAML: {first_line(e)}") from None
    if isinstance(content, (dict, list)) and not is_bounded(content, containers=safe_yaml.MAX_YAML_NODES):
        raise RequestError(f"{path} has too many levels or nodes")
    return content


def request(run: Path) -> tuple[list[str], str]:
    """The overrides of a run, secrets masked, and its command (pretrain or pipeline)."""
    overrides, hydra = (_yaml_or_none(run, f".hydra/{name}.yaml") for name in ("overrides", "hydra"))
    words = [str(o) for o in overrides] if isinstance(overrides, list) else []
    for key in ("hydra", "job", "config_name"):
        hydra = hydra.get(key) if isinstance(hydra, dict) else None
    return redacted_overrides(words), "pipeline" if hydra == "pipeline" else "pretrain"


def _yaml_or_none(run: Path, name: str) -> Any:
    """The content of a YAML file, or None where it is missing (runs of earlier versions) or invalid."""
    try:
        return yaml_of(run, name)
    except RequestError:
        return None


def start_screen(run: Path) -> dict[str, list[str]]:
    """The rows of the start screen in log.txt: `what`, `data`, `plan`, `where`; of the last, where the run was resumed."""
    try:
        lines = read_file(run, "log.txt", MAX_LINES).decode("utf-8", "replace").split("\n")
    except OSError:
        return {}
    rows: dict[str, list[str]] = {}
    last = ""  # the row that a line without a key continues; "" outside a start screen
    for line in lines:
        key, colon, value = line.partition(" ")[2].partition(": ")
        if colon and key == "what":
            rows = {}
        if not colon or not (key in ("what", "data", "plan", "where") or (not key and last)):
            last = ""
            continue
        last = key or last
        rows.setdefault(last, []).append(value)
    return rows


def configuration(run: Path) -> Config:
    """config.yaml, with the schema's defaults where it lacks a key. RequestError."""
    content = yaml_of(run, "config.yaml")
    if not isinstance(content, dict):
        raise RequestError(f"{run / 'config.yaml'} holds no configuration")
    return schema.with_defaults({str(k): v for k, v in content.items()})
