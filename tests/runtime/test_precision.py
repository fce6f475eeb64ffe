"""`device.precision=auto`: bf16 where the hardware multiplies it, in training; fp32 elsewhere."""

from __future__ import annotations

import json

import pytest
import torch

from sslcli.backbones.convnet import ConvNet
from sslcli.runtime import device
from tests.conftest import SMOKE

CPU = {"type": "cpu", "precision": "auto", "channels_last": "auto", "compile": False, "workers": 0, "threads": 1}


@pytest.fixture
def amx(monkeypatch):
    """A function that pretends that this processor has AMX, or other instructions, or none for bf16."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)

    def pretend(has: bool, name: str = "amx_bf16") -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: has}, raising=False)

    return pretend


@pytest.mark.parametrize("name", ["amx_bf16", "avx512_bf16"])
@pytest.mark.parametrize(
    ("has", "training", "expected"), [(True, True, "bf16"), (True, False, "fp32"), (False, True, "fp32")]
)
def test_auto_is_bf16_in_training_with_instructions_for_it(amx, has, training, expected, name):
    amx(has, name)
    assert device.start(CPU, training=training).precision == expected
    assert device.start(CPU, training=training).training_precision == ("bf16" if has else "fp32")
    fixed = device.start({**CPU, "precision": "fp32"}, training=training)
    assert (fixed.precision, fixed.training_precision) == ("fp32", "fp32")


def test_bf16_without_instructions_for_it_is_answered_by_a_warning(amx, capsys, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    amx(False)
    device.start(CPU | {"precision": "bf16"})
    assert "no instructions for bf16" in capsys.readouterr().err
    device.start(CPU)
    amx(True)
    device.start(CPU | {"precision": "bf16"})
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("limit", "with_amx", "with_avx512"),
    [
        ("AVX2", False, False),
        ("AVX512_CORE", False, False),
        ("avx512_core_bf16", False, True),
        ("AVX512_CORE_FP16", False, True),
        ("AVX10_1_512", False, True),
        ("AVX512_CORE_AMX", True, True),
        ("AVX10_1_512_AMX", True, True),
        ("ALL", True, True),
        ("DEFAULT", True, True),
    ],
)
def test_limit_of_onednn_is_respected(amx, monkeypatch, limit, with_amx, with_avx512):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    amx(True)
    assert device.multiplies_bf16() == with_amx
    amx(True, "avx512_bf16")
    assert device.multiplies_bf16() == with_avx512


def test_torch_without_capabilities_has_fp32(amx, monkeypatch):
    amx(True)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert device.auto_precision("cpu", training=True) == "fp32"


def test_evaluations_train_in_bf16_and_compute_features_in_fp32(amx, cli, monkeypatch):
    amx(True)
    pretrained = cli("pretrain", "method=simsiam", *SMOKE, "train.eval_every=0")
    assert pretrained.code == 0, pretrained.err
    assert "bf16" in pretrained.err
    of_features = []
    forward = ConvNet.forward

    def spy(self, x):
        z = forward(self, x)
        if not self.training:
            of_features.append(z.dtype)
        return z

    monkeypatch.setattr(ConvNet, "forward", spy)
    words = ["labels=2/class", "evaluator.epochs=1", "evaluator.min_steps=2", "device=cpu", "--json"]
    tuned = cli("eval", "finetune", f"run={pretrained.last}", *words)
    assert tuned.code == 0, tuned.err
    assert json.loads(tuned.out)["protocol"]["precision"] == "bf16"
    assert set(of_features) == {torch.float32}
    amx(False)
    tuned = cli("eval", "finetune", f"run={pretrained.last}", *words)
    assert json.loads(tuned.out)["protocol"]["precision"] == "fp32"
