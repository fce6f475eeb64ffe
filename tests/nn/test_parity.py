"""Gradients on two processes equal those on one: losses are those of the global batch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).parent))
import parity_worker


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("parity")
    mp.spawn(parity_worker.run, args=(2, str(folder)), nprocs=2)
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(2)]


def test_losses_have_global_batch_gradient(two):
    one = parity_worker.gradients()
    for name, value in one.items():
        for process in two:
            torch.testing.assert_close(process[name], value, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
    assert all(one[name].abs().max() > 0 for name in parity_worker.LOSSES)


def test_collectives_are_identity_on_one_process():
    from sslcli.nn.dist import all_reduce_mean, gather, rank, world_size

    x = torch.ones(3, 2, requires_grad=True)
    assert gather(x) is x
    assert (rank(), world_size()) == (0, 1)
    assert not all_reduce_mean(x).requires_grad
