"""Images that a method shows of itself (reconstructions, samples), as pictures/NAME.png in the run folder."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset
from sslcli.runs.files import replacing
from sslcli.runs.run import Run
from sslcli.runtime.compilation import eager
from sslcli.training.setup import TrainingSetup
from sslcli.views import sheet

MAX_ROWS = 8  # samples of a sheet


def save_method_images(setup: TrainingSetup, run: Run) -> None:
    """Write the columns of `Method.pictures` for the first samples of a batch, one file per name."""
    with contextlib.closing(setup.loader.stream(0)) as stream:
        batch = next(stream)
    setup.method.eval()
    with torch.no_grad(), eager(setup.runtime.compile):
        images = setup.method.pictures(batch)
    for name, columns in images.items():
        parts = [denormalize(setup.dataset, c[:MAX_ROWS].float().cpu()) for c in columns.values()]
        with replacing(run.make_folder("pictures") / f"{name}.png") as path:
            sheet(path, list(zip(*parts, strict=True)), list(columns))


def denormalize(dataset: Dataset, x: Tensor) -> Tensor:
    """A view, (B, C, ...), in the units of the data: images in [0, 1]."""
    mean, std = (torch.tensor(v).view(-1, *([1] * (x.ndim - 2))) for v in (dataset.mean, dataset.std))
    return x * std + mean
