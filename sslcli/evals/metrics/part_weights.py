"""Which words count most, over all samples whose attribution maps were computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sslcli.evals.artefacts.tables import Table
from sslcli.views.preview.base import Preview

SHOWN = 10  # words of a class
FEW = 20  # samples, from which on a word that counts occurs in several of them
LEAST = 3  # of these


@dataclass
class PartWeights:
    """Sums for each part that occurs, such as a word, and each title of samples, such as the class that was explained."""

    samples: int = 0
    _sums: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, previews: Sequence[Preview], importance: Tensor, titles: Sequence[str]) -> None:
        """Samples, the importance of their positions (B, *grid), and a title of each. Weights are divided by the mean size of
        those of the sample, so that samples of different scores and lengths count alike."""
        for preview, weights, title in zip(previews, importance, titles, strict=True):
            self.samples += 1
            parts = preview.parts(weights) or []
            mean = float(torch.tensor([abs(w) for _, w in parts], dtype=torch.float64).mean()) if parts else 0.0
            if not mean:
                continue
            by_name: dict[str, list[float]] = defaultdict(list)
            for name, weight in parts:
                by_name[name].append(weight / mean)
            for name, values in by_name.items():
                total = self._sums[title].setdefault(name, [0.0, 0.0])
                total[0] += sum(values) / len(values)
                total[1] += 1

    def table(self, what: str) -> Table | None:
        """The parts of the largest mean weight; None where samples have none. `what`: the importance, in words."""
        least = LEAST if self.samples >= FEW else 1
        rows = []
        for title in sorted(self._sums):
            means = [(total / n, int(n), name) for name, (total, n) in self._sums[title].items() if n >= least]
            best = sorted(means, key=lambda m: (-m[0], m[2]))[:SHOWN]
            rows += [(title, name, round(mean, 3), n) for mean, n, name in best if mean > 0]
        if not rows:
            return None
        caption = (
            f"the words that count most over {self.samples:,} samples ({what}), as multiples of the mean weight of a word; of "
            f"those in at least {least} of them"
        )
        return Table(("explained", "word", "weight", "samples"), rows, caption)
