"""What each process of tests/nn/test_parity.py does: a linear model on a share of a batch, averaged gradients."""

from __future__ import annotations

import torch
import torch.distributed as dist

from sslcli.methods.moco_v2 import info_nce
from sslcli.methods.simclr import nt_xent
from sslcli.methods.vicreg import vicreg_terms
from sslcli.nn.dist import gather, mean, rank, world
from sslcli.nn.losses import cosine_distance, mse_known
from sslcli.nn.queue import Queue

N, IN, OUT = 8, 5, 4


def vicreg(z1, z2):
    terms = vicreg_terms(z1, z2)
    return 25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"]


def with_padding(z1, z2):
    """Targets with padding in the first rows only, so that processes know different numbers of entries."""
    target = z2.detach().clone()
    if rank() == 0:
        target[0, 1:] = float("nan")
    return mse_known(z1, target)


def queued(z1, z2):
    torch.manual_seed(0)
    queue = Queue(6, OUT).double()
    k = torch.nn.functional.normalize(z2.detach(), dim=1)
    queue.hold(k, torch.arange(len(k)) + rank() * len(k))
    queue.push()
    q = torch.nn.functional.normalize(z1, dim=1)
    return info_nce(q, k, queue.keys, 0.2)


LOSSES = {
    "nt_xent": lambda a, b: nt_xent(a, b, 0.2),
    "vicreg": vicreg,
    "cosine": cosine_distance,
    "mse_known": with_padding,
    "queue": queued,
    "gather": lambda a, b: (b @ gather(a).T).exp().mean(),  # each process uses every row, with weights of its own
}


def gradients() -> dict[str, torch.Tensor]:
    """The gradient of each loss, averaged over processes as DistributedDataParallel does, and the averaged loss."""
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(2, N, IN, generator=generator, dtype=torch.float64)
    start = torch.randn(IN, OUT, generator=generator, dtype=torch.float64)
    share = N // world()
    mine = slice(rank() * share, (rank() + 1) * share)
    out = {}
    for name, loss_of in LOSSES.items():
        w = start.clone().requires_grad_()
        loss = loss_of(x[0, mine] @ w, x[1, mine] @ w)
        loss.backward()
        assert w.grad is not None
        out[name] = mean(w.grad)
        out[f"{name} loss"] = mean(loss)
    return out


def run(rank_: int, world_: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank_, world_size=world_)
    torch.save(gradients(), f"{folder}/{rank_}.pt")
    dist.destroy_process_group()
