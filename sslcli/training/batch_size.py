"""`train.batch_size` of a run: the value of `auto`, and checks against the training split."""

from __future__ import annotations

import json
from typing import Any

from sslcli.builders import load_dataset
from sslcli.config.batch_size import auto_batch_size, check_batch_size
from sslcli.console import plural
from sslcli.data.dataset import Dataset
from sslcli.errors import DataError
from sslcli.methods.base import Method


def resolve_batch_size(cfg: dict[str, Any], dataset: Dataset, world_size: int = 1) -> dict[str, Any]:
    """The configuration with an integer for `train.batch_size=auto`. RequestError where the batch does not fit the data or the
    processes, DataError where there are fewer than two samples."""
    train, n = cfg["train"], len(dataset.pretrain)
    if n < 2:
        raise DataError(f"{dataset.name} has {plural(n, 'training sample')}: expected at least 2")
    if train["batch_size"] == "auto":
        train = {**train, "batch_size": auto_batch_size(n, train["accumulate"] * world_size)}
    check_batch_size(train["batch_size"], train["accumulate"], world_size, n)
    return {**cfg, "train": train}


def check_batch_sizes(cfgs: list[dict[str, Any]]) -> None:
    """RequestError where the batch size of one of several configurations does not fit its data. Each data set is loaded once."""
    datasets: dict[str, Dataset] = {}
    for cfg in cfgs:
        if cfg["train"]["batch_size"] != "auto":
            key = json.dumps([cfg["dataset"], cfg["train"].get("classes")], sort_keys=True, default=str)
            if key not in datasets:
                datasets[key] = load_dataset(cfg)
            resolve_batch_size(cfg, datasets[key])


def accumulation_note(methods: list[type[Method]], batch_size: int, micro_batch: int) -> str:
    """What a loss over pairs of samples sees of a batch that is accumulated in micro-batches; "" where nothing changes."""
    if micro_batch == batch_size or not any(m.compares for m in methods):
        return ""
    per_sample = max(m.negatives for m in methods)
    seen, full = per_sample * (micro_batch - 1), per_sample * (batch_size - 1)
    negatives = f": {seen:,} negatives, not {full:,}" if per_sample else ""
    return f"the loss sees {micro_batch:,} samples at a time, not {batch_size:,}{negatives} (train.accumulate)"
