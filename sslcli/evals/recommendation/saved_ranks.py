"""The rank of each user's next item, saved beside the metrics, and the paired tests of them against the baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from sslcli.evals.artefacts.tables import Csv, Table
from sslcli.evals.base.result import Artefact
from sslcli.evals.metrics.paired import compare
from sslcli.evals.pairing.ranks import COMPARED, RANKS, SUFFIXES, RankArrays, rank_test
from sslcli.runs.files import replace_file
from sslcli.runs.safetensors_file import safetensors


@dataclass
class Ranks:
    """users, targets: (m,) int64, the numbers of users among those of the data set, and of their next items. ranks: (m,) float64 of
    the targets by model and convention, where the model of the run is ""; infinite where the target is left out."""

    users: Tensor
    targets: Tensor
    ranks: Mapping[tuple[str, str], Tensor]
    caption: str = field(default="the rank of each user's next item", repr=False)

    def save(self, path: Path) -> None:
        named = {f"rank.{model}.{convention}": ranks for (model, convention), ranks in self.ranks.items()}
        tensors = {"ids": self.users, "targets": self.targets, **named}
        replace_file(path.parent, path.name, safetensors({k: v.contiguous() for k, v in tensors.items()}))

    def files(self, users: Sequence[str], items: Sequence[str], seed: int) -> dict[str, Artefact]:
        """The artefacts by file name: this, a table with a row for each user, and the tests against the baselines. `users`,
        `items`: the names of all."""
        columns = [[r if math.isfinite(r) else None for r in ranks.tolist()] for ranks in self.ranks.values()]
        names = [[users[i] for i in self.users.tolist()], [items[i] for i in self.targets.tolist()]]
        header = ("user", "item", *(_column(*key) for key in self.ranks))
        table = Csv(header, zip(*names, *columns, strict=True), f"{self.caption}, by name; empty where it is left out")
        return {RANKS: self, "ranks.csv": table, **self._differences(seed)}

    @property
    def arrays(self) -> RankArrays:
        ranks = {f"{model}.{convention}": of.numpy() for (model, convention), of in self.ranks.items()}
        return RankArrays(self.users.numpy(), self.targets.numpy(), ranks)

    def notes(self, seed: int) -> list[str]:
        """Whether the run is better than the best baseline by NDCG@10, in a sentence for each convention."""
        arrays, out = self.arrays, []
        for metric in (m for m in COMPARED if m.startswith("ndcg")):
            own = arrays.scores(metric)
            others = {
                name: scores for name in arrays.baselines if (scores := arrays.scores(f"{name}.{metric}")) is not None
            }
            if own is None or not others:
                continue
            best = max(others, key=lambda name: float(others[name].mean()))
            found = compare(others[best], own, seed, test=rank_test(metric))
            where = "above" if found.difference > 0 else "below" if found.difference < 0 else "equal to"
            out.append(
                f"{metric} of this run, {found.second:.4f}, is {where} that of the best baseline, {best}, {found.first:.4f} "
                f"({found.test} p {found.p:.2g} over {found.items:,} users)"
            )
        return out

    def _differences(self, seed: int) -> dict[str, Artefact]:
        """The run against each baseline, over the same users."""
        arrays, rows = self.arrays, []
        for metric in COMPARED:
            own = arrays.scores(metric)
            for name in arrays.baselines if own is not None else ():
                other = arrays.scores(f"{name}.{metric}")
                assert own is not None
                assert other is not None
                found = compare(other, own, seed, test=rank_test(metric))
                values = (found.second, found.first, found.difference, found.low, found.high)
                rows.append((metric, name, *(round(v, 4) for v in values), found.test, float(f"{found.p:.2g}")))
        header = ("metric", "baseline", "this run", "of the baseline", "difference", "low", "high", "test", "p")
        caption = "this run against each baseline on the same users, with 95 % bootstrap intervals of the difference"
        return {"differences.csv": Table(header, rows, caption)} if rows else {}


def _column(model: str, convention: str) -> str:
    return f"{model}.rank{SUFFIXES[convention]}" if model else f"rank{SUFFIXES[convention]}"
