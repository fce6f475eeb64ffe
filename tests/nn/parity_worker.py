"""Worker of tests/nn/test_parity.py: a linear model on a part of a batch, with averaged gradients."""

from __future__ import annotations

import torch
import torch.distributed as dist

from sslcli.methods.barlow_twins import barlow_terms
from sslcli.methods.clip import clip_loss
from sslcli.methods.dcl import decoupled_contrastive_loss
from sslcli.methods.dino_v2 import koleo_loss
from sslcli.methods.electra import discriminator_terms
from sslcli.methods.emp_ssl import coding_rate
from sslcli.methods.lejepa import sigreg
from sslcli.methods.mixed_barlow import mixing_loss, mixture
from sslcli.methods.moco_v2 import info_nce
from sslcli.methods.moco_v3 import contrastive_loss
from sslcli.methods.msn import msn_terms
from sslcli.methods.nnclr import nearest_neighbor_loss
from sslcli.methods.siglip import siglip_loss
from sslcli.methods.simclr import nt_xent
from sslcli.methods.supcon import supcon_loss
from sslcli.methods.supervised import labeled_cross_entropy
from sslcli.methods.tico import second_moment, tico_terms
from sslcli.methods.vicreg import vicreg_terms
from sslcli.methods.visreg import visreg_terms
from sslcli.methods.w_mse import whitening_mse
from sslcli.nn.dist import all_reduce_mean, gather, rank, world_size
from sslcli.nn.losses import contrastive_loss as info_nce_of_one_direction
from sslcli.nn.losses import masked_mse, negative_cosine_similarity
from sslcli.nn.masked_language import token_terms
from sslcli.nn.projections import random_directions
from sslcli.nn.prototypes import cross_view_loss
from sslcli.nn.queue import Queue
from sslcli.nn.sentence_pairs import pair_terms, swap_second_segments
from sslcli.nn.sinkhorn import sinkhorn
from sslcli.nn.towers import equal_rows, unit
from sslcli.nn.values import Tokens

N, IN, OUT = 8, 5, 4


def vicreg(z1, z2):
    terms = vicreg_terms(z1, z2)
    return 25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"]


def with_padding(z1, z2):
    """Targets with padding in the first rows only, so that processes have different numbers of entries."""
    target = z2.detach().clone()
    if rank() == 0:
        target[0, 1:] = float("nan")
    return masked_mse(z1, target)


def queued(z1, z2):
    torch.manual_seed(0)
    queue = Queue(6, OUT).double()
    k = torch.nn.functional.normalize(z2.detach(), dim=1)
    queue.stage(k, torch.arange(len(k)) + rank() * len(k))
    queue.push()
    q = torch.nn.functional.normalize(z1, dim=1)
    return info_nce(q, k, queue.keys, 0.2)


def labels(z):
    """Labels of this process's rows: two classes and unlabeled samples, more of these in the first rows."""
    whole = torch.tensor([-1, -1, 0, -1, 1, 0, 1, 1])
    return whole[rank() * len(z) : (rank() + 1) * len(z)]


def barlow(z1, z2):
    terms = barlow_terms(z1, z2)
    return terms["invariance"] + 0.1 * terms["redundancy"]


def mixed(z1, z2):
    share, partner = mixture(0, len(z1), z1)
    return mixing_loss(z1, z2, (z1 * z2).sin(), share, partner)


def tico(z1, z2):
    z1, z2 = (torch.nn.functional.normalize(z, dim=1) for z in (z1, z2))
    return sum(tico_terms(z1, z2, second_moment(z1, z2)).values())


def visreg(z1, z2):
    return sum(visreg_terms(torch.stack([z1, z2]), 2, random_directions(0, OUT, 5, z1)).values())


def swav(z1, z2):
    """Codes over the global batch, without one of its rows, and a queue divided among processes."""
    scores = torch.stack([z1, z2])
    past = torch.linspace(-1, 1, 5 * OUT, dtype=z1.dtype).sin().view(5, OUT)[rank() :: world_size()]
    weights = torch.cat([(labels(z1) != 1).to(z1.dtype), torch.ones_like(past[:, 0])])
    codes = [sinkhorn(torch.cat([own.detach(), past]), 0.5, 3, weights)[: len(own)] for own in scores]
    return cross_view_loss(scores / 0.1, torch.stack(codes))


def hidden_tokens(z):
    """Targets that most rows of the first process do not have."""
    where = labels(z) >= 0
    return token_terms(z[where], (torch.arange(len(z)) % OUT)[where])["loss"]


def next_sentences(z):
    """Second segments permuted over the global batch; one sample has none."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(5, 50, (N, 9), generator=generator)
    x[:, 0], x[:, -1], x[torch.arange(N), 2 + torch.arange(N) % 4] = 2, 3, 3
    x[0, 5:] = 0
    swap, scores = torch.rand(2, N, generator=generator)
    mine = slice(rank() * len(z), (rank() + 1) * len(z))
    values = Tokens(50, pad=0, mask=4, start=2, separator=3, special=(0, 1, 2, 3, 4))
    pairs = swap_second_segments(x[mine], values, swap[mine] < 0.5, scores[mine])
    return pair_terms(z[:, :2] * pairs.x.double().mean(dim=1, keepdim=True), pairs)["loss"]


def captions(z):
    """Captions of this process's rows, of which some are equal, on both processes."""
    whole = torch.tensor([[2, 7, 3], [2, 8, 3], [2, 7, 3], [2, 9, 3], [2, 7, 3], [2, 5, 3], [2, 9, 3], [2, 6, 3]])
    return whole[rank() * len(z) : (rank() + 1) * len(z)]


def clip(z1, z2):
    return clip_loss(unit(z1), unit(z2), equal_rows(captions(z1)), torch.tensor(5.0, dtype=z1.dtype))[0]


def siglip(z1, z2):
    scale, bias = torch.tensor(5.0, dtype=z1.dtype), torch.tensor(-2.0, dtype=z1.dtype)
    return siglip_loss(unit(z1), unit(z2), equal_rows(captions(z1)), scale, bias)[0]


LOSSES = {
    "clip": clip,
    "siglip": siglip,
    "mlm": lambda a, b: hidden_tokens(a),
    "nsp": lambda a, b: next_sentences(a),
    "electra": lambda a, b: discriminator_terms(a, b.detach() > 0, labels(a)[:, None].expand_as(a) >= 0)["loss"],
    "simcse": lambda a, b: info_nce_of_one_direction(a, b, 0.2),
    "swav": swav,
    "msn": lambda a, b: sum(msn_terms(torch.stack([a, b]), b.detach().softmax(dim=1)).values()),
    "koleo": lambda a, b: koleo_loss(a),
    "dcl": lambda a, b: decoupled_contrastive_loss(a, b, 0.2),
    "dclw": lambda a, b: decoupled_contrastive_loss(a, b, 0.2, 0.5),
    "moco_v3": lambda a, b: contrastive_loss(a, b, 0.2),
    "nnclr": lambda a, b: nearest_neighbor_loss(a, b, 0.2),
    "supcon": lambda a, b: supcon_loss(a, b, labels(a), 0.2),
    "supervised": lambda a, b: labeled_cross_entropy(a, labels(a)),
    "barlow_twins": barlow,
    "mixed_barlow": mixed,
    "emp_ssl": lambda a, b: coding_rate(torch.stack([a, b]), 0.2),
    "tico": tico,
    "w_mse": lambda a, b: whitening_mse(a, b, torch.arange(N).flip(0), 4, 1e-2),
    "lejepa": lambda a, b: sigreg(torch.stack([a, b]), random_directions(0, OUT, 5, a)),
    "visreg": visreg,
    "nt_xent": lambda a, b: nt_xent(a, b, 0.2),
    "vicreg": vicreg,
    "cosine": negative_cosine_similarity,
    "mse_known": with_padding,
    "queue": queued,
    "gather": lambda a, b: (b @ gather(a).T).exp().mean(),  # each process uses every row, with weights of its own
}


def gradients() -> dict[str, torch.Tensor]:
    """The gradient of each loss, averaged over processes as DistributedDataParallel does, and the averaged loss."""
    generator = torch.Generator().manual_seed(11)
    x = torch.randn(2, N, IN, generator=generator, dtype=torch.float64)
    start = torch.randn(IN, OUT, generator=generator, dtype=torch.float64)
    share = N // world_size()
    mine = slice(rank() * share, (rank() + 1) * share)
    out = {}
    for name, loss_of in LOSSES.items():
        w = start.clone().requires_grad_()
        loss = loss_of(x[0, mine] @ w, x[1, mine] @ w)
        loss.backward()
        assert w.grad is not None
        out[name] = all_reduce_mean(w.grad)
        out[f"{name} loss"] = all_reduce_mean(loss)
    return out


def run(rank_: int, world_: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank_, world_size=world_)
    torch.save(gradients(), f"{folder}/{rank_}.pt")
    dist.destroy_process_group()
