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
    """`iterate_views` where there is one view: (ids, x)."""
    for part, several in iterate_views(
        source, views, batch_size=batch_size, device=device, workers=workers, ids=ids, bad=bad
    ):
        yield part, several[0]


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
    """(ids (B,) int64 on the CPU, for each view x (B, ...) on `device`) for evaluation: no shuffling, each sample once.

    Unreadable samples are left out (so a batch may be smaller, and one without any readable sample is skipped) and
    appended to `bad` as (name, reason).
    """
    device = torch.device(device)
    ids = torch.arange(len(source)) if ids is None else ids.to("cpu", torch.int64)
    if source.resident is not None:
        x = move_to_device(source, device)
        ids, unread = resolve_bad(source, ids, None)
        BadSamples(source).add(unread)
        if bad is not None:
            bad += [(source.name_of(i), reason) for i, reason in unread.items()]
        for part in ids.split(batch_size):
            require_unchanged()
            raw = x[part.to(x.device)].to(device)
            yield part, views(raw, Draw(seed, 0, part.to(device)))
        return
    job = DecodeTask(source, views, seed, replace=False)
    counter = BadSamples(source)
    for _, used, frames, met in decode_batches(job, ((0, part) for part in ids.split(batch_size)), workers, device):
        counter.add(met)
        if bad is not None:
            bad += [(source.name_of(i), reason) for i, reason in met.items()]
        if len(used):
            yield used, views.finish(move_all(frames, device), Draw(seed, 0, used.to(device)))
