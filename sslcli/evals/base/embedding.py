"""Compute features of samples with a frozen backbone, in batches and on all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.data.dataset import Dataset, Source
from sslcli.data.loading import evaluation
from sslcli.errors import DataError
from sslcli.nn.dist import gather_rows, rank, world_size
from sslcli.nn.values import Continuous
from sslcli.nn.windows import mean_over_windows
from sslcli.runtime.progress import track
from sslcli.views import clean, whole
from sslcli.views.modality import Samples, modality

Context = Callable[[], AbstractContextManager[Any]]


def embed(
    backbone: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    autocast: Context = nullcontext,
    channels_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Maps batches of (ids (B,), inputs (B, *shape), or their windows) to (ids (B,), features (B, d) float32), in eval mode and
    without gradients."""
    values = getattr(backbone, "values", Continuous())
    with evaluating(backbone):
        for ids, x in batches:
            if channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), autocast():
                z = mean_over_windows(backbone, x, values)
            assert z.shape[:-1] == (len(ids),), (tuple(z.shape), len(ids))
            yield ids, z.float()


def embed_views(
    backbone: nn.Module, batches: Iterator[tuple[Tensor, list[Tensor]]], autocast: Context, channels_last: bool
) -> tuple[Tensor, Tensor]:
    """Features (m, views, d) of batches of several views, on the CPU, and the ids (m,) of their samples."""
    embedded = []
    for part, inputs in batches:
        z = embed(backbone, ((part, x) for x in inputs), autocast, channels_last)
        embedded.append((part, torch.stack([vectors.cpu() for _, vectors in z], dim=1)))
    return torch.cat([z for _, z in embedded]), torch.cat([part for part, _ in embedded])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module into eval mode, and restores the training flag of each submodule afterwards."""
    flags = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, training in flags.items():
            m.training = training


def embed_train_samples(
    backbone: nn.Module,
    dataset: Dataset,
    ids: Tensor,
    *,
    device: str | torch.device,
    workers: int = 0,
    autocast: Context = nullcontext,
    channels_last: bool = False,
    batch_size: int = 512,
) -> tuple[Tensor, Tensor]:
    """Features (m, d) of the training samples `ids`, and the ids (m,) of those that could be read. Nothing is cached."""
    batches = clean_batches(
        dataset.train, dataset, torch.device(device), workers, batch_size, local_ids(ids), windows=True
    )
    return gather_features(embed(backbone, batches, autocast, channels_last), ids)


def local_ids(ids: Tensor) -> Tensor:
    """The share of `ids` (n,) that this process computes."""
    return ids[rank() :: world_size()]


def clean_batches(
    source: Source,
    dataset: Dataset,
    device: torch.device,
    workers: int,
    batch_size: int,
    ids: Tensor | None = None,
    windows: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(ids (B,), inputs (B, *shape)) without augmentation, normalized, in the order of the source or of `ids`. With `windows`, of
    samples that are longer, (B, W, *shape)."""
    views = whole(dataset) if windows else clean(dataset)
    batches = evaluation.iterate_batches(source, views, batch_size=batch_size, device=device, workers=workers, ids=ids)
    return track(batches, "samples", len(source if ids is None else ids), size=lambda batch: len(batch[0]))


def sample_batches(source: Source, dataset: Dataset, workers: int, batch_size: int) -> Iterator[tuple[Tensor, Samples]]:
    """(ids (B,), samples as raw features take them, on the CPU): whole ones, or clean views where the modality has no others."""
    kind = modality(dataset.modality)
    if kind.whole(source, torch.empty(0, dtype=torch.int64), dataset) is None:
        yield from clean_batches(source, dataset, torch.device("cpu"), workers, batch_size)
        return
    for ids in track(torch.arange(len(source)).split(batch_size), "samples", len(source), size=len):
        whole = kind.whole(source, ids, dataset)
        assert whole is not None
        yield ids, whole


def gather_features(batches: Iterator[tuple[Tensor, Tensor]], wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Features and ids of the batches of all processes, in the order of `wanted`, without samples that could not be read."""
    rows, ids = concatenate(batches, len(local_ids(wanted)))
    if world_size() == 1:
        return rows, ids
    rows, ids = gather_rows(rows), gather_rows(ids)
    position = torch.empty(int(wanted.max()) + 1, dtype=torch.int64)
    position[wanted] = torch.arange(len(wanted))
    order = position[ids].argsort()
    return rows[order], ids[order]


def concatenate(batches: Iterator[tuple[Tensor, Tensor]], at_most: int) -> tuple[Tensor, Tensor]:
    """Features (n, d) float32 and ids (n,) of all batches, in one preallocated tensor: `torch.cat` would need twice the memory."""
    rows: Tensor | None = None
    ids = torch.empty(at_most, dtype=torch.int64)
    n = 0
    for batch, z in batches:
        if rows is None:
            rows = torch.empty(at_most, z.shape[1])
        rows[n : n + len(z)] = z
        ids[n : n + len(z)] = batch
        n += len(z)
    if rows is None:
        raise DataError("no sample could be read", "sslcli data inspect")
    return (rows, ids) if n == at_most else (rows[:n].clone(), ids[:n].clone())
