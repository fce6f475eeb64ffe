"""`dataset.exclude=FILE.csv`: leave samples out of a data set, such as those that an audit suggests to exclude.

The file has a column `path` (or `name`) with the names that `sslcli data audit` writes. With a column `suggestion`, a row counts
only where that begins with `exclude`: the file of an audit can be given as it is, or edited first. What is fitted to training
samples, such as their mean, a vocabulary or the types of columns, is fitted before samples are left out.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.dataset import Dataset, Source
from sslcli.data.files.csv_table import PATHS, decode_text, parse_table
from sslcli.data.files.csv_text import cell
from sslcli.data.samples.names import sample_names, splits_of
from sslcli.data.subset import Concat, Subset, unlabelled_only
from sslcli.errors import DataError, RequestError, nearest

HEADER = "expected a CSV file with a column path, as `sslcli data audit` writes"


def exclude(dataset: Dataset, file: str) -> Dataset:
    """The data set without the samples that a file names; its fingerprint is another one where some are left out.

    RequestError where the file cannot be read, DataError where it is no such table, names
    no sample of the data set, or nothing is left."""
    wanted = read_names(file)
    splits, names = splits_of(dataset), sample_names(dataset)
    written = [str(cell(name)) for name in names]
    out = torch.tensor([name in wanted for name in written])
    unknown = wanted - set(written) - set(dataset.details.get("bad", {}))  # of these, some are files without a sample
    if unknown and not out.any():
        first = min(unknown)
        close = nearest(first, written[:100_000])
        raise DataError(
            f"dataset.exclude={escape(file)}: {dataset.name} has no sample {escape(first)}",
            f"did you mean {escape(close)}?" if close else "audit this data set: sslcli data audit dataset=...",
        )
    kept: dict[str, Source] = {}
    counts = {}
    gone_names: list[str] = []
    for (name, source), gone in zip(splits.items(), out.split([len(s) for s in splits.values()]), strict=True):
        kept[name] = _without(source, gone)
        counts[name] = int(gone.sum())
        if source.names is not None:
            gone_names += [source.name_of(i) for i in torch.nonzero(gone).flatten().tolist()]
        if not len(kept[name]):
            raise DataError(
                f"dataset.exclude={escape(file)} leaves no sample in the split {name}", "remove rows from it"
            )
    what = ", ".join(f"{count:,} of {name}" for name, count in counts.items() if count) or "none"
    note = f"{plural(int(out.sum()), 'sample')} left out ({what}) by {escape(file)}"
    if unknown:
        note += f"; {plural(len(unknown), 'name')} of no sample there"
    left_out, why = dataset.details.get("left_out_names", {}), f"dataset.exclude={file}"
    digest = hashlib.sha256(dataset.fingerprint.encode() + out.numpy().tobytes()).hexdigest()[:16]
    return replace(
        dataset,
        train=kept["train"],
        test=kept.get("test"),
        unlabelled=_unlabelled(dataset, kept),
        fingerprint=f"{sum(map(len, kept.values()))}-{digest}" if out.any() else dataset.fingerprint,
        notes=[*dataset.notes, note],
        details={
            **dataset.details,
            "excluded": counts,
            "left_out_names": {**left_out, **dict.fromkeys(gone_names, why)},
        },
    )


def read_names(file: str) -> set[str]:
    """The names of the samples to leave out."""
    path = Path(os.path.expanduser(file))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"dataset.exclude={escape(file)} cannot be read: {error.strerror}", HEADER) from None
    table = parse_table(decode_text(content), escape(file))
    column, suggestion = table.column(PATHS), table.column(("suggestion",))
    if column is None:
        raise DataError(f"the header of {escape(file)} is {escape(','.join(table.columns)) or 'empty'}", HEADER)
    place = {name: i for i, name in enumerate(table.columns)}
    return {
        row[place[column]]
        for _, row in table.rows
        if suggestion is None or row[place[suggestion]].strip().lower().startswith("exclude")
    }


def _without(source: Source, gone: Tensor) -> Source:
    if not gone.any():
        return source
    ids = torch.nonzero(~gone).flatten()
    return Subset(source, ids, None if source.labels is None else source.labels[ids])


def _unlabelled(dataset: Dataset, kept: dict[str, Source]) -> Source | None:
    """What pretraining reads, where that is not the training split alone."""
    if dataset.unlabelled is None or "unlabelled" not in kept:
        return dataset.unlabelled
    return (
        kept["unlabelled"]
        if unlabelled_only(dataset) is dataset.unlabelled
        else Concat(kept["train"], kept["unlabelled"])
    )
