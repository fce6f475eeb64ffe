"""Writes tests/golden/clustering.json: what other people's code answers, in float64, to inputs made from seeds.

pip install . pot && pip install --no-deps "lightly==1.6.*" lightly_utils "solo-learn==1.0.*"
python scripts/golden/clustering.py
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "golden"))

from golden_inputs import numbers, save

SIZES = [(3, 2, 4), (6, 5, 3), (16, 8, 12)]  # samples, width, prototypes


def unit(seed: int, *shape: int) -> torch.Tensor:
    return F.normalize(numbers(seed, *shape), dim=-1)


def alone(path: str) -> Any:
    """One file of solo-learn as a module: the package itself imports Lightning's bolts."""
    file = distribution("solo-learn").locate_file(path)
    spec = importlib.util.spec_from_file_location(Path(path).stem, str(file))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    import ot
    from lightly.loss import MSNLoss, SwaVLoss

    deepclusterv2_loss_func = alone("solo/losses/deepclusterv2.py").deepclusterv2_loss_func
    cases = []
    for n, d, k in SIZES:
        prototypes = unit(9, k, d)
        scores = [unit(seed, n, d) @ prototypes.T for seed in range(4)]  # two global views, two local ones
        past = unit(5, 7, d) @ prototypes.T
        rows, columns = np.full(n, 1 / n), np.full(k, 1 / k)
        plans = {}
        for epsilon in ("0.05", "0.5"):
            for rounds in (1, 3, 10):
                # POT counts from 0 and ends with the rows, as SwAV does
                plan = ot.sinkhorn(
                    rows, columns, -scores[0].numpy(), float(epsilon), numItermax=rounds, stopThr=0, warn=False
                )
                plans[f"{epsilon} {rounds}"] = (plan * n).flatten().tolist()
        swav = SwaVLoss(temperature=0.1, sinkhorn_iterations=3, sinkhorn_epsilon=0.05)
        msn = {i: MSNLoss(temperature=0.1, sinkhorn_iterations=i, regularization_weight=2.0) for i in (0, 3)}
        anchors = torch.cat([numbers(6, n, d), numbers(7, n, d)])
        labels = torch.arange(n) % k
        cases.append(
            {
                "n": n,
                "d": d,
                "k": k,
                "plans": plans,
                "swav": swav(scores[:2], scores[2:]).item(),
                "swav_queue": swav(scores[:2], scores[2:], [past, past]).item(),
                "deepcluster": deepclusterv2_loss_func(torch.stack(scores)[None], labels[None], 0.1).item(),
                "msn": {i: loss(anchors, numbers(8, n, d), prototypes, 0.25).item() for i, loss in msn.items()},
            }
        )
    made = ", ".join(f"{p} {version(p)}" for p in ("pot", "lightly", "solo-learn", "torch"))
    save("clustering", {"made_with": made, "cases": cases})


if __name__ == "__main__":
    main()
