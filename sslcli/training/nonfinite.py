"""When numbers stop being numbers: what is written for whoever has to find out why, and what is put back."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.console import warn
from sslcli.errors import StorageError
from sslcli.nn.queue import Queue
from sslcli.runs.files import write_json
from sslcli.runs.run import Run
from sslcli.training.setup import Job


def dump(run: Run, job: Job, step: int, ids: list[Tensor], loss: Tensor) -> None:
    """debug/nonfinite-STEP/report.json: the samples of each micro-batch, the seed, the configuration and, for each layer,
    the norms of weights and gradient with the number of their non-finite entries."""
    name = f"debug/nonfinite-{step:010d}"
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
        "config": job.cfg,
    }
    try:
        run.make_folder(name)
        write_json(run.path, f"{name}/report.json", report, indent=1)
    except StorageError as e:
        warn(e.message)


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


class Kept:
    """What a step changes besides what the optimizer changes, as it was before: a step that is skipped leaves no trace.

    That is what `forward` changes: the buffers (batch statistics), less those of queues, which hold back what comes until
    `after_step`. `ahead`: of a step whose `after_step` is made before it is known to be good, queues and teachers too."""

    def __init__(self, method: nn.Module, optimizer: torch.optim.Optimizer, ahead: bool):
        self.optimizer = optimizer
        self.slots = 0
        self.queues = [m for m in method.modules() if isinstance(m, Queue)]
        late = set() if ahead else {id(b) for queue in self.queues for b in queue.buffers()}
        changed = [b for b in method.buffers() if id(b) not in late]
        changed += [p for p in method.parameters() if ahead and not p.requires_grad]
        groups: dict[Any, list[Tensor]] = defaultdict(list)
        for tensor in changed:
            groups[tensor.dtype].append(tensor)
        self.groups = [(own, [torch.empty_like(t) for t in own]) for own in groups.values()]

    @torch.no_grad()
    def keep(self) -> None:
        self.slots = len(self.optimizer.state)
        for queue in self.queues:  # what a skipped step brought
            queue.drop()
        for own, kept in self.groups:
            torch._foreach_copy_(kept, own)

    @torch.no_grad()
    def undo(self) -> None:
        for own, kept in self.groups:
            torch._foreach_copy_(own, kept)
        for begun in list(self.optimizer.state)[self.slots :]:  # slots of a first step that was left out hold nothing
            del self.optimizer.state[begun]
