"""How well anomaly scores separate anomalous from normal samples."""

from __future__ import annotations

import torch
from torch import Tensor

ROBUST = 1.4826  # standard deviations of a normal distribution in one median absolute deviation


def auroc(score: Tensor, anomalous: Tensor) -> float:
    """The share of pairs of a strange and a normal sample in which the strange one has the larger score; ties are half."""
    normal = score[~anomalous].sort().values
    below = torch.searchsorted(normal, score[anomalous])
    not_above = torch.searchsorted(normal, score[anomalous], right=True)
    return float((below + not_above).double().mean()) / (2 * len(normal))


def fpr95(score: Tensor, anomalous: Tensor) -> float:
    """The share of strange samples that pass for normal where the threshold lets at least .95 of the normal ones pass.

    Positive is normal, as in Liang, Li & Srikant, "ODIN", ICLR 2018.
    """
    normal = score[~anomalous].sort().values
    threshold = normal[-(-95 * len(normal) // 100) - 1]
    return float((score[anomalous] <= threshold).double().mean())


def p_values(score: Tensor, calibration: Tensor) -> Tensor:
    """(m,) the share of normal samples that are at least as strange: small is strange, uniform where nothing is.

    `calibration` (n,) are scores of normal samples that nothing was fitted to (Bates et al., "Testing for outliers with
    conformal p-values", Annals of Statistics 51, 2023).
    """
    ordered = calibration.sort().values
    at_least = len(ordered) - torch.searchsorted(ordered, score)
    return (1 + at_least).double() / (1 + len(ordered))


def outlying(scores: Tensor) -> float:
    """The share of scores (n,) more than 3 robust standard deviations above their median; NaN counts as not."""
    known = scores[~scores.isnan()].double()
    middle = known.median()
    robust = ROBUST * (known - middle).abs().median()
    return float((known > middle + 3 * robust).double().mean()) if float(robust) > 0 else 0.0
