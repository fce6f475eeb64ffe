"""The saved predictions of results, aligned by test sample. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sslcli.errors import DataError, RequestError
from sslcli.evals.metrics.paired import Correctness
from sslcli.runs.files import checked, size_of

if TYPE_CHECKING:
    from sslcli.runs.results import SavedResult

FILE = "predictions.safetensors"  # beside a result: eval/NAME_predictions.safetensors
PredictionArrays = tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]  # ids (m,), labels (m,), predicted (draws, m)


def align(a: PredictionArrays, b: PredictionArrays) -> tuple[NDArray[np.int64], Correctness, Correctness]:
    """Align two models' predictions: the ids of their common items, and the correctness of each model on them.

    Raises RequestError if there is no common item or if the labels of common items differ.
    """
    ids, of_a, of_b = np.intersect1d(a[0], b[0], return_indices=True)
    if not len(ids):
        raise RequestError("the two results have no test item in common")
    if (a[1][of_a] != b[1][of_b]).any():
        raise RequestError("the labels of the same test items differ: the data was relabeled between the two results")
    rights = [
        (read_predictions[2] == read_predictions[1]).mean(axis=0)[rows]
        for read_predictions, rows in ((a, of_a), (b, of_b))
    ]
    return ids, rights[0], rights[1]


def read_predictions(saved: SavedResult) -> PredictionArrays | None:
    """Load the saved predictions of a result; None if there are none. Raises DataError if the file is corrupt."""
    result = read_arrays(saved, FILE, ("ids", "truth", "predicted"))
    if result is None:
        return None
    ids, labels, predicted = (result[key] for key in ("ids", "truth", "predicted"))
    if predicted.ndim != 2 or not len(predicted) or not ids.shape == labels.shape == predicted.shape[1:]:
        raise unreadable(saved, FILE, "ids, labels and predictions differ in shape")
    return ids, labels, predicted


def read_arrays(saved: SavedResult, file: str, integers: Sequence[str]) -> dict[str, NDArray[Any]] | None:
    """The arrays of an artefact, of which some are integers; None if there is none. Raises DataError if it is corrupt."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if size_of(saved.run, saved.artefact_path(file)) is None:
        return None
    try:
        arrays: dict[str, NDArray[Any]] = load_file(checked(saved.run, saved.artefact_path(file)))
        if any(arrays[key].dtype != np.int64 for key in integers) or arrays["ids"].ndim != 1:
            raise ValueError("expected integers, and one-dimensional ids")
    except (OSError, SafetensorError, KeyError, ValueError) as e:
        raise unreadable(saved, file, e) from None
    return arrays


def unreadable(saved: SavedResult, file: str, why: object) -> DataError:
    path = saved.run / saved.artefact_path(file)
    return DataError(f"{path} cannot be read: {why}", "evaluate the run again: sslcli eval NAME run=RUN")


def same_data(first: SavedResult, second: SavedResult) -> bool:
    """Whether two results were measured on the same data and, of histories of users, on the same items of them."""
    a, b = (
        (saved.record.get("fingerprint"), *((saved.record.get("protocol") or {}).get(k) for k in ("division", "part")))
        for saved in (first, second)
    )
    return bool(a[0]) and a == b
