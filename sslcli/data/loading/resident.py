"""Resident data on the training device."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from sslcli.data.dataset import Source
from sslcli.data.loading.bad_samples import read_or_replace
from sslcli.data.storage import Storage

_on_device: weakref.WeakKeyDictionary[Source, dict[torch.device, Storage]] = weakref.WeakKeyDictionary()


def move_to_device(source: Source, device: torch.device) -> Storage:
    """The resident samples of a source on `device`, copied once. It stays in host memory where it would take more than half of
    a GPU's free memory."""
    x = source.resident
    assert x is not None
    if device.type == "cpu":
        return x
    copies = _on_device.setdefault(source, {})
    if device not in copies:
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if x.nbytes > free // 2:
                return x
        copies[device] = x.to(device)
    return copies[device]


def move_all(frames: list[Tensor], device: torch.device) -> list[Tensor]:
    return [frame.to(device, non_blocking=True) for frame in frames]


def resolve_bad(source: Source, ids: Tensor, seed: int | None) -> tuple[Tensor, dict[int, str]]:
    """`ids` with every sample that could not be decoded replaced (with a `seed`) or left out (None), and id -> reason of
    those samples."""
    if not source.bad:
        return ids, {}
    _, used, bad = read_or_replace(ids.tolist(), lambda i: source.bad.get(i, i), len(source), seed)
    return torch.tensor(used, dtype=torch.int64), bad
