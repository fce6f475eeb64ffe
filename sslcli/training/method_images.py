"""Drawings of what a method receives (views) and of what it computes (reconstructions, samples)."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

import torch

from sslcli.data.dataset import Dataset
from sslcli.data.loading.evaluation import iterate_batches
from sslcli.data.loading.loader import Loader
from sslcli.runs.files import replacing
from sslcli.runs.run import Run
from sslcli.runtime.compilation import force_eager
from sslcli.training.setup import TrainingSetup
from sslcli.views import clean, previews, sheet
from sslcli.views.preview.base import Preview
from sslcli.views.preview.clip_sheet import clip_sheet
from sslcli.views.preview.prose import groups_of

MAX_ROWS = 8  # samples of a sheet


def save_method_images(setup: TrainingSetup, run: Run) -> None:
    """Write the columns of `Method.figures` for the first samples of a batch, as pictures/NAME.png in the run folder; those with
    sound or motion also as NAME.zip, for reports."""
    with contextlib.closing(setup.loader.stream(0)) as stream:
        batch = next(stream)
    setup.method.eval()
    with torch.no_grad(), force_eager(setup.runtime.compile):
        figures = setup.method.figures(batch)
    for name, columns in figures.items():
        drawn = [previews(setup.dataset, column[:MAX_ROWS]) for column in columns.values()]
        rows, folder = list(zip(*drawn, strict=True)), run.make_folder("pictures")
        with replacing(folder / f"{name}.png") as path:
            sheet(path, rows, list(columns))
        clips = clip_sheet(groups_of(rows, list(columns)), {}, name, strips=True)
        if clips is not None:
            clips.save(folder / f"{name}.zip")


def save_views(loader: Loader, dataset: Dataset, path: Path) -> int:
    """Write a PNG with a row for each sample of the first batch: the sample, then its views. Returns the number of rows; where
    that is 0, no sample can be read and there is no file."""
    with contextlib.closing(loader.stream(0)) as stream:
        batch = next(stream)
    plain = clean(dataset)
    sources: dict[int, Preview] = {}
    for ids, x in iterate_batches(
        dataset.pretrain, plain, batch_size=len(batch), device="cpu", workers=0, ids=batch.ids
    ):
        sources.update(zip(ids.tolist(), previews(dataset, x), strict=True))
    views = [previews(dataset, view) for view in batch.views]
    rows = [[sources[i], *(view[j] for view in views)] for j, i in enumerate(batch.ids.tolist()) if i in sources]
    if rows:
        sheet(path, rows, ["source", *view_titles(batch.kinds)])
    return len(rows)


def view_titles(kinds: list[str]) -> list[str]:
    """The kinds of views, numbered where there are several of one kind: global 1, global 2, local 1, ..."""
    titles, seen = [], Counter[str]()
    for kind in kinds:
        seen[kind] += 1
        titles.append(f"{kind} {seen[kind]}" if kinds.count(kind) > 1 else kind)
    return titles
