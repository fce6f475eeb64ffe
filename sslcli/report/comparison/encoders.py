"""Similarity of encoders: linear CKA (Kornblith et al., ICML 2019) of their features on the same samples."""

from __future__ import annotations

import math
from typing import Any

from sslcli.config import Config
from sslcli.errors import SslError
from sslcli.runs import Record
from sslcli.runs.run import Run


def compare_encoders(names: list[str], runs: list[Run], values: Config) -> tuple[list[Record], list[str]]:
    """Linear CKA of each encoder with that of the first run, and notes on encoders that could not be compared.

    The samples are the test split of the first run's data (without one, all samples). The first row is an untrained
    backbone: the similarity that is due to the architecture alone. `values`: a resolved configuration of an evaluation."""
    import numpy as np

    from sslcli.data.record import read_record, with_recorded_paths
    from sslcli.evals.base.evaluated_model import load_model
    from sslcli.evals.base.features import Split
    from sslcli.evals.metrics.cka import cka

    rows: list[Record] = []
    notes: list[str] = []
    try:
        data = with_recorded_paths(runs[0].valid_config["dataset"], read_record(runs[0]))
    except SslError as e:
        return [], [f"no CKA: {e.message}"]
    reference: tuple[Any, Any] | None = None
    for name, run in zip(names, runs, strict=True):
        try:
            cfg = run.valid_config if run is runs[0] else {**run.valid_config, "dataset": data}
            model = load_model({**values, "data_given": run is not runs[0], "data_keys": list(data)}, cfg, run.path)
            split: Split = "test" if model.dataset.test is not None else "train"
            x, _ = model.data.features(model.backbone, split)
        except SslError as e:
            notes.append(f"no CKA of {name}: {e.message}")
            if reference is None:
                break
            continue
        ids = model.data.ids(split)
        if reference is None:
            reference = x, ids
            assert model.data.untrained_backbone is not None
            untrained, _ = model.data.features(model.data.untrained_backbone, split)
            rows.append(_row("untrained", cka(x, untrained), len(x)))
            continue
        shared, ours, theirs = np.intersect1d(reference[1].numpy(), ids.numpy(), return_indices=True)
        rows.append(_row(name, cka(reference[0][ours], x[theirs]), len(shared)))
    return rows, notes


def _row(name: str, value: float, samples: int) -> Record:
    return {"run": name, "cka": float(value) if math.isfinite(value) else None, "samples": samples}
