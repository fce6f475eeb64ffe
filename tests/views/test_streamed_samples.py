"""Samples that are read one by one have the form that their kind of data gives them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data.dataset import Dataset, Source
from sslcli.data.loading.loader import Loader
from sslcli.nn.values import Continuous
from sslcli.rng import Draw
from sslcli.views import Views
from sslcli.views.modality import modality
from tests import rows

TABLE = {"global": {"swap": {"share": 0.5}}}


class Streamed(Source):
    """Rows of a table as numpy arrays, read from nowhere."""

    resident = None
    labels = names = groups = None

    def __init__(self, n: int):
        self.x, _ = rows.rows(n)
        self.targets = {}

    def __len__(self) -> int:
        return len(self.x)

    def read(self, index: int) -> np.ndarray:
        return self.x[index].numpy()


@pytest.mark.parametrize(
    "form", [lambda x: x, lambda x: x.numpy(), lambda x: x.tolist()], ids=["tensor", "numpy", "list"]
)
def test_rows_that_are_read_one_by_one(form):
    dataset = rows.dataset(20)
    x, draw = dataset.train.x[:6], Draw(0, 1, torch.arange(6))
    views = Views({"clean": 1}, {}, dataset)
    torch.testing.assert_close(
        views.finish(views.frames([form(row) for row in x], draw), draw)[0], views(x, draw)[0], equal_nan=True
    )


def test_series_that_are_read_one_by_one():
    x = torch.randn(4, 2, 30)
    dataset = Dataset("s", "series", (2, 30), Streamed(2), None, values=Continuous((0.0, 1.0), (1.0, 2.0)))
    views, draw = Views({"clean": 1}, {}, dataset), Draw(0, 0, torch.arange(4))
    found = views.finish(views.frames([series.numpy() for series in x], draw), draw)[0]
    torch.testing.assert_close(found, views(x, draw)[0])


def test_images_are_arrays_whatever_they_were():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    decoded = modality("image").decoded([Image.fromarray(pixels), pixels])
    assert all(isinstance(image, np.ndarray) and (image == pixels).all() for image in decoded)


def test_samples_are_converted_once_for_all_views(monkeypatch):
    calls = []
    kind = type(modality("image"))
    monkeypatch.setattr(
        kind, "decoded", lambda self, samples, real=kind.decoded: calls.append(1) or real(self, samples)
    )
    dataset = Dataset("i", "image", (3, 8, 8), Streamed(2), None, values=Continuous((0.5,) * 3, (0.5,) * 3))
    views = Views({"clean": 3}, {}, dataset)
    assert len(views.frames([np.zeros((9, 9, 3), np.uint8)] * 2, Draw(0, 0, torch.arange(2)))) == 3
    assert calls == [1]


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_streams_a_table(workers):
    dataset = Dataset("t", "table", (6,), Streamed(12), None, values=rows.VALUES)
    loader = Loader(dataset.train, Views({"clean": 1}, {}, dataset), batch_size=4, seed=0, workers=workers)
    stream = loader.stream()
    try:
        batch = next(stream)
    finally:
        stream.close()
    torch.testing.assert_close(batch.views[0], dataset.train.x[batch.draw.ids], equal_nan=True)
