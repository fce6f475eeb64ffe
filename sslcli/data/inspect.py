"""`sslcli data inspect`: properties and problems of a data set, as a dictionary and as rows to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from sslcli.console import escape, human_bytes, plural
from sslcli.data.dataset import Dataset, Source
from sslcli.data.files.parallel import parallel_map
from sslcli.data.images.encoded import EncodedImages
from sslcli.data.label_warnings import label_notes
from sslcli.data.loading.bad_samples import check_limit, exceeds_limit, group_by_reason
from sslcli.data.samples.digests import digests
from sslcli.data.subset import Concat, Subset, unlabelled_only
from sslcli.errors import BadSample, DataError, listing
from sslcli.runs import Record

PARTIAL_NOTE = " found so far (--strict decodes all samples)"


def inspect(dataset: Dataset, strict: bool = False, limit: float | None = None) -> Record:
    """Counts, classes, sizes, modes, unreadable samples with reasons, and duplicates, ready for JSON.

    `strict` decodes every sample and compares every file and sample, so that `bad`, `reasons` and `duplicates` are complete.
    `limit`: the tolerated fraction of unreadable samples; None is that of the data set.
    """
    splits = {
        k: s
        for k, s in (("train", dataset.train), ("test", dataset.test), ("unlabelled", unlabelled_only(dataset)))
        if s
    }
    details = dict(dataset.details)
    bad: dict[str, str] = dict(details.pop("bad", {}))
    details.pop("left_out_names", None)  # `left_out` and `excluded` count them
    if strict:
        for source in splits.values():
            bad |= _decode_all(source)
    total = sum(map(len, splits.values())) + details.get("lost", 0)
    fraction = dataset.train.max_bad_fraction if limit is None else limit
    report: Record = {
        "name": dataset.name,
        "modality": dataset.modality,
        "shape": list(dataset.shape),
        "values": dataset.values.describe(),
        "splits": {k: _split(s, dataset) for k, s in splits.items()},
        "classes": list(dataset.classes),
        "mean": [round(v, 6) for v in dataset.values.mean],
        "std": [round(v, 6) for v in dataset.values.std],
        "fingerprint": dataset.fingerprint,
        "notes": [*dataset.notes, *label_notes(dataset)],
        "details": {k: _plain(v) for k, v in details.items()},
        "strict": strict,
        "bad": [{"name": n, "reason": r} for n, r in sorted(bad.items())],
        "reasons": {
            r: {"count": len(names), "examples": sorted(names)[:5]} for r, names in group_by_reason(bad).items()
        },
        "limit": {"of": total, "max_bad_fraction": fraction, "exceeded": exceeds_limit(len(bad), total, fraction)},
        "balance": _balance(dataset.train, dataset.classes),
    }
    if strict:
        report["duplicates"] = _duplicates(splits)
        report["damage"] = dataset.train.damage() if isinstance(dataset.train, EncodedImages) else []
    return report


def _split(source: Source, dataset: Dataset) -> Record:
    x = source.resident
    return {
        "samples": len(source),
        "labelled": 0 if source.labels is None else int((source.labels >= 0).sum()),
        "targets": {name: int((~target.isnan()).sum()) for name, target in source.targets.items()},
        "resident": x is not None,
        "bytes": sum(_sizes(source)) if x is None else x.nbytes,
        "raw_shape": None if x is None else list(x.sample_shape),
    }


def _sizes(source: Source) -> Sequence[int]:
    """The bytes of each sample in files; nothing where they are not known."""
    if isinstance(source, Concat):
        return [size for part in source.parts for size in _sizes(part)]
    if isinstance(source, Subset):
        sizes = _sizes(source.whole)
        return [sizes[i] for i in source.ids.tolist()] if len(sizes) else sizes
    sizes = getattr(source, "sizes", ())
    return sizes if len(sizes) == len(source) else ()


def _balance(source: Source, classes: tuple[str, ...]) -> dict[str, int]:
    """Number of training samples of each class."""
    if source.labels is None:
        return {}
    counts = torch.bincount(source.labels[source.labels >= 0], minlength=len(classes))
    return dict(zip(classes, counts.tolist(), strict=True))


def _plain(value: object) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _decode_all(source: Source) -> dict[str, str]:
    """Name -> reason of the samples that cannot be decoded. Resident data was decoded when it was read."""
    if source.resident is not None:
        return {source.name_of(i): reason for i, reason in source.bad.items()}

    def one(i: int) -> str | None:
        try:
            source.checked(i)
        except BadSample as error:
            return error.message
        return None

    reasons = parallel_map(one, len(source), "decoding all samples")
    return {source.name_of(i): reason for i, reason in enumerate(reasons) if reason is not None}


def _duplicates(splits: dict[str, Source]) -> dict[str, int]:
    """How many test samples are also in train, and how many training samples are repetitions, compared by their bytes."""
    train_hashes = Counter(digests(splits["train"]))
    other = digests(splits["test"]) if "test" in splits else []
    return {
        "in train and test": sum(h in train_hashes for h in other),
        "within train": sum(n - 1 for n in train_hashes.values()),
    }


def format_rows(report: Record, at_most: int = 40) -> list[tuple[str, str]]:
    """(name, text) rows to print, with control characters escaped."""
    shape = " x ".join(map(str, report["shape"]))
    out = [
        ("data set", f"{escape(report['name'])}, {report['modality']}"),
        ("one view", f"{shape}: {report['values']}"),
    ]
    for name, s in report["splits"].items():
        text = plural(s["samples"], "sample")
        text += f", {s['labelled']:,} with a label" if s["labelled"] not in (0, s["samples"]) else ""
        text += "".join(f", {n:,} with the target {escape(name)}" for name, n in s["targets"].items())
        text += ", no labels" if not s["labelled"] and not s["targets"] else ""
        text += f", {human_bytes(s['bytes'])} " + ("in memory" if s["resident"] else "in files, decoded by workers")
        out.append((name, text))
    if report["balance"]:
        counts = report["balance"]
        low, high = min(counts.values()), max(counts.values())
        names = ", ".join(escape(c) for c in list(counts)[:10]) + (", ..." if len(counts) > 10 else "")
        out.append(("classes", f"{len(counts):,}, {low:,}..{high:,} training samples each: {names}"))
    if report["mean"]:
        out.append(("mean, std", f"{_numbers(report['mean'])}, {_numbers(report['std'])}"))
    details = report["details"]
    for key in ("modes", "formats"):
        if details.get(key):
            out.append((key, ", ".join(f"{n:,} {escape(k)}" for k, n in details[key].items())))
    out += [("", escape(n)) for n in report["notes"]]
    n = len(report["bad"])
    out.append(("unreadable", f"{n:,} of {report['limit']['of']:,}" + ("" if report["strict"] else PARTIAL_NOTE)))
    for reason, group in list(report["reasons"].items())[:at_most]:
        out.append(("", f"{group['count']:,} x {escape(reason)}: {listing(map(escape, group['examples']), 3)}"))
    for what, n in report.get("duplicates", {}).items():
        out.append(("duplicates", f"{n:,} {what}"))
    out += [("damage", escape(text)) for text in report.get("damage", ())]
    out.append(("fingerprint", report["fingerprint"]))
    return out


def _numbers(values: list[float]) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values[:4]) + (", ..." if len(values) > 4 else "") + ")"


def require_readable(report: Record) -> None:
    """Raises DataError where training would fail on so many unreadable samples, or where a pack is corrupt: the exit code of a
    strict inspection."""
    if report.get("damage"):
        raise DataError(listing(report["damage"], 3), "remove the pack and write it again: sslcli data pack")
    limit = report["limit"]
    check_limit({b["name"]: b["reason"] for b in report["bad"]}, limit["of"], limit["max_bad_fraction"])
