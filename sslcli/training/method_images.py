"""Images of what a method receives (views) and of what it computes (reconstructions, samples)."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset
from sslcli.data.loading.evaluation import iterate_batches
from sslcli.runs.files import replacing
from sslcli.runs.run import Run
from sslcli.runtime.compilation import force_eager
from sslcli.training.setup import TrainingSetup
from sslcli.views import clean, sheet

MAX_ROWS = 8  # samples of a sheet


def save_method_images(setup: TrainingSetup, run: Run) -> None:
    """Write the columns of `Method.figures` for the first samples of a batch, as pictures/NAME.png in the run folder."""
    with contextlib.closing(setup.loader.stream(0)) as stream:
        batch = next(stream)
    setup.method.eval()
    with torch.no_grad(), force_eager(setup.runtime.compile):
        images = setup.method.figures(batch)
    for name, columns in images.items():
        parts = [denormalize(setup.dataset, c[:MAX_ROWS].float().cpu()) for c in columns.values()]
        with replacing(run.make_folder("pictures") / f"{name}.png") as path:
            sheet(path, list(zip(*parts, strict=True)), list(columns))


def save_views(setup: TrainingSetup, path: Path) -> int:
    """Write a PNG with a row for each sample of the first batch: the sample, then its views. Returns the number of rows."""
    with contextlib.closing(setup.loader.stream(0)) as stream:
        batch = next(stream)
    dataset, ids = setup.dataset, batch.ids
    samples = {}
    batches = iterate_batches(dataset.pretrain, clean(dataset), batch_size=len(ids), device="cpu", workers=0, ids=ids)
    for some_ids, x in batches:
        samples.update({int(i): image for i, image in zip(some_ids, denormalize(dataset, x), strict=True)})
    views = [denormalize(dataset, view) for view in batch.views]
    rows = [[samples[int(ids[i])], *(view[i] for view in views)] for i in range(len(batch))]
    sheet(path, rows, ["source", *view_titles(batch.kinds)])
    return len(rows)


def view_titles(kinds: list[str]) -> list[str]:
    """The kinds of views, numbered where there are several of one kind: global 1, global 2, local 1, ..."""
    titles, seen = [], Counter[str]()
    for kind in kinds:
        seen[kind] += 1
        titles.append(f"{kind} {seen[kind]}" if kinds.count(kind) > 1 else kind)
    return titles


def denormalize(dataset: Dataset, x: Tensor) -> Tensor:
    """A view, (B, C, ...), in the units of the data: images in [0, 1]."""
    mean, std = (torch.tensor(v).view(-1, *([1] * (x.ndim - 2))) for v in (dataset.values.mean, dataset.values.std))
    return x * std + mean
