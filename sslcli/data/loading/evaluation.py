"""Batches for evaluation: every sample once, in order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sslcli.data.dataset import Source
from sslcli.data.files.memory_map import require_unchanged
from sslcli.data.loading.bad_samples import BadSamples
from sslcli.data.loading.resident import move_all, move_to_device, resolve_bad
from sslcli.data.loading.workers import DecodeTask, ViewMaker, decode_batches
from sslcli.rng import Draw


def iterate_batches(
    source: Source,
    views: ViewMaker,
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
    workers: int = 0,
    ids: Tensor | None = None,
    bad: list[tuple[str, str]] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(ids (B,), x (B, ...)) of the first view; otherwise as `iterate_views`."""
    for part, all_views in iterate_views(
        source, views, batch_size=batch_size, device=device, workers=workers, ids=ids, bad=bad
    ):
        yield part, all_views[0]


def iterate_views(
    source: Source,
    views: ViewMaker,
    *,
    batch_size: int,
    device: torch.device | str = "cpu",
    workers: int = 0,
    ids: Tensor | None = None,
    bad: list[tuple[str, str]] | None = None,
    seed: int = 0,
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """(ids (B,) int64 on the CPU, for each view x (B, ...) on `device`), without shuffling, each sample once.

    Unreadable samples are left out and appended to `bad` as (name, reason): a batch may be smaller than `batch_size`, and one
    without any readable sample is skipped.
    """
    device = torch.device(device)
    ids = torch.arange(len(source)) if ids is None else ids.to("cpu", torch.int64)
    bad_samples = BadSamples(source)

    def record(unreadable: dict[int, str]) -> None:
        bad_samples.add(unreadable)
        if bad is not None:
            bad.extend((source.name_of(i), reason) for i, reason in unreadable.items())

    if source.resident is not None:
        x = move_to_device(source, device)
        ids, unreadable = resolve_bad(source, ids, None)
        record(unreadable)
        for part in ids.split(batch_size):
            require_unchanged()
            yield part, views(x.batch(part, device), Draw(seed, 0, part.to(device)))
        return
    task = DecodeTask(source, views, seed, replace=False)
    for _, used, frames, unreadable in decode_batches(
        task, ((0, part) for part in ids.split(batch_size)), workers, device
    ):
        record(unreadable)
        if len(used):
            yield used, views.finish(move_all(frames, device), Draw(seed, 0, used.to(device)))
