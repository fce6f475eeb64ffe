"""Prefetching of views: the order of stream operations without a GPU, identical batches with one."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.loading.loader import Loader
from sslcli.data.loading.prefetch import Prefetcher
from sslcli.methods.base import Batch
from sslcli.nn.values import Continuous
from sslcli.rng import Draw
from sslcli.views import Views

CROP = {"global": {"random_resized_crop": {}, "horizontal_flip": {}}}


def test_prefetched_batch_is_synchronized_with_its_step(monkeypatch):
    messages: list[str] = []

    class Stream:
        def __init__(self, name="side"):
            self.name = name

        def wait_stream(self, other):
            messages.append(f"{self.name} waits for {other.name}")

        def record_event(self):
            return f"views {begun[-1]}"

        def wait_event(self, event):
            messages.append(f"{self.name} waits for {event}")

        def __enter__(self):
            messages.append("begin")

        def __exit__(self, *_):
            messages.append("end")

    begun: list[int] = []
    closed: list[bool] = []

    def batches():
        try:
            for i in range(10):
                begun.append(i)
                messages.append(f"views {i}")
                yield Batch([View()], ["global"], Draw(0, 0, View()))
        finally:
            closed.append(True)

    class View:
        def record_stream(self, stream):
            messages.append(f"kept for {stream.name}")

    step = Stream("step")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: step)
    monkeypatch.setattr(torch.cuda, "stream", lambda side: side)
    made = Prefetcher(batches(), torch.device("cuda"))
    next(made)  # nobody has begun it
    kept = ["kept for step"] * 2
    assert messages == ["side waits for step", "begin", "views 0", "end", "step waits for views 0", *kept]
    messages.clear()
    made.prefetch()
    made.prefetch()  # once is enough
    assert messages == ["begin", "views 1", "end"]
    messages.clear()
    next(made)
    assert messages == ["step waits for views 1", *kept]
    made.close()
    assert closed == [True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_batches_match_cpu_batches():
    x = torch.randint(0, 256, (256, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Dataset("d", "image", (3, 32, 32), ArraySource(x), None, values=Continuous((0.4,) * 3, (0.25,) * 3))
    views = Views({"global": 2}, CROP, data)
    both = []
    for device in ("cpu", "cuda"):
        stream = Loader(data.train, views, batch_size=64, seed=0, device=device).stream(2)
        both.append([(b.ids.cpu(), [v.cpu() for v in b.views]) for b in islice(stream, 9)])
        stream.close()
    for (ids, here), (same, there) in zip(*both, strict=True):
        assert torch.equal(ids, same)
        for a, b in zip(here, there, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
