"""Configurations of runs from elsewhere that name sizes which no machine has."""

from __future__ import annotations

import json
import time

import pytest
import torch

from sslcli.cli.exceptions import to_ssl_error
from sslcli.config import instantiate, typecheck
from sslcli.data.public.digits import digits
from sslcli.errors import MachineError, RequestError
from sslcli.views import Views
from tests.security.conftest import edit

FAST = ["-q", "device=cpu", "device.threads=1", "evaluator.baselines=false"]
LONG = "0x" + "F" * 6000


@pytest.mark.parametrize(
    "number", [LONG, f'!!int "{LONG}"', "1" + "0" * 400, ":".join(["59"] * 300), "0b" + "1" * 2000]
)
@pytest.mark.parametrize("key", ["\nseed: ", "\n  lr: ", "\n  steps: "])
def test_numbers_of_too_many_digits(number, key, cli, run):
    text = (run / "config.yaml").read_text()
    assert key in text
    (run / "config.yaml").write_text(text.replace(key, f"{key}{number} # ", 1))
    result = cli("eval", "knn", *FAST)
    assert result.code == 2, result.err
    assert len(result.err) < 1000


def test_integers_that_are_no_floats():
    assert not typecheck.matches_type(10**400, float)
    assert not typecheck.matches_type(10**400, int | None)
    assert typecheck.matches_type(2**64, int)


@pytest.mark.parametrize("file", ["config", "encoder"])
@pytest.mark.parametrize(("key", "code"), [("blocks", 2), ("width", 3)])
def test_network_that_no_memory_holds(key, code, file, cli, run, monkeypatch):
    monkeypatch.setattr(instantiate, "MAX_MODULES", 200)
    monkeypatch.setattr(instantiate, "PHYSICAL_MEMORY", 1 << 20)
    value = {"blocks": 10_000_000, "width": 1000}[key]
    if file == "config":
        edit(run, "backbone", **{key: value})
    else:
        info = json.loads((run / "encoder.json").read_text())
        info["backbone"][key] = value
        (run / "encoder.json").write_text(json.dumps(info))
    began = time.monotonic()
    result = cli("eval", "knn", "-q", "device=cpu", "device.threads=1")
    assert (result.code, "Traceback" in result.err) == (code, False), result.err
    assert time.monotonic() - began < 20


def test_networks_of_usual_size_are_built():
    with instantiate.bounded("backbone"):
        assert len(list(torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(100))).parameters())) == 200


@pytest.mark.parametrize(
    ("group", "value"),
    [
        ("method", {"plan": {"global": 1_000_000}}),
        ("augmentation", {"global": {"random_resized_crop": {"size": 1_000_000}}}),
    ],
)
def test_views_that_no_memory_holds(group, value, cli, run):
    edit(run, group, **value)
    began = time.monotonic()
    result = cli("runs", "report", str(run))
    assert result.code == 0
    assert "the map and the views could not be computed" in result.err
    assert time.monotonic() - began < 20


def test_plan_of_too_many_views():
    with pytest.raises(RequestError, match=r"from 0 to 1,000"):
        Views({"global": 1001}, {}, digits())


def test_allocation_that_torch_refuses():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 50)
    assert isinstance(to_ssl_error(refused.value), MachineError)


def test_numbers_that_are_none_are_left_out(cli, run):
    (run / "eval").mkdir(exist_ok=True)
    numbers = {"top1": float("nan"), "top5": float("inf"), "mse": 0.5}
    record = {"numbers": numbers, "intervals": {"top5_ci95": [float("nan"), 1.0]}}
    (run / "eval" / "probe.json").write_text(json.dumps(record))
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "seconds": float("nan")}))
    shown = cli("runs", "show", str(run))
    assert (shown.code, "nan" in shown.out, "probe.mse 0.5" in shown.out) == (0, False, True)
    assert cli("runs", "best", "probe.top1").code == 2
    assert "NaN" not in cli("runs", "--json").out


def test_steps_of_too_many_digits(cli):
    assert cli("pretrain", "train.steps=" + "9" * 400, "--dry-run").code == 2
