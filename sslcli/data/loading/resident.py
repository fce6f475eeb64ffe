"""Resident data on the training device."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from sslcli.data.dataset import Source
from sslcli.data.loading.bad_samples import read_or_replace


def move_all(frames: list[Tensor], device: torch.device) -> list[Tensor]:
    return [f.to(device, non_blocking=True) for f in frames]


_moved: weakref.WeakKeyDictionary[Source, dict[torch.device, Tensor]] = weakref.WeakKeyDictionary()


def move_to_device(source: Source, device: torch.device) -> Tensor:
    """The resident tensor on `device`, moved once; it stays here if it would take over half of a GPU's free memory."""
    x = source.resident
    assert x is not None
    if device.type == "cpu":
        return x
    here = _moved.setdefault(source, {})
    if device not in here:
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if x.numel() * x.element_size() > free // 2:
                return x
        here[device] = x.contiguous().to(device)
    return here[device]


def resolve_bad(source: Source, ids: Tensor, seed: int | None) -> tuple[Tensor, dict[int, str]]:
    """`ids` without those that could not be decoded when all were read (or with their stand-ins), and what these were."""
    if not source.bad:
        return ids, {}
    _, used, bad = read_or_replace(ids.tolist(), lambda i: source.bad.get(i, i), len(source), seed)
    return torch.tensor(used, dtype=torch.int64), bad
