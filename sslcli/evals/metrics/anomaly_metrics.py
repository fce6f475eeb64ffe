"""How well anomaly scores separate anomalous from normal samples."""

from __future__ import annotations

import torch
from torch import Tensor

ROBUST = 1.4826  # standard deviations of a normal distribution in one median absolute deviation


def auroc(score: Tensor, anomalous: Tensor) -> float:
    """Area under the ROC curve: the share of correctly ordered pairs of an anomalous and a normal sample; ties count half."""
    normal = score[~anomalous].sort().values
    below = torch.searchsorted(normal, score[anomalous])
    not_above = torch.searchsorted(normal, score[anomalous], right=True)
    return float((below + not_above).double().mean()) / (2 * len(normal))


def fpr95(score: Tensor, anomalous: Tensor) -> float:
    """False positive rate at 95 % true positive rate: the share of anomalous samples below the 95 % quantile of the normal ones.

    Normal is the positive class, as in Liang, Li & Srikant, "ODIN", ICLR 2018.
    """
    normal = score[~anomalous].sort().values
    threshold = normal[-(-95 * len(normal) // 100) - 1]
    return float((score[anomalous] <= threshold).double().mean())


def p_values(score: Tensor, calibration: Tensor) -> Tensor:
    """Conformal p-values (m,): the share of normal samples with a score at least as high; uniform for normal samples.

    `calibration` (n,) are scores of normal samples that were not used for fitting (Bates et al., "Testing for outliers with
    conformal p-values", Annals of Statistics 51, 2023).
    """
    ordered = calibration.sort().values
    at_least = len(ordered) - torch.searchsorted(ordered, score)
    return (1 + at_least).double() / (1 + len(ordered))


def outlying(scores: Tensor) -> float:
    """The share of scores (n,) more than 3 robust standard deviations above their median; NaN counts as not outlying."""
    known = scores[~scores.isnan()].double()
    middle = known.median()
    robust = ROBUST * (known - middle).abs().median()
    return float((known > middle + 3 * robust).double().mean()) if float(robust) > 0 else 0.0
