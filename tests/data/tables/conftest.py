from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sslcli.data.dataset import Dataset
from sslcli.data.sources.table import table

N = 60


def people(n: int = N) -> list[dict[str, object]]:
    """Rows with two columns of numbers, two of categories, and a label that none of them determines."""
    rng = np.random.default_rng(0)
    return [
        {
            "age": int(rng.integers(18, 90)),
            "height": round(float(rng.normal(170, 10)), 2),
            "job": ["cook", "nurse", "judge"][int(rng.integers(3))],
            "town": ["Oslo", "Rome"][int(rng.integers(2))],
            "label": ["no", "yes"][int(rng.integers(2))],
        }
        for _ in range(n)
    ]


def write(path: Path, rows: list[dict[str, object]], delimiter: str = ",", end: str = "\n") -> str:
    columns = list(rows[0])
    lines = [delimiter.join(columns), *(delimiter.join(str(row[c]) for c in columns) for row in rows)]
    path.write_bytes((end.join(lines) + end).encode())
    return str(path)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Dataset]:
    """read(content, **options): the data set of a table with this text, or of these rows."""

    def read(content: str | bytes | list[dict[str, object]], name: str = "t.csv", **options: object) -> Dataset:
        path = tmp_path / name
        if isinstance(content, list):
            write(path, content)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return table(str(path), **options)  # type: ignore[arg-type]

    return read


def notes(dataset: Dataset) -> str:
    return "\n".join(dataset.notes)
