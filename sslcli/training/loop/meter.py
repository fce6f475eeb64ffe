"""Running means of what a method reports, between two lines of metrics.jsonl."""

from __future__ import annotations

import time
from collections import defaultdict

import torch
from torch import Tensor

from sslcli.nn.dist import all_reduce_mean, rank, world_size
from sslcli.runs import Record


class Meter:
    """Means since the last line of metrics, and throughput. Values stay on the device until they are read.

    The sums are part of a checkpoint, so that a line that spans a resume equals the line of an uninterrupted run."""

    def __init__(self, sums: dict[str, float] | None = None, count: int = 0):
        self.sums: dict[str, Tensor | float] = defaultdict(float, sums or {})
        self.count = count
        self.samples = 0
        self.start = time.perf_counter()

    @classmethod
    def from_checkpoint(cls, saved: list[Record]) -> Meter:
        """This process's sums; where the number of processes changed, the mean over those of the checkpoint."""
        if len(saved) == world_size():
            return cls(**saved[rank()])
        if not saved:
            return cls()
        sums = {k: sum(m["sums"][k] for m in saved) / len(saved) for k in saved[0]["sums"]}
        return cls(sums, saved[0]["count"])

    def add(self, values: dict[str, Tensor], samples: int) -> None:
        """Add the values of one micro-batch of `samples` samples."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.detach()
        self.count += 1
        self.samples += samples

    def means(self) -> dict[str, float]:
        """The means over micro-batches and processes."""
        local = {k: float(v) / max(1, self.count) for k, v in self.sums.items()}
        values = all_reduce_mean(torch.tensor(list(local.values()), dtype=torch.float64))
        return dict(zip(local, values.tolist(), strict=True))

    def as_dict(self) -> Record:
        return {"sums": {k: float(v) for k, v in self.sums.items()}, "count": self.count}
