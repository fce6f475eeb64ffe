"""The baselines of series, on data sets of the UCR and UEA archives: accuracy on the default split, and seconds.

    python benchmarks/series_baselines.py FOLDER [NAME ...] [--seeds 5]

FOLDER holds NAME.npz, with x_train, y_train, x_test, y_test and, for series of several lengths, len_train and len_test. Writes
docs/results/series_baselines.json after each data set. A seed is that of MiniROCKET's biases; dynamic time warping has none. The
published accuracies are those of the archive (any warping) and of the paper; `published` is null where there is none. Channels are
standardized over the training split; `unscaled` is the accuracy in their own units, as the archive has it.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from sslcli.data.dataset import Dataset, Source  # noqa: E402
from sslcli.data.sources.series import series  # noqa: E402
from sslcli.nn.values import Continuous  # noqa: E402
from sslcli.views.modality import Baseline  # noqa: E402
from sslcli.views.signals.baselines import MiniRocketRidge, NearestDTW  # noqa: E402

OUT = ROOT / "docs" / "results" / "series_baselines.json"
PUBLISHED: dict[str, tuple[float | None, float | None]] = {  # 1-NN DTW, MiniROCKET
    "ArrowHead": (0.703, 0.863),
    "GunPoint": (0.907, 0.993),
    "ItalyPowerDemand": (0.950, 0.963),
    "OSULeaf": (0.591, 0.959),
    "PLAID": (0.840, None),
    "JapaneseVowels": (0.949, None),
    "BasicMotions": (0.975, 1.0),
}


def own_units(data: Dataset) -> Dataset:
    """The same data set without standardization."""
    channels = data.shape[0]
    return replace(data, values=Continuous((0.0,) * channels, (1.0,) * channels))


def views(source: Source, data: Dataset) -> torch.Tensor:
    """Clean views (n, C, T)."""
    mean, std = (torch.tensor(v).view(-1, 1) for v in (data.values.mean, data.values.std))  # type: ignore[attr-defined]
    return ((source.x - mean) / std).float()  # type: ignore[attr-defined]


def measure(data: Dataset, baseline: Baseline, seed: int) -> tuple[float, float]:
    """Accuracy on the test split, and seconds of processor time."""
    x, y, x_test = views(data.train, data), data.train.labels, views(data.test, data)  # type: ignore[arg-type]
    assert y is not None
    start = time.process_time()
    p = baseline.fit(x, y, seed)(x_test)
    seconds = time.process_time() - start
    return float((p.argmax(dim=1) == data.test.labels).double().mean()), seconds  # type: ignore[union-attr]


def row(name: str, data: Dataset, seeds: int) -> dict[str, Any]:
    dtw = measure(data, NearestDTW(data.task, data.shape, 0), 0)
    unscaled = measure(own_units(data), NearestDTW(data.task, data.shape, 0), 0) if data.shape[0] > 1 else dtw
    rocket = [measure(data, MiniRocketRidge(data, seed), seed) for seed in range(seeds)]
    accuracies, seconds = (np.array(column) for column in zip(*rocket, strict=True))
    published = PUBLISHED.get(name, (None, None))
    return {
        "train": len(data.train),
        "test": len(data.test),  # type: ignore[arg-type]
        "channels": data.shape[0],
        "steps": data.shape[1],
        "dtw": {
            "top1": round(dtw[0], 4),
            "unscaled": round(unscaled[0], 4),
            "seconds": round(dtw[1], 2),
            "published": published[0],
        },
        "minirocket": {
            "top1": round(float(accuracies.mean()), 4),
            "std": round(float(accuracies.std(ddof=1)), 4) if seeds > 1 else None,
            "seeds": seeds,
            "seconds": round(float(seconds.mean()), 2),
            "published": published[1],
        },
    }


def main(folder: Path, names: list[str], seeds: int) -> None:
    torch.set_num_threads(1)
    known = json.loads(OUT.read_text()) if OUT.is_file() else {}
    sets = known.get("sets", {})
    for name in names:
        sets[name] = row(name, series(str(folder / f"{name}.npz")), seeds)
        print(name, sets[name], file=sys.stderr)
        made = f"python benchmarks/series_baselines.py FOLDER on one core, torch {torch.__version__}, {date.today()}"
        OUT.write_text(json.dumps({**known, "made": made, "sets": sets}, indent=2) + "\n")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    count = 5
    if "--seeds" in arguments:
        at = arguments.index("--seeds")
        count = int(arguments[at + 1])
        del arguments[at : at + 2]
    if not arguments:
        sys.exit(__doc__)
    main(Path(arguments[0]), arguments[1:] or list(PUBLISHED), count)
