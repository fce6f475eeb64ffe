"""CUDA graphs of views: when a graph is captured, without a GPU; identical views, on a GPU."""

from __future__ import annotations

import pytest
import torch

from sslcli.data import notify
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.loading.cuda_graph import CudaGraphViews
from sslcli.nn.values import Continuous
from sslcli.rng import Draw
from sslcli.views import Views
from tests.data.test_prefetch import CROP

FULL = {
    "global": {
        "random_resized_crop": {"interpolation": "bicubic"},
        "horizontal_flip": {},
        "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8},
        "grayscale": {},
        "gaussian_blur": {},
        "solarize": {},
        "random_affine": {"degrees": 10, "p": 0.5},
        "vertical_flip": {},
        "random_intensity": {},
        "noise": {"p": 0.5},
    }
}


class Graph:
    """Plays what was made while it recorded once more, into the same tensors."""

    made: list = []
    recording = None

    def capture_begin(self, pool, capture_error_mode):
        assert capture_error_mode == "thread_local"
        Graph.recording = self

    def capture_end(self):
        Graph.recording = None
        self.calls = Graph.made[-1]

    def replay(self):
        epoch, ids, out = self.calls
        out.copy_(1000 * epoch + ids)


@pytest.fixture
def replay(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    Graph.made = []

    def make(epoch, ids):
        out = 1000 * epoch + ids
        Graph.made.append((epoch, ids, out))
        return [out]

    return CudaGraphViews(make)


def test_graph_is_captured_once_per_epoch(replay):
    ids = torch.tensor([3, 1])
    assert replay(0, ids)[0].tolist() == [3, 1]
    assert len(Graph.made) == 1  # made as it is: an epoch may have no other
    assert replay(0, torch.tensor([4, 2]))[0].tolist() == [4, 2]
    assert len(Graph.made) == 2  # recorded, and played
    first = replay(0, torch.tensor([5, 6]))[0]
    second = replay(0, torch.tensor([7, 8]))[0]
    assert len(Graph.made) == 2
    assert ids.tolist() == [3, 1]  # the caller's
    assert (first.tolist(), second.tolist()) == ([5, 6], [7, 8])  # no view is written over by the next
    assert replay(1, torch.tensor([5, 6]))[0].tolist() == [1005, 1006]
    assert replay(1, torch.tensor([6, 7]))[0].tolist() == [1006, 1007]
    assert replay(1, torch.tensor([7, 8]))[0].tolist() == [1007, 1008]
    assert len(Graph.made) == 4
    assert replay(1, torch.tensor([5]))[0].tolist() == [1005]  # another batch size
    assert replay(1, torch.tensor([6]))[0].tolist() == [1006]
    assert len(Graph.made) == 6


def test_failed_capture_falls_back_and_logs_once(replay, monkeypatch):
    messages: list[str] = []
    notify.set_hooks(log=messages.append)
    try:

        def refuse(self):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

        monkeypatch.setattr(Graph, "capture_end", refuse)
        for i in range(3):
            assert replay(0, torch.tensor([i]))[0].tolist() == [i]
        assert len(messages) == 1
        assert "not permitted when stream is capturing)" in messages[0]
        assert len(Graph.made) == 4
    finally:
        notify.set_hooks()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("recipe", [CROP, FULL], ids=["crop", "all"])
def test_cuda_graph_views_match_cpu_views(recipe):
    x = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Dataset("d", "image", (3, 32, 32), ArraySource(x), None, values=Continuous((0.4,) * 3, (0.25,) * 3))
    views, there = Views({"global": 2}, recipe, data), x.cuda()
    play = CudaGraphViews(lambda epoch, ids: views(there[ids], Draw(0, epoch, ids)))
    with torch.cuda.stream(torch.cuda.Stream()):
        for epoch in (0, 1):
            for start in (0, 64, 128):
                ids = torch.arange(start, start + 64)
                got = [v.cpu() for v in play(epoch, ids.cuda())]
                assert play.can_capture
                for a, b in zip(views(x[ids], Draw(0, epoch, ids)), got, strict=True):
                    torch.testing.assert_close(a, b, rtol=0, atol=2e-3)
