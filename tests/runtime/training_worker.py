"""Worker of tests/runtime/test_processes.py: two steps of every method in double precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sslcli.nn.dist import rank
from sslcli.runtime import processes
from sslcli.training.loop.optimizer_state import full_tensor
from sslcli.training.loop.trainer import Trainer
from sslcli.training.run_training import NullRun
from sslcli.training.setup import prepare
from sslcli.training.state import Horizon, State


def two_steps(cfg: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The mean loss and the averaged gradient of the first step, then weights and buffers after the second."""
    job = prepare(cfg, rehearsal=False)
    job.method.double()
    views = job.loader.views
    job.loader.views = lambda raw, draw: [v.double() if v.is_floating_point() else v for v in views(raw, draw)]
    job.loader.views.kinds = views.kinds
    trainer = Trainer(job, NullRun(Path("nowhere")), State())
    job.method.train()
    stream, found = job.loader.stream(0), {}
    for _ in range(2):
        trainer.step(stream, Horizon(100), trainer.meter)
        if trainer.state.step == 0:
            named = list(job.method.named_parameters())
            found |= {f"gradient of {n}": full_tensor(p.grad).clone() for n, p in named if p.grad is not None}
            found |= {f"step {n}": full_tensor(p.detach()).clone() for n, p in named}
            found |= {
                f"loss: {k}": torch.tensor(v, dtype=torch.float64)
                for k, v in trainer.meter.means().items()
                if not k.endswith("spread")
            }
        trainer.state.step += 1
    stream.close()
    return found | {f"after {k}": v.clone() for k, v in trainer.strategy.weights().items()}


def work(told: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    processes.join_group(torch.device("cpu"))
    found = {name: two_steps(cfg) for name, cfg in told["cfgs"].items()}
    if rank() == 0:
        torch.save(found, told["out"])
