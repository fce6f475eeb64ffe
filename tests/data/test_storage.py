"""Storage of raw samples: selections, concatenations and gathers equal plain indexing of a list of samples."""

from __future__ import annotations

import pytest
import torch

from sslcli.data import storage
from sslcli.data.dataset import ArraySource
from sslcli.data.storage import Dense, Ragged
from sslcli.data.subset import Concat, Subset

SAMPLES = [torch.arange(n) + 100 * i for i, n in enumerate((3, 0, 5, 1, 4))]


def ragged(samples=SAMPLES, fill=-1) -> Ragged:
    lengths = torch.tensor([len(s) for s in samples])
    return Ragged(torch.cat(samples), torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]), fill)


def padded(samples, length, fill=-1) -> torch.Tensor:
    """The slow reference of `take`."""
    return torch.tensor([s.tolist()[:length] + [fill] * (length - len(s)) for s in samples])


def test_dense_shares_memory_and_selects():
    x = torch.arange(24).view(6, 4)
    dense, ids = Dense(x), torch.tensor([4, 0, 4])
    assert dense.tensor.data_ptr() == x.data_ptr() == dense.narrow(0, 3).tensor.data_ptr()
    assert torch.equal(dense.select(ids).tensor, x[ids])
    assert torch.equal(dense.take(ids), x[ids])
    assert torch.equal(dense.batch(ids, torch.device("cpu")), x[ids])
    assert torch.equal(dense.narrow(1, 3).concat(dense).tensor, torch.cat([x[1:3], x]))
    assert (len(dense), dense.nbytes, dense.sample_shape) == (6, 24 * 8, (4,))


def test_ragged_equals_a_list_of_samples():
    store, ids = ragged(), torch.tensor([2, 1, 4, 2])
    chosen = [SAMPLES[i] for i in ids.tolist()]
    assert (len(store), store.longest, store.sample_shape) == (5, 5, (None,))
    assert store.nbytes == (13 + 6) * 8
    for part, expected in (
        (store, SAMPLES),
        (store.select(ids), chosen),
        (store.narrow(1, 4), SAMPLES[1:4]),
        (store.narrow(1, 4).select(torch.tensor([2, 0])), [SAMPLES[3], SAMPLES[1]]),
        (store.narrow(1, 4).concat(store.narrow(2, 5)), SAMPLES[1:4] + SAMPLES[2:5]),
        (store.to(torch.device("cpu")), SAMPLES),
    ):
        assert [part[i].tolist() for i in range(len(part))] == [s.tolist() for s in expected]
        longest = max(map(len, expected))
        assert torch.equal(part.take(torch.arange(len(part))), padded(expected, longest))


@pytest.mark.parametrize("copied", [1, 512])
def test_gather_equals_slices(monkeypatch, copied):
    """By a copy for each sample, and by an index for each step."""
    monkeypatch.setattr(storage, "COPIED", copied)
    store, ids, start = ragged(), torch.tensor([2, 1, 4, 0, 2]), torch.tensor([1, 0, 3, -2, 7])
    got = store.gather(ids, start, 4, 9)
    for row, i, s in zip(got.tolist(), ids.tolist(), start.tolist(), strict=True):
        assert row == [int(SAMPLES[i][k]) if 0 <= k < len(SAMPLES[i]) else 9 for k in range(s, s + 4)]
    batch = store.batch(ids, torch.device("cpu"))
    assert (len(batch), batch.lengths.tolist()) == (5, [5, 0, 4, 3, 5])
    assert torch.equal(batch.gather(start, 4, 9), got)
    assert batch.gather(start, 4).min() == -1
    assert ragged([SAMPLES[1]]).gather(torch.tensor([0]), torch.tensor([0]), 2, 7).tolist() == [[7, 7]]


@pytest.mark.parametrize("copied", [1, 512])
def test_gather_keeps_trailing_axes(monkeypatch, copied):
    monkeypatch.setattr(storage, "COPIED", copied)
    flat = torch.randn(7, 2, 3)
    store = Ragged(flat, torch.tensor([0, 3, 7]), float("nan"))
    got = store.take(torch.tensor([1, 0]))
    assert torch.equal(got[0], flat[3:])
    assert torch.equal(got[1, :3], flat[:3])
    assert got[1, 3].isnan().all()


@pytest.mark.parametrize("store", [ragged(), Dense(padded(SAMPLES, 5))], ids=["ragged", "dense"])
def test_subset_and_concat_of_sources(store):
    source, ids = ArraySource(store), torch.tensor([3, 0])
    part = Subset(source, ids)
    both = Concat(part, source)
    assert both.resident is not None
    assert [both.read(i).tolist() for i in range(7)] == [source.read(i).tolist() for i in [3, 0, *range(5)]]
    assert torch.equal(both.resident.take(torch.tensor([1, 6])), store.take(torch.tensor([0, 4])))
    assert source.resident.nbytes <= store.nbytes + both.resident.nbytes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gather_is_recorded_by_a_graph():
    store = ragged().to(torch.device("cuda"))
    ids, start = torch.tensor([2, 0], device="cuda"), torch.tensor([1, 0], device="cuda")
    store.gather(ids, start, 4, 9)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = store.gather(ids, start, 4, 9)
    ids.copy_(torch.tensor([4, 3]))
    start.copy_(torch.tensor([0, -1]))
    graph.replay()
    assert torch.equal(out.cpu(), ragged().gather(ids.cpu(), start.cpu(), 4, 9))
