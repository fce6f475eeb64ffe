"""`sslcli data inspect`: what a data set is, what is wrong with it, as a dictionary and as rows to print."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from typing import Any

import torch

from sslcli.data import talk
from sslcli.data.arrays import equal_rows
from sslcli.data.decode import BadImage
from sslcli.data.files import content_hash
from sslcli.data.folder import FolderSource, _map
from sslcli.data.source import Dataset, Source
from sslcli.data.talk import count, shown
from sslcli.errors import DataError


def inspect(dataset: Dataset, strict: bool = False) -> dict[str, Any]:
    """Counts, classes, sizes, modes, what was left out, duplicates; JSON-ready.

    `strict` decodes every image and compares every file and sample, so `bad` and `duplicates` are complete.
    """
    splits = {
        k: s for k, s in (("train", dataset.train), ("test", dataset.test), ("unlabelled", dataset.unlabelled)) if s
    }
    details = dict(dataset.details)
    bad: dict[str, str] = dict(details.pop("bad", []))
    bad |= dict.fromkeys(details.get("empty", []), "the file is empty")
    report: dict[str, Any] = {
        "name": dataset.name,
        "modality": dataset.modality,
        "shape": list(dataset.shape),
        "splits": {k: _split(s, dataset) for k, s in splits.items()},
        "classes": list(dataset.classes),
        "mean": [round(v, 6) for v in dataset.mean],
        "std": [round(v, 6) for v in dataset.std],
        "fingerprint": dataset.fingerprint,
        "notes": list(dataset.notes),
        "details": {k: _plain(v) for k, v in details.items()},
        "strict": strict,
    }
    if strict:
        for source in splits.values():
            bad |= _decode_all(source)
        report["duplicates"] = _duplicates(splits)
    report["bad"] = [{"name": n, "reason": r} for n, r in bad.items()]
    report["balance"] = _balance(dataset.train, dataset.classes)
    return report


def _split(source: Source, dataset: Dataset) -> dict[str, Any]:
    x = source.resident
    return {
        "samples": len(source),
        "labelled": 0 if source.labels is None else int((source.labels >= 0).sum()),
        "resident": x is not None,
        "bytes": sum(getattr(source, "sizes", ())) if x is None else x.numel() * x.element_size(),
        "raw_shape": None if x is None else list(x.shape[1:]),
    }


def _balance(source: Source, classes: tuple[str, ...]) -> dict[str, int]:
    """Training samples of each class."""
    if source.labels is None:
        return {}
    counts = torch.bincount(source.labels[source.labels >= 0], minlength=len(classes))
    return dict(zip(classes, counts.tolist(), strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _decode_all(source: Source) -> dict[str, str]:
    """Name -> reason of what cannot be decoded. Resident data was decoded when it was read."""
    if not isinstance(source, FolderSource):
        return {}

    def one(i: int) -> str | None:
        try:
            source.read(i)
        except BadImage as error:
            return error.message
        return None

    reasons = _map(one, len(source), "decoding every image")
    return {source.names[i]: r for i, r in enumerate(reasons) if r is not None and source.names is not None}


def _duplicates(splits: dict[str, Source]) -> dict[str, int]:
    """How many samples of test are in train too, and how many within train are there more than once, by their bytes."""
    train, test = splits["train"], splits.get("test")
    if isinstance(train, FolderSource):

        def hashes(source: Source) -> list[bytes]:
            assert isinstance(source, FolderSource)

            def one(i: int) -> bytes:
                try:
                    return content_hash(source.paths[i])
                except OSError:
                    return os.fsencode(source.paths[i])  # unreadable: a duplicate of nothing

            return _map(one, len(source), "comparing files")

        own = Counter(hashes(train))
        both = sum(h in own for h in hashes(test)) if isinstance(test, FolderSource) else 0
    else:
        x = train.resident
        assert x is not None
        own = Counter(hashlib.sha256(r.tobytes()).digest() for part in x.split(4096) for r in part.contiguous().numpy())
        other = test.resident if test is not None else None
        both = 0 if other is None else equal_rows(x, other)
    return {"in train and test": both, "within train": sum(n - 1 for n in own.values())}


def rows(report: dict[str, Any], at_most: int = 20) -> list[tuple[str, str]]:
    """(name, text) lines for people, safe to print."""
    shape = " x ".join(map(str, report["shape"]))
    out = [("data set", f"{shown(report['name'])}, {report['modality']}"), ("one view", shape)]
    for name, s in report["splits"].items():
        text = count(s["samples"], "sample")
        text += f", {s['labelled']:,} with a label" if s["labelled"] not in (0, s["samples"]) else ""
        text += ", no labels" if not s["labelled"] else ""
        text += f", {talk.size(s['bytes'])} " + ("in memory" if s["resident"] else "in files, decoded by workers")
        out.append((name, text))
    if report["balance"]:
        counts = report["balance"]
        low, high = min(counts.values()), max(counts.values())
        names = ", ".join(shown(c) for c in list(counts)[:10]) + (", ..." if len(counts) > 10 else "")
        out.append(("classes", f"{len(counts):,}, {low:,}..{high:,} training samples each: {names}"))
    out.append(("mean, std", f"{_numbers(report['mean'])}, {_numbers(report['std'])}"))
    details = report["details"]
    for key in ("modes", "formats"):
        if details.get(key):
            out.append((key, ", ".join(f"{n:,} {shown(k)}" for k, n in details[key].items())))
    out += [("", shown(n)) for n in report["notes"]]
    bad = report["bad"]
    out.append(("unreadable", f"{len(bad):,}" + ("" if report["strict"] else " known (--strict decodes all)")))
    out += [("", f"{shown(b['name'])}: {shown(b['reason'])}") for b in bad[:at_most]]
    if len(bad) > at_most:
        out.append(("", f"and {len(bad) - at_most:,} more"))
    for what, n in report.get("duplicates", {}).items():
        out.append(("duplicates", f"{n:,} {what}"))
    out.append(("fingerprint", report["fingerprint"]))
    return out


def _numbers(values: list[float]) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values[:4]) + (", ..." if len(values) > 4 else "") + ")"


def require_no_bad(report: dict[str, Any]) -> None:
    """DataError when anything was found unreadable: the exit code of a strict inspection."""
    if report["bad"]:
        some = "; ".join(f"{shown(b['name'])}: {b['reason']}" for b in report["bad"][:3])
        raise DataError(f"{count(len(report['bad']), 'sample')} cannot be read: {some}", "mend or remove them")
