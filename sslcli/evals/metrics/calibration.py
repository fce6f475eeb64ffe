"""Calibration of a classifier: reliability diagram, ECE, Brier score, log loss and temperature scaling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.plotting import new_figure
from sslcli.rng import derive, order
from sslcli.runs.files import replacing
from sslcli.views.preview.base import FAINT, INK, PAPER

BINS = 15
COLDEST, HOTTEST = 0.02, 1e6  # bounds of the temperature: without errors, or at chance, there is no optimum


def reliability(p: Tensor, y: Tensor, bins: int = BINS) -> Tensor:
    """(bins, 3) float64: of the samples whose largest probability lies in each of `bins` equal parts of 0..1, their number, mean
    probability and accuracy. `p` (n, K) probabilities, `y` (n,) columns, -1 for classes without a column."""
    confidence, predicted = p.double().max(dim=1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1  # (a, b], as Guo et al. have it
    out = torch.zeros(bins, 3, dtype=torch.float64)
    out[:, 0] = torch.bincount(place, minlength=bins)
    out[:, 1] = torch.bincount(place, weights=confidence, minlength=bins) / out[:, 0].clamp(min=1)
    out[:, 2] = torch.bincount(place, weights=(predicted == y).double(), minlength=bins) / out[:, 0].clamp(min=1)
    return out


def ece(p: Tensor, y: Tensor, bins: int = BINS) -> float:
    """Expected calibration error: |accuracy - confidence| over bins, by their share. Guo et al., ICML 2017, Eq. 3."""
    table = reliability(p, y, bins)
    return float(((table[:, 1] - table[:, 2]).abs() * table[:, 0]).sum() / len(y))


def brier(p: Tensor, y: Tensor) -> float:
    """Mean squared distance between probabilities and one-hot labels, summed over classes: 0 .. 2 (Brier 1950)."""
    p = p.double()
    correct = p.gather(1, y.clamp(min=0)[:, None])[:, 0].masked_fill(y < 0, 0.0)
    return float((p.square().sum(dim=1) - 2 * correct + 1).mean())


def nll(logits: Tensor, y: Tensor) -> float:
    """Mean negative log-likelihood; samples of classes without a column are left out, since theirs is infinite."""
    return float(F.cross_entropy(logits.double()[y >= 0], y[y >= 0]))


def fit_temperature(logits: Tensor, y: Tensor) -> float:
    """T for which softmax(logits / T) has the lowest log loss. Guo et al., ICML 2017, Sec. 4.2.

    In 1 / T the loss is convex: its slope is bisected. Between 0.02 and 1e6: where logits say nothing, probabilities become equal.
    """
    keep = y >= 0
    logits = logits[keep] - logits[keep].amax(dim=1, keepdim=True)
    correct = logits.gather(1, y[keep][:, None]).sum(dtype=torch.float64)
    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(50):
        middle = (low * high) ** 0.5
        weights = torch.softmax(logits * middle, dim=1)
        slope = float((weights * logits).sum(dtype=torch.float64) - correct)  # of the loss, by 1 / T
        low, high = (middle, high) if slope <= 0 else (low, middle)  # 0: all are right and sure of it
    return (1 / (low * high)) ** 0.5


@dataclass(frozen=True)
class Temperature:
    """What divides the logits of a classifier: 1 unless another value lowers the log loss of held-out samples."""

    value: float = 1.0
    held: int = 0  # labeled training samples that were held out; 0: none
    fitted: float = 1.0  # the value of lowest log loss
    losses: tuple[float, float] = (0.0, 0.0)  # of these samples: unscaled, and by temperatures fitted to others of them
    error: float = 0.0  # standard error of the difference

    def describe(self, how: str) -> str:
        """The value and why. `how`: what the held-out logits are."""
        samples = f"{self.held:,} labelled training samples"
        before, after = self.losses
        if not self.held:
            return "1: too few labels, in all or of a class, to hold any out"
        if self.value != 1.0:
            return f"fitted to {how}: {samples} (log loss {before:.3f} -> {after:.3f})"
        if self.fitted <= COLDEST * 1.001:
            return f"1: all {samples} that were held out are right, and none shows how sure the classifier may be"
        change = f"log loss {before:.3f} -> {after:.3f}, standard error of the difference {self.error:.2g}"
        return f"1: {self.fitted:.3g}, fitted to {how}, is no reliable improvement for {samples} ({change})"


def choose_temperature(logits: Tensor, y: Tensor, seed: int) -> Temperature:
    """The temperature of held-out logits (n, K) of classes y (n,), -1 for those without a column; 1 where scaling does not lower
    their log loss by more than one standard error.

    The loss of each tenth of the samples is measured with the temperature of the others: with its own, any would seem to help.
    Without a single error there is no optimum, and the temperature is 1."""
    logits, y = logits[y >= 0], y[y >= 0]
    if len(y) < 2:
        return Temperature()
    fitted = fit_temperature(logits, y)
    part = torch.empty(len(y), dtype=torch.int64)
    part[order(derive(seed, "temperature"), 0, len(y))] = torch.arange(len(y)) % 10
    before = F.cross_entropy(logits.double(), y, reduction="none")
    after = torch.empty_like(before)
    for p in part.unique().tolist():
        scaled = logits[part == p].double() / fit_temperature(logits[part != p], y[part != p])
        after[part == p] = F.cross_entropy(scaled, y[part == p], reduction="none")
    gain = before - after
    error = float(gain.std() / len(y) ** 0.5)
    improves = float(gain.mean()) > error and fitted > COLDEST * 1.001
    return Temperature(fitted if improves else 1.0, len(y), fitted, (float(before.mean()), float(after.mean())), error)


@dataclass
class Reliability:
    """Accuracy against confidence, before and after: name -> (bins, 3) of `reliability`."""

    tables: Mapping[str, Tensor]
    errors: Mapping[str, float]

    @property
    def caption(self) -> str:
        parts = ", ".join(f"{name} {error:.3f}" for name, error in self.errors.items())
        what = "accuracy against the probe's confidence; a calibrated classifier is on the diagonal"
        return f"{what}; calibration error {parts}"

    def save(self, path: Path) -> None:

        figure = new_figure(figsize=(3.4 * len(self.tables) + 0.4, 3.9), dpi=150, facecolor=PAPER, layout="constrained")
        panels = figure.subplots(1, len(self.tables), squeeze=False, sharey=True)[0]
        for axes, (name, table) in zip(panels, self.tables.items(), strict=True):
            edges = torch.linspace(0, 1, len(table) + 1)
            count, confidence, correct = table.T.tolist()
            total, width = sum(count) or 1.0, 1 / len(table)
            for left, n, accuracy in zip(edges.tolist(), count, correct, strict=False):
                if n:
                    shade = 0.35 + 0.65 * (n / total) ** 0.5  # bins with few samples are pale
                    axes.bar(left, accuracy, width, align="edge", color="#2f6690", alpha=shade, linewidth=0)
            there = [(s, r) for s, r, n in zip(confidence, correct, count, strict=True) if n]
            axes.plot([s for s, _ in there], [r for _, r in there], "o", color="#d1603d", markersize=3)
            axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
            axes.set_title(f"{name}: error {self.errors[name]:.3f}", fontsize=10, color=INK)
            axes.set_xlabel("confidence", fontsize=9, color=INK)
            axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
            axes.tick_params(labelsize=8, colors=INK, length=2)
            axes.spines[:].set_color(FAINT)
            axes.set_facecolor("white")
        panels[0].set_ylabel("accuracy", fontsize=9, color=INK)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", facecolor=PAPER)
