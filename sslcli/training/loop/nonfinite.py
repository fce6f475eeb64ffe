"""Non-finite losses and gradients: undo the step, record what is needed to find the cause, stop when there are too many."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.console import warn
from sslcli.errors import StorageError, TrainingError
from sslcli.nn.dist import all_gather_object, rank
from sslcli.nn.queue import Queue
from sslcli.runs import Record
from sslcli.runs.files import write_json
from sslcli.runs.find import resume_command
from sslcli.runs.run import Run
from sslcli.training.setup import TrainingSetup
from sslcli.training.state import State

MAX_SKIPPED_IN_A_ROW = 5
MAX_SKIPPED_SHARE = 0.01  # of all steps, after `FREE_STEPS`
FREE_STEPS = 100


def skip_step(setup: TrainingSetup, run: Run, state: State, loss: Tensor, norm: Tensor) -> None:
    """Count a step with a non-finite loss or gradient and record it. TrainingError where there were too many.

    The samples and norms of the first one, and of the last, are written to debug/."""
    state.skipped += 1
    state.skipped_in_a_row += 1
    cause = "loss" if not bool(torch.isfinite(loss)) else "gradient"
    run.event("non-finite", step=state.step, what=cause, loss=float(loss), gradient_norm=float(norm))
    too_many = state.skipped_in_a_row > MAX_SKIPPED_IN_A_ROW or (
        state.step > FREE_STEPS and state.skipped > MAX_SKIPPED_SHARE * state.step
    )
    if too_many or state.skipped == 1:
        ids = [part for parts in all_gather_object(setup.loader.ids(state.step)) for part in parts]
        if rank() == 0:
            write_report(run, setup, state.step, ids, loss)
    if too_many:
        lr, precision = setup.optimizer.param_groups[0]["lr"], setup.runtime.precision
        causes = [f"the learning rate is too high (try optimizer.lr={setup.cfg['optimizer']['lr'] / 10:.3g})"]
        causes += ["no gradient clipping (train.clip=1)"]
        causes += ["or bf16 (device.precision=fp32)"] if precision == "bf16" else []
        raise TrainingError(
            f"the {cause} is not finite at step {state.step:,} ({state.skipped} steps skipped; lr {lr:.3g}, {precision})",
            f"likely causes: {', '.join(causes)}; {run.path}/debug has the samples and the norms of each layer; "
            f"the last valid checkpoint is kept: `{resume_command(run.path)}` starts from it",
        )


def write_report(run: Run, setup: TrainingSetup, step: int, ids: list[Tensor], loss: Tensor) -> None:
    """Write debug/nonfinite-STEP/report.json: the samples of each micro-batch, the seed, the configuration and, for each layer,
    the norms of weights and gradient with the number of their non-finite entries."""
    folder = f"debug/nonfinite-{step:010d}"
    names = setup.loader.source.names
    report = {
        "step": step,
        "loss": to_json(loss),
        "lr": [g["lr"] for g in setup.optimizer.param_groups],
        "seed": setup.cfg["seed"],
        "epoch": step // setup.loader.steps_per_epoch,
        "samples": [part.tolist() for part in ids],
        "names": None if names is None else [[names[i] for i in part.tolist()] for part in ids],
        "layers": {
            name: {"weight": norms(p.detach()), "gradient": None if p.grad is None else norms(p.grad)}
            for name, p in setup.method.named_parameters()
        },
        "buffers": {name: norms(b) for name, b in setup.method.named_buffers() if b.is_floating_point()},
        "config": setup.cfg,
    }
    try:
        run.make_folder(folder)
        write_json(run.path, f"{folder}/report.json", report, indent=1)
    except StorageError as e:
        warn(e.message)


def norms(x: Tensor) -> Record:
    """Norm and largest magnitude of the finite entries, and the number of non-finite ones."""
    x = x.float()
    finite = torch.isfinite(x)
    rest = x[finite]
    largest = rest.abs().max() if rest.numel() else torch.zeros(())
    return {"norm": to_json(rest.norm()), "largest": to_json(largest), "nonfinite": int((~finite).sum())}


def to_json(x: Tensor) -> float | str:
    """A JSON number, or `nan`, `inf`, `-inf`."""
    value = float(x)
    return value if math.isfinite(value) else str(value)


class StepSnapshot:
    """A copy of what a step changes outside the optimizer, so that a skipped step leaves no trace.

    These are the buffers that `forward` changes (batch statistics). Queues hold new keys back until `after_step`, so theirs are
    left out. `deferred`: the step's `after_step` runs before its loss was checked, so queues and teachers are copied too."""

    def __init__(self, method: nn.Module, optimizer: torch.optim.Optimizer, deferred: bool):
        self.optimizer = optimizer
        self.optimizer_states = 0
        self.queues = [m for m in method.modules() if isinstance(m, Queue)]
        late = set() if deferred else {id(b) for queue in self.queues for b in queue.buffers()}
        changed = [b for b in method.buffers() if id(b) not in late]
        changed += [p for p in method.parameters() if deferred and not p.requires_grad]
        groups: dict[Any, list[Tensor]] = defaultdict(list)
        for tensor in changed:
            groups[tensor.dtype].append(tensor)
        self.groups = [(tensors, [torch.empty_like(t) for t in tensors]) for tensors in groups.values()]

    @torch.no_grad()
    def save(self) -> None:
        self.optimizer_states = len(self.optimizer.state)
        for queue in self.queues:  # the keys of a skipped step
            queue.discard()
        for tensors, copies in self.groups:
            torch._foreach_copy_(copies, tensors)

    @torch.no_grad()
    def restore(self) -> None:
        for tensors, copies in self.groups:
            torch._foreach_copy_(tensors, copies)
        for parameter in list(self.optimizer.state)[self.optimizer_states :]:  # empty states of a skipped first step
            del self.optimizer.state[parameter]
