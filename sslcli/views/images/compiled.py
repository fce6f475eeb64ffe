"""Which implementation computes image views: compiled C on a CPU, Triton kernels on a CUDA device, or the tensor code."""

from __future__ import annotations

import torch

from sslcli.views.images import native, triton_views


def configure(setting: bool | str, device: torch.device, native_views: bool) -> bool:
    """Apply `device.native` to this process: auto, true (MachineError when unavailable) or false. `native_views`: whether the
    modality has compiled views. Warn where `auto` falls back. Returns whether compiled views are used."""
    if native_views and device.type == "cuda":
        triton_views.enable(setting, device)
        return triton_views.usable(device)
    return native.configure(setting, device, native_views)
