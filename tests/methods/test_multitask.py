"""Multi-task learning: weights against reference formulas, shared modules, invalid settings."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from sslcli.backbones.convnet import ConvNet
from sslcli.config import compose
from sslcli.errors import RequestError
from sslcli.methods.autoencoder import Autoencoder
from sslcli.methods.base import Batch, Method
from sslcli.methods.dcl import DCL
from sslcli.methods.multitask import MultiTask, select_views
from sslcli.methods.simclr import SimCLR
from sslcli.methods.simsiam import SimSiam
from sslcli.rng import Draw
from sslcli.training.configuration import resolve
from tests.methods.oracles import draws

PLANS = {"SimCLR": {"global": 2}, "SimSiam": {"global": 2}, "DCL": {"global": 2}, "Autoencoder": {"weak": 1}}


def multitask(*kinds: type[Method], **options) -> MultiTask:
    torch.manual_seed(0)
    network = ConvNet((1, 8, 8), width=4)
    tasks = {kind.__name__.lower(): kind(network) for kind in kinds}
    for task in tasks.values():
        task.plan = PLANS[type(task).__name__]
    return MultiTask(network, tasks, **options)


def batch(n: int = 6) -> Batch:
    x = [v.float() for v in draws(n, 1, 8, 8, count=3)]
    return Batch(x, ["global", "global", "weak"], Draw(0, 0, torch.arange(n)))


def test_tasks_receive_their_plan():
    method = multitask(SimCLR, Autoencoder)
    data = batch()
    assert select_views(data, method.tasks["simclr"]).kinds == ["global", "global"]
    weak = select_views(data, method.tasks["autoencoder"])
    assert weak.kinds == ["weak"]
    assert weak.views[0] is data.views[2]


def test_fixed_weights_sum_losses():
    method = multitask(SimCLR, Autoencoder, weights={"autoencoder": 0.25})
    out = method(batch())
    by_hand = out["simclr.loss"] + 0.25 * out["autoencoder.loss"]
    assert out["loss"].item() == pytest.approx(by_hand.item(), rel=1e-6)
    alone = method.tasks["simclr"](select_views(batch(), method.tasks["simclr"]))["loss"]
    assert out["simclr.loss"].item() == pytest.approx(alone.item(), rel=1e-4)


def test_uncertainty_weighting_matches_paper():
    """L = sum of exp(-s) L_i + s / 2, minimal at s = log(2 L_i)."""
    method = multitask(SimSiam, Autoencoder, weighting="uncertainty")
    with torch.no_grad():
        method.log_variance.copy_(torch.tensor([0.3, -0.7]))
    out = method(batch())
    losses = [out["simsiam.loss"].item() + 1, out["autoencoder.loss"].item()]  # simsiam's floor is -1
    by_hand = sum(math.exp(-s) * v + s / 2 for s, v in zip((0.3, -0.7), losses, strict=True))
    assert out["loss"].item() == pytest.approx(by_hand, rel=1e-5)
    out["loss"].backward()
    slope = [-math.exp(-s) * v + 0.5 for s, v in zip((0.3, -0.7), losses, strict=True)]
    assert method.log_variance.grad.tolist() == pytest.approx(slope, rel=1e-4)


def test_gradnorm_matches_reference():
    method = multitask(SimCLR, Autoencoder, weighting="gradnorm", alpha=0.5, weight_lr=0.1)
    data = batch()
    shared = [p for p in method.backbone.parameters() if p.ndim > 1][-1]
    probe = copy.deepcopy(method)
    theirs = [p for p in probe.backbone.parameters() if p.ndim > 1][-1]
    norms, losses = [], []
    for name in ("simclr", "autoencoder"):
        loss = probe.tasks[name](select_views(data, probe.tasks[name]))["loss"]
        norms.append(torch.autograd.grad(loss, theirs)[0].norm().item())
        losses.append(loss.item())
    out = method(data)
    assert method.balance.tolist() == [1.0, 1.0], "weights move after the step"
    assert shared.grad is None
    out["loss"].backward()
    method.after_step(0.1)
    mean = sum(norms) / 2  # G_i = norms, r_i = 1 at the first step
    slope = [(1 if g > mean else -1) * n for g, n in zip(norms, norms, strict=True)]
    moved = [1 - 0.1 * s / max(map(abs, slope)) for s in slope]
    assert method.balance.tolist() == pytest.approx([2 * m / sum(moved) for m in moved], rel=1e-3)
    assert method.first.tolist() == pytest.approx(losses, rel=1e-3)


def test_gradnorm_balances_large_gradients():
    method = multitask(
        SimCLR, Autoencoder, weighting="gradnorm", alpha=0.0, weight_lr=0.1, weights={"autoencoder": 100.0}
    )
    data = batch()
    before = method.balance[1] / method.balance[0]
    for _ in range(30):
        method(data)["loss"].backward()
        method.after_step(0.1)
    assert method.balance[1] / method.balance[0] < before / 2
    assert method.balance.sum().item() == pytest.approx(101.0, rel=1e-4)


def test_backbone_saved_once_and_shared_after_copy():
    method = multitask(SimCLR, Autoencoder)
    names = list(method.state_dict())
    assert not any(".backbone." in name for name in names)
    assert sum(name.startswith("backbone.") for name in names) == len(method.backbone.state_dict())
    twin = copy.deepcopy(method)
    assert all(task.backbone is twin.backbone for task in twin.tasks.values())
    assert twin.backbone is not method.backbone


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weights": {"simclrr": 1.0}}, "unknown task simclrr"),
        ({"weights": {"simclr": 0.0}}, "above 0"),
        ({"weighting": "equal"}, "fixed, uncertainty or gradnorm"),
    ],
)
def test_invalid_weights_are_rejected(options, says):
    with pytest.raises(ValueError, match=says):
        multitask(SimCLR, Autoencoder, **options)


def test_unbounded_loss_requires_fixed_weights():
    multitask(DCL, Autoencoder)
    for weighting in ("uncertainty", "gradnorm"):
        with pytest.raises(ValueError, match="lower bound"):
            multitask(DCL, Autoencoder, weighting=weighting)


def test_tasks_are_expanded_once():
    cfg = resolve(compose.compose("pretrain", ["method=multitask", "method.tasks=[rotation,simclr]"]))
    assert set(cfg["method"]["tasks"]) == {"rotation", "simclr"}
    assert cfg["method"]["tasks"]["simclr"]["temperature"] == 0.2
    assert cfg["method"]["plan"] == {"weak": 1, "global": 2}
    assert compose.expand_tasks(cfg) == cfg
    cfg = resolve(
        compose.compose(
            "pretrain", ["method=multitask", "method.tasks=[simclr]", "method.settings={simclr: {temperature: 0.5}}"]
        )
    )
    assert cfg["method"]["tasks"]["simclr"]["temperature"] == 0.5


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        (["method.tasks=[simclrr]"], "no method named `simclrr`", "simclr"),
        (["method.tasks=[]"], "expected one or more different methods", "method.tasks"),
        (["method.tasks=[simclr,simclr]"], "one or more different methods", "method.tasks"),
        (["method.settings={rotation: {}}"], "not among the tasks", ""),
        (["method.settings={simclr: {temprature: 1}}"], "temprature", "temperature"),
    ],
)
def test_invalid_tasks_are_rejected(words, says, hint):
    from sslcli.training.setup import check

    with pytest.raises(RequestError, match=says) as caught:
        check(resolve(compose.compose("pretrain", ["method=multitask", *words])))
    assert hint in (caught.value.hint or "")
