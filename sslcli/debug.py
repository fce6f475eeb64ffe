"""When numbers stop being numbers: what is written for whoever has to find out why, and what is put back."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.console import warn
from sslcli.disk import replace_file
from sslcli.errors import StorageError
from sslcli.job import Job
from sslcli.run import Run, masked


def dump(run: Run, job: Job, step: int, ids: list[Tensor], loss: Tensor) -> None:
    """debug/nonfinite-STEP/report.json: the samples of each micro-batch, the seed, the configuration and, for each layer,
    the norms of weights and gradient with the number of their non-finite entries."""
    folder = run.path / "debug" / f"nonfinite-{step:010d}"
    names = job.loader.source.names
    report = {
        "step": step,
        "loss": plain(loss),
        "lr": [g["lr"] for g in job.optimizer.param_groups],
        "seed": job.cfg["seed"],
        "epoch": step // job.loader.steps_per_epoch,
        "samples": [part.tolist() for part in ids],
        "names": None if names is None else [[names[i] for i in part.tolist()] for part in ids],
        "layers": {
            name: {"weight": size(p.detach()), "gradient": None if p.grad is None else size(p.grad)}
            for name, p in job.method.named_parameters()
        },
        "buffers": {name: size(b) for name, b in job.method.named_buffers() if b.is_floating_point()},
        "config": masked(job.cfg),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "report.json", json.dumps(report, indent=1, default=str) + "\n")
    except (OSError, StorageError) as e:
        warn(f"cannot write {folder}: {e}")


def size(x: Tensor) -> dict[str, Any]:
    """Norm and largest magnitude of what is finite, and how many entries are not."""
    x = x.float()
    finite = torch.isfinite(x)
    rest = x[finite]
    largest = rest.abs().max() if rest.numel() else torch.zeros(())
    return {"norm": plain(rest.norm()), "largest": plain(largest), "nonfinite": int((~finite).sum())}


def plain(x: Tensor) -> float | str:
    """A JSON number, or `nan`, `inf`, `-inf`."""
    value = float(x)
    return value if math.isfinite(value) else str(value)


class Buffers:
    """Batch statistics and queues as they were before a step: a batch that is skipped leaves no trace in them."""

    def __init__(self, module: nn.Module):
        groups: dict[Any, list[Tensor]] = defaultdict(list)
        for buffer in module.buffers():
            groups[buffer.dtype].append(buffer)
        self.groups = [(own, [torch.empty_like(b) for b in own]) for own in groups.values()]

    @torch.no_grad()
    def keep(self) -> None:
        for own, kept in self.groups:
            torch._foreach_copy_(kept, own)

    @torch.no_grad()
    def undo(self) -> None:
        for own, kept in self.groups:
            torch._foreach_copy_(own, kept)
