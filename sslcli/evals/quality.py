"""What can be said of features without labels, and the short measurement the trainer makes on the way.

`rankme`: Garrido et al., "RankMe", ICML 2023, arXiv:2210.02885, Eq. 1-2. `alpha_req`: Agrawal et al., "alpha-ReQ",
NeurIPS 2022. `spread`: see `sslcli.nn.stats.spread`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.data.source import Dataset
from sslcli.errors import RequestError
from sslcli.evals.features import Context, EvalData, Result, sample
from sslcli.evals.knn import predict
from sslcli.nn.stats import spread
from sslcli.rng import derive, order

ENOUGH = 25_600  # RankMe's own number of samples


def quality(backbone: nn.Module, data: EvalData, *, samples: int = ENOUGH, baselines: bool = True) -> Result:
    """`rankme`, `alpha_req`, `spread` of training features; `untrained.` of each beside them. No label is read."""
    if samples < 2:
        raise RequestError(f"evaluator.samples={samples}: at least 2 are needed", f"evaluator.samples={ENOUGH}")
    numbers: dict[str, float] = {}
    notes: list[str] = []
    protocol: dict[str, Any] = {}
    for kind, features in data.measured(backbone, baselines).items():
        if kind == "raw":  # pixels have no collapse to fear
            continue
        x, _ = features("train")
        if len(x) > samples:
            x = x[order(derive(data.seed, "quality"), 0, len(x))[:samples]]
        found = {"rankme": rankme(x), "alpha_req": alpha_req(x), "spread": float(spread(x))}
        numbers |= {f"{kind}.{name}" if kind else name: value for name, value in found.items()}
        if kind == "":
            protocol = {"split": "train", "samples": len(x), "dim": x.shape[1]}
            if len(x) < 10 * x.shape[1]:
                notes.append(
                    f"{len(x)} samples of {x.shape[1]} features: RankMe is too low with fewer than ten times as many"
                )
    protocol["notes"] = data.remarks(baselines, notes)
    return Result(numbers, protocol)


def spectrum(x: Tensor) -> Tensor:
    """(min(n, d),) eigenvalues of the smaller of x'x and xx', descending, float64, none negative."""
    x = x.to(torch.float64) if x.device.type != "mps" else x.cpu().to(torch.float64)
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    return torch.linalg.eigvalsh(gram).flip(0).clamp(min=0)


def rankme(x: Tensor, eps: float = 1e-7) -> float:
    """How many directions features (n, d) fill: exp of the entropy of their singular values, 1 .. min(n, d)."""
    singular = spectrum(x).sqrt()
    total = float(singular.sum())
    if total == 0:
        return 1.0  # all zero: as collapsed as can be
    p = singular / total + eps
    return float((-(p * p.log()).sum()).exp())


def alpha_req(x: Tensor) -> float:
    """The decay of the covariance's eigenvalues, fitted as i^-alpha over those above rounding; near 1 is best."""
    values = spectrum(x - x.mean(dim=0))
    values = values[values > 1e-10 * values[0]] if len(values) else values
    if len(values) < 2:
        return float("inf")  # one direction or none
    i = torch.arange(1, len(values) + 1, dtype=torch.float64).log()
    v = values.log()
    i, v = i - i.mean(), v - v.mean()
    return float(-(i * v).sum() / (i * i).sum())


def online(
    backbone: nn.Module,
    dataset: Dataset,
    *,
    device: str | torch.device = "cpu",
    workers: int = 0,
    autocast: Context = nullcontext,
    channels_last: bool = False,
    k: int = 20,
    temperature: float = 0.1,
    bank: int = 10_000,
    queries: int = 2_000,
) -> dict[str, float]:
    """A quick look while training, at *training* samples only: `knn/top1` (where there are labels), `spread`, `rankme`.

    At most `queries` samples (a fifth of a small set) are classified by at most `bank` others; which ones depends on
    the training split alone, so curves of different runs and epochs compare. The test split is not read.
    """
    source = dataset.train
    shuffled = order(derive("online"), 0, len(source))
    known = _known(source.labels)
    if known is not None:
        shuffled = shuffled[known[shuffled]]
    ask = min(queries, max(1, len(shuffled) // 5))
    ids = shuffled[: ask + bank]
    x, ids = sample(
        backbone, dataset, ids, device=device, workers=workers, autocast=autocast, channels_last=channels_last
    )
    numbers = {"spread": float(spread(x)), "rankme": rankme(x)}
    if source.labels is not None and known is not None and len(x) > 1:
        y = source.labels[ids].to(torch.int64)
        unit = F.normalize(x, dim=1)
        asked = torch.isin(ids, shuffled[:ask])  # unreadable samples may be missing
        if asked.any() and not asked.all():
            found = predict(unit[~asked], y[~asked], unit[asked], k, temperature, device)
            numbers = {"knn/top1": float((found == y[asked]).double().mean())} | numbers
    return numbers


def _known(labels: Tensor | None) -> Tensor | None:
    """(n,) bool: which samples have a label; None when fewer than two do, so that unlabelled data can still be seen."""
    if labels is None or int((labels >= 0).sum()) < 2:
        return None
    return labels >= 0
