"""Time series in an array file, a table, a .ts or .arff file, or a folder of them, with or without labels and groups.

    np.savez("FILE.npz", x=x, y=y, groups=groups)  # (N, C, T) or (N, T); a held-out split is made, of whole groups
    np.savez("FILE.npz", x_train=..., y_train=..., x_test=..., y_test=...)  # the file has a held-out split

NaN means missing, or padding after the end. Recordings of different lengths may also be concatenated: x (total steps, C)
with the lengths len (N,) (or len_train, len_test). Tables are long (a row for each step) or wide (a row for each series).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.console import escape, plural
from sslcli.data.dataset import Dataset
from sslcli.data.files.array_fields import PARTS, check_task, encode_targets, make_sources
from sslcli.data.files.string_table import StringTable
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.paths import require_path
from sslcli.data.recordings.facts import describe
from sslcli.data.recordings.read import EXPECTED, read_recordings
from sslcli.data.recordings.recordings import Columns, Recordings
from sslcli.data.recordings.windows import (
    Windows,
    as_bytes,
    check_options,
    covered_steps,
    describe_windows,
    make_windows,
    stored_tensors,
)
from sslcli.data.samples.window_names import WindowNames
from sslcli.data.split import split, split_recordings
from sslcli.data.stats import outlier_notes, series_stats
from sslcli.data.subset import check_pretrain_on, pretrain_source
from sslcli.data.tables.cells import CellFormat
from sslcli.data.timeline import Timeline, split_in_time, standardize_samples
from sslcli.errors import DataError, RequestError
from sslcli.nn.values import Continuous

SCALES = ("train", "sample", "none")


def series(
    path: str | None = None,
    name: str = "series",
    layout: str = "nct",
    window: int | None = None,
    stride: int | None = None,
    label: str | None = "auto",
    group: str | None = "recording",
    holdout: float | str = "auto",
    split_seed: int = 0,
    pretrain_on: str = "unlabelled",  # the behavior of runs older than this key
    task: str = "auto",
    scale: str = "train",
    time_split: list[float] | None = None,
    format: str = "auto",
    id: str | None = None,
    time: str | None = None,
    drop: list[str] | None = None,
    test: str | None = "auto",
    step_label: str | None = None,
    channels: list[str] | None = None,
) -> Dataset:
    """A data set of series (N, C, T) float32, of the modality "series".

    `layout`: nct or ntc, the order of the axes of arrays.
    `window`: divide each recording into windows of this many steps, one every `stride` (default: `window`); a remainder of
    half a window or more is kept and padded with NaN.
    `label`: auto, none, or the name of the entry, or column, with the labels.
    `group`: samples of one group are never on both sides of the held-out split: recording (the entry `groups`, else all windows
    of one recording), none, or the name of an entry or column; auto, for older runs, is the entry `groups` only.
    `holdout`: the held-out fraction; auto is a fifth where there are labels.
    `task`: classes, value (numbers to predict), or auto: value where the labels are numbers with fractions.
    `pretrain_on`: where there is an unlabeled split, all (train and unlabelled) or unlabelled.
    `scale`: mean and standard deviation of each channel over the training split (train), over each sample, or none.
    `time_split`: the steps, or fractions, of each recording for training, validation and test, in time.
    `format`, `id`, `time`, `drop`, `channels`, `test`: of tables; see `recordings.Columns`.
    `step_label`: the column of a table that is 1 at anomalous steps, and 0 at others.

    Raises RequestError for paths and values, DataError for the contents of the file.
    """
    text = require_path(path, EXPECTED)
    check_options(layout, window, stride)
    check_pretrain_on(pretrain_on)
    check_task(task)
    if scale not in SCALES:
        raise RequestError(f"dataset.scale: expected train, sample or none, got {escape(scale)}", "dataset.scale=train")
    notes: list[str] = []
    wish = Columns(label, group, format, id, time, tuple(drop or ()), test or "none", tuple(channels or ()))
    found = read_recordings(text, layout, wish, notes)
    step_labels = found.take_step_labels(step_label, escape(text)) if step_label is not None else {}
    sizes = {r.shape[0] for part in found.parts.values() for r in part}
    if len(sizes) != 1:
        raise DataError(f"the series of {escape(text)} differ in the number of channels: {sorted(sizes)}")
    if step_labels and time_split is not None:
        raise RequestError("dataset.step_label does not apply with dataset.time_split", "dataset.holdout=0.2")
    timeline = _in_time(found, time_split, scale, window, text)
    if timeline is not None:
        notes.append(f"divided in time: the first recording at the steps {', '.join(map(str, timeline.ends[0]))}")
    recordings, groups = found.parts, found.groups
    y = _numbers(found.y, task)
    targets = encode_targets(y, {k: len(v) for k, v in recordings.items()}, task, text, notes)
    if groups is not None and len(groups) != len(recordings["train"]):
        raise DataError(f"{escape(text)} has {len(recordings['train']):,} series but {len(groups):,} groups")

    length = window or max(r.shape[1] for part in recordings.values() for r in part)
    if length < 2:
        raise DataError(
            f"the series of {escape(text)} have a single step", "dataset.id=COLUMN names the recordings of a long table"
        )
    finish = standardize_samples if scale == "sample" else None
    windows = make_windows(recordings, length, window, stride, text, finish)
    parts = {part: w.x for part, w in windows.items()}
    targets = targets.select({part: w.origin for part, w in windows.items()})
    holdout = targets.holdout(holdout)
    if groups is not None:
        groups = [groups[i] for i in windows["train"].origin.tolist()]
    facts = _notes(found, windows, window, stride, layout, notes)
    if groups is not None:
        unused = ", not used, because the file has a test split" if "test" in parts else ""
        notes.append(f"{plural(len(set(groups)), 'group')}{unused}")
    labels = targets.labels.get("train")

    def hold_out() -> tuple[Tensor, Tensor, str]:
        train = windows["train"]
        if group == "recording" and groups is None and window is not None:
            return split_recordings(train.origin, train.start, length, holdout, split_seed, labels)
        how = "by group" if groups is not None else "stratified by class" if labels is not None else "at random"
        if group == "auto" and groups is None and window is not None:
            how += "; windows of one recording may be in both splits (dataset.group=recording prevents it)"
        return (*split(len(train.x), holdout, split_seed, labels, groups), how)

    group_ids = _group_ids(windows, groups) if group == "recording" else None
    spans = {part: w.spans(recordings[part]) for part, w in windows.items()}
    sources = make_sources(parts, targets, hold_out, notes, group_ids, spans)
    for part in PARTS:
        source = sources.get(part)
        if source is None:
            continue
        of = part if part in windows else "train"  # a split that is held out is of the recordings of train
        source.step_labels = step_labels.get(of)
        if of in found.names and timeline is None:
            source.recordings = found.names[of]
            names = WindowNames(source.recordings, source.spans)
            source.names = names if window is not None else StringTable(names.recordings())
    sources["unlabelled"] = pretrain_source(sources["train"], sources["unlabelled"], pretrain_on, notes)
    values = _values(covered_steps(sources["train"].storage), timeline, scale, notes)
    contents = [t for x in parts.values() for t in stored_tensors(x)]
    return Dataset(
        name=name,
        modality="series",
        shape=(sizes.pop(), length),
        **sources,
        classes=targets.classes,
        task=targets.task,
        id=id if found.names and timeline is None else None,
        values=values,
        fingerprint=fingerprint(sum(map(len, parts.values())), map(as_bytes, [*contents, *targets.tensors()])),
        notes=notes,
        timeline=timeline,
        details={
            "layout": "series",
            **found.facts,
            "file": os.path.basename(text),
            "groups": sorted(set(groups)) if groups is not None else [],
            "recordings": facts,
            **({"channels": list(found.channels)} if found.channels else {}),
            **({"scale": scale} if scale != "train" else {}),
            **{key: name for key, name in (("id", id), ("time", time)) if name is not None},
            **({"step": step.to_json()} if (step := found.times.range) else {}),
        },
    )


def _in_time(
    found: Recordings, time_split: list[float] | None, scale: str, window: int | None, path: str
) -> Timeline | None:
    """Divide the recordings of `found` in time, where the user asks for that."""
    if time_split is None:
        return None
    if window is None:
        raise RequestError("dataset.time_split requires dataset.window", "dataset.window=336 dataset.stride=1")
    if set(found.parts) != {"train"}:
        raise DataError(
            f"{escape(path)} has a test split, so that dataset.time_split does not apply", "dataset.test=none"
        )
    timeline = split_in_time(
        [torch.from_numpy(np.ascontiguousarray(r)) for r in found.parts["train"]], time_split, scale
    )
    found.parts = {part: [r.numpy() for r in getattr(timeline, part)] for part in ("train", "test")}
    found.y = dict.fromkeys(("train", "test"), found.y["train"]) if found.y else {}
    return timeline


def _numbers(y: Mapping[str, np.ndarray], task: str) -> dict[str, np.ndarray]:
    """Labels that are text, such as those of a table, as numbers where they are values to predict."""
    if task == "classes" or not y or any(v.dtype.kind not in "US" for v in y.values()):
        return dict(y)
    numbers = {part: CellFormat().numbers([str(cell) for cell in v.tolist()]) for part, v in y.items()}
    known = [v for v in numbers.values() if v is not None]
    if len(known) < len(numbers):
        return dict(y)
    fractions = any(bool((np.mod(v[np.isfinite(v)], 1) != 0).any()) for v in known)
    return dict(zip(numbers, known, strict=True)) if fractions or task == "value" else dict(y)


def _notes(
    found: Recordings,
    windows: Mapping[str, Windows],
    window: int | None,
    stride: int | None,
    layout: str,
    notes: list[str],
) -> dict[str, Any]:
    recordings = found.parts["train"]
    describe_windows(recordings, windows["train"].x, window, stride, layout, notes)
    more, facts = describe(recordings, found.channels)
    notes += more
    if len(recordings) == 1 and window is None:
        notes.append("warning: the file has one recording only: dataset.window=N divides it into windows of N steps")
    if empty := sum(w.empty for w in windows.values()):
        notes.append(f"warning: {plural(empty, 'series', 'series')} without any value left out")
    return facts


def _values(train: Tensor, timeline: Timeline | None, scale: str, notes: list[str]) -> Continuous:
    """Mean and standard deviation of each channel over training samples (n, C, T), or over the training steps of a timeline."""
    x = train if timeline is None or scale == "sample" else torch.cat(timeline.train, dim=1)[None]
    mean, std, constant = series_stats(x)
    notes += outlier_notes(x)
    if constant:
        notes.append(f"warning: {plural(constant, 'constant channel')}")
    return Continuous(mean, std) if scale == "train" else Continuous((0.0,) * x.shape[1], (1.0,) * x.shape[1])


def _group_ids(windows: Mapping[str, Windows], groups: list[str] | None) -> dict[str, Tensor]:
    """Integer group ids of the samples of each split: of the named groups of train, else of the recordings."""
    ids, offset = {}, 0
    for part, w in windows.items():
        codes = w.origin
        if part == "train" and groups is not None:
            index = {name: i for i, name in enumerate(sorted(set(groups)))}
            codes = torch.tensor([index[name] for name in groups])
        ids[part] = codes + offset
        offset = int(ids[part].max()) + 1
    return ids
