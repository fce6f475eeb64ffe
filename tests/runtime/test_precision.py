"""`device.precision=auto`: bf16 where the hardware multiplies it, in training; fp32 elsewhere."""

from __future__ import annotations

import pytest
import torch

from sslcli.runtime import device

CPU = {"type": "cpu", "precision": "auto", "channels_last": "auto", "compile": False, "workers": 0, "threads": 1}


@pytest.fixture
def amx(monkeypatch):
    """A function that pretends that this processor has AMX or not."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)

    def pretend(has: bool) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has}, raising=False)

    return pretend


@pytest.mark.parametrize(
    ("has", "training", "expected"), [(True, True, "bf16"), (True, False, "fp32"), (False, True, "fp32")]
)
def test_auto_is_bf16_in_training_with_amx(amx, has, training, expected):
    amx(has)
    assert device.start(CPU, training=training).precision == expected
    assert device.start({**CPU, "precision": "fp32"}, training=training).precision == "fp32"


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("AVX512_CORE", False), ("avx512_core_bf16", False), ("AVX512_CORE_AMX", True), ("ALL", True), ("DEFAULT", True)],
)
def test_limit_of_onednn_is_respected(amx, monkeypatch, limit, expected):
    amx(True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert device.has_amx_bf16() == expected


def test_torch_without_capabilities_has_fp32(amx, monkeypatch):
    amx(True)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert device.auto_precision("cpu", training=True) == "fp32"
