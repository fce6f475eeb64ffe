"""Parameter groups; LARS against its formula, timm and lightly; learning-rate scaling; schedules against torch and lightly."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sslcli.errors import RequestError
from sslcli.optim import (
    LARS,
    build_optimizer,
    constant,
    cosine,
    linear,
    parameter_groups,
    scaled_lr,
    supports_found_inf,
)
from sslcli.training.loop.optimizer_state import optimizer_tensors, parameter_names, restore_optimizer


class Toy(nn.Module):
    fixed_lr = ("predictor",)

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm((4, 6, 6)))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.scale = nn.Parameter(torch.ones(()))
        self.predictor = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.predictor.weight
        self.teacher = nn.Linear(4, 4).requires_grad_(False)


def test_parameter_groups_hold_each_parameter_once():
    toy = Toy()
    groups = {g["name"]: g for g in parameter_groups(toy, 0.1)}
    assert {name: g["param_names"] for name, g in groups.items()} == {
        "decay": ["mask_token", "backbone.0.weight"],
        "no_decay": [
            "cls_token",
            "pos_embed",
            "scale",
            "backbone.0.bias",
            "backbone.1.weight",
            "backbone.1.bias",
            "backbone.2.weight",  # of a normalization layer, though 3-d
            "backbone.2.bias",
        ],
        "fixed_lr_decay": ["predictor.weight"],
        "fixed_lr_no_decay": ["predictor.bias"],
    }
    for name, g in groups.items():
        assert g["fixed_lr"] == name.startswith("fixed_lr")
        assert g["weight_decay"] == (0.0 if name.endswith("no_decay") else 0.1)
        assert g["adapt"] == (not name.endswith("no_decay"))
        assert [dict(toy.named_parameters())[n] is p for n, p in zip(g["param_names"], g["params"], strict=True)]
    listed = [id(p) for g in groups.values() for p in g["params"]]
    assert sorted(listed) == sorted(id(p) for p in toy.parameters() if p.requires_grad)


def test_parameter_groups_without_match_raise():
    with pytest.raises(RequestError, match="no trainable"):
        parameter_groups(Toy().requires_grad_(False), 0.1)
    toy = Toy()
    toy.fixed_lr = ("predicter",)
    with pytest.raises(AttributeError, match="predicter"):
        parameter_groups(toy, 0.1)


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW, LARS])
def test_optimizers_accept_groups_and_have_flat_state(optimizer_class):
    toy = Toy()
    optimizer = optimizer_class(parameter_groups(toy, 0.1), lr=0.1)
    for p in toy.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer.step()
    saved = optimizer.state_dict()
    assert saved["state"] or optimizer_class is torch.optim.SGD  # SGD without momentum has none
    for slots in saved["state"].values():
        assert all(isinstance(v, (torch.Tensor, int, float)) for v in slots.values())
    assert {g["name"]: g["weight_decay"] for g in saved["param_groups"]}["decay"] == 0.1
    other = optimizer_class(parameter_groups(Toy(), 0.1), lr=0.5)
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == 0.1


# ------------------------------------------------------------------------------------------------------------- LARS


def net(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)).to(dtype)


def train(model, optimizer, steps=12, lrs=None):
    generator = torch.Generator().manual_seed(1)
    for i in range(steps):
        if lrs is not None:
            for g in optimizer.param_groups:
                g["lr"] = lrs[i]
        x = torch.randn(16, 5, generator=generator, dtype=torch.float64)
        loss = (model(x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class SlowLars:
    """Algorithm 1 of the paper, one scalar at a time; without clipping the rate is outside the velocity."""

    def __init__(self, groups, lr, momentum, eta, clip):
        self.param_groups = [g | {"lr": lr} for g in groups]
        self.momentum, self.eta, self.clip, self.v = momentum, eta, clip, {}

    def zero_grad(self):
        for g in self.param_groups:
            for p in g["params"]:
                p.grad = None

    def step(self):
        for g in self.param_groups:
            for p in g["params"]:
                w, grad = p.detach().flatten().tolist(), p.grad.flatten().tolist()
                inside, outside = 1.0, g["lr"]
                wn, gn = math.sqrt(sum(x * x for x in w)), math.sqrt(sum(x * x for x in grad))
                if g["adapt"] and wn > 0 and gn > 0:
                    inside = self.eta * wn / (gn + g["weight_decay"] * wn + 1e-8)
                    if self.clip:
                        inside, outside = min(inside, g["lr"]), 1.0
                v = self.v.setdefault(id(p), [0.0] * len(w))
                for i in range(len(w)):
                    v[i] = self.momentum * v[i] + inside * (grad[i] + g["weight_decay"] * w[i])
                    w[i] -= outside * v[i]
                p.data.copy_(torch.tensor(w, dtype=p.dtype).view_as(p))


@pytest.mark.parametrize("clip", [False, True])
def test_lars_matches_formula(clip):
    a, b = net(), net()
    lrs = [0.0, 0.1, 0.2, *[0.5] * 9]  # includes a warm-up from zero
    fast = train(a, LARS(parameter_groups(a, 0.01), lr=0.5, eta=0.02, clip_lr=clip), lrs=lrs)
    slow = train(b, SlowLars(parameter_groups(b, 0.01), 0.5, 0.9, 0.02, clip), lrs=lrs)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    assert (fast - torch.cat([p.detach().flatten() for p in net().parameters()])).abs().max() > 1e-3


def test_clipped_lars_keeps_bound_during_warmup():
    """A step is at most the sum of the bounds of its gradients, eta |w| each, decayed by the momentum."""
    p = nn.Parameter(torch.ones(10))
    optimizer = LARS([p], lr=1.0, eta=0.02, clip_lr=True)
    for lr in (1e-4, 0.1, 0.2, 0.4, 0.8):  # a warm-up of a few steps
        optimizer.param_groups[0]["lr"] = lr
        p.grad = torch.full_like(p, 100.0) if lr < 1e-3 else torch.zeros_like(p)  # one large gradient, at a rate near 0
        before = p.detach().clone()
        optimizer.step()
        assert (p.detach() - before).norm() <= 0.02 * before.norm() * 1.001, lr


def test_lars_loads_velocity_of_older_checkpoint():
    """An older checkpoint stores it without the learning rate: v_old = v / lr."""
    a, b = net(), net()
    ours = LARS(parameter_groups(a, 0.01), lr=0.5, clip_lr=True)
    train(a, ours, steps=3)
    b.load_state_dict(a.state_dict())
    older = LARS(parameter_groups(b, 0.01), lr=0.5, clip_lr=True)
    for group, other in zip(ours.param_groups, older.param_groups, strict=True):
        for p, q in zip(group["params"], other["params"], strict=True):
            velocity = ours.state[p].get("velocity")
            old = ours.state[p]["momentum_buffer"] if velocity is None else velocity / 0.5
            older.state[q]["momentum_buffer"] = old.clone()
    torch.testing.assert_close(train(a, ours, steps=3), train(b, older, steps=3), rtol=1e-12, atol=1e-12)


def test_lars_clipping_changes_weights():
    a, b = net(), net()
    clipped = train(a, LARS(parameter_groups(a, 0.01), lr=0.01, eta=0.5, clip_lr=True))
    free = train(b, LARS(parameter_groups(b, 0.01), lr=0.01, eta=0.5))
    assert (clipped - free).abs().max() > 1e-3


@pytest.mark.parametrize("clip", [False, True])
def test_lars_matches_timm(clip):
    optim = pytest.importorskip("timm.optim")
    a, b = net(), net()
    ours = train(a, LARS(parameter_groups(a, 0.01), lr=0.5, eta=0.02, clip_lr=clip))
    timms = optim.Lars(  # timm adapts the groups with weight decay, so the exclusions are the same
        [{"params": g["params"], "weight_decay": g["weight_decay"]} for g in parameter_groups(b, 0.01)],
        lr=0.5,
        momentum=0.9,
        trust_coeff=0.02,
        trust_clip=clip,
    )
    # timm omits eps on some paths: 1e-8 of a norm near 1
    torch.testing.assert_close(ours, train(b, timms), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_matches_lightly(nesterov):
    lars = pytest.importorskip("lightly.utils.lars")
    a, b = net(), net()
    ours = train(a, LARS(parameter_groups(a, 0.01), lr=0.5, eta=0.02, nesterov=nesterov))
    groups = [{"params": g["params"], "weight_decay": g["weight_decay"]} for g in parameter_groups(b, 0.01)]
    lightlys = lars.LARS(groups, lr=0.5, momentum=0.9, trust_coefficient=0.02, nesterov=nesterov)
    torch.testing.assert_close(ours, train(b, lightlys), rtol=1e-12, atol=1e-12)


def test_lars_without_adaptation_is_sgd():
    a, b = net(), net()
    groups = [g | {"adapt": False} for g in parameter_groups(a, 0.01)]
    ours = train(a, LARS(groups, lr=0.1))
    torch.testing.assert_close(ours, train(b, torch.optim.SGD(parameter_groups(b, 0.01), lr=0.1, momentum=0.9)))


def test_lars_does_not_scale_zero_tensors():
    p = nn.Parameter(torch.zeros(2, 2))
    p.grad = torch.ones(2, 2)
    LARS([p], lr=0.1).step()
    torch.testing.assert_close(p.detach(), torch.full((2, 2), -0.1))
    assert torch.equal(p.grad, torch.ones(2, 2))


PREDICATED = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, fused=True),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1, fused=True),
    "lars": lambda groups: LARS(groups, lr=0.5),
    "lars, nesterov": lambda groups: LARS(groups, lr=0.5, nesterov=True),
    "lars, no momentum": lambda groups: LARS(groups, lr=0.5, momentum=0.0),
}


@pytest.mark.parametrize("name", PREDICATED)
def test_found_inf_on_device_skips_step(name):
    told, untold = net(), net()
    ours, plain = (PREDICATED[name](parameter_groups(n, 0.01)) for n in (told, untold))
    assert supports_found_inf(ours)
    ours.found_inf = torch.zeros(())
    bound = 1e-12 if "lars" in name else 0
    # a finite step is taken; with found_inf LARS uses torch's fused SGD, which rounds once where the other rounds twice
    torch.testing.assert_close(train(told, ours), train(untold, plain), rtol=bound, atol=bound)
    weights, state = copy.deepcopy(told.state_dict()), copy.deepcopy(ours.state_dict())
    for p in told.parameters():
        p.grad = torch.full_like(p, float("nan"))
    ours.found_inf = torch.ones(())
    ours.step()
    torch.testing.assert_close(dict(told.state_dict()), dict(weights), rtol=0, atol=0)
    torch.testing.assert_close(ours.state_dict()["state"], state["state"], rtol=0, atol=0)
    assert not supports_found_inf(torch.optim.SGD(told.parameters(), lr=0.1))


def test_lars_resumes_bit_identically():
    whole, half = net(), net()
    expected = train(whole, LARS(parameter_groups(whole, 0.01), lr=0.5), steps=1)
    first = LARS(parameter_groups(half, 0.01), lr=0.5)
    assert torch.equal(train(half, first, steps=1), expected)
    resumed = copy.deepcopy(half)
    second = LARS(parameter_groups(resumed, 0.01), lr=0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # torch does not copy the tensors
    assert torch.equal(train(half, first, steps=3), train(resumed, second, steps=3))


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"lr": math.nan}, {"lr": 1, "eta": 0}, {"lr": 0.1, "momentum": -0.5}])
def test_lars_rejects_invalid_arguments(bad):
    with pytest.raises(RequestError, match=r"expected (a number|a positive)"):
        LARS([nn.Parameter(torch.ones(1))], **bad)


# ------------------------------------------------------------------------------------------------------------- rates


def test_scaled_lr_describes_derivation():
    assert scaled_lr(0.5, 256, 256) == (0.5, "0.5 = 0.5 x 256 / 256 (linear)")
    assert scaled_lr(0.06, 512, 128) == (0.24, "0.24 = 0.06 x 512 / 128 (linear)")
    assert scaled_lr(0.06, 512, None)[0] == 0.06
    for bad in ((0.0, 256, 256), (math.inf, 256, 256), (0.1, 0, 256), (0.1, 256, 0)):
        with pytest.raises(RequestError):
            scaled_lr(*bad)


def test_schedule_values_at_both_ends():
    for schedule in (cosine, linear):
        assert schedule(0.0) == 1.0
        assert schedule(1.0) == pytest.approx(0.0, abs=1e-15)
        assert schedule(1.0, final=0.1) == pytest.approx(0.1, abs=1e-15)
        assert schedule(0.0, warmup=0.2, start=0.3) == 0.3
        assert schedule(0.2, warmup=0.2, start=0.3) == 1.0  # the maximum is reached as the warm-up ends
        assert schedule(0.1, warmup=0.2, start=0.3) == pytest.approx(0.65)
    assert cosine(0.5) == pytest.approx(0.5)
    assert linear(0.75) == pytest.approx(0.25)
    assert constant(1.0, warmup=0.5) == constant(0.5, warmup=0.5) == 1.0
    assert constant(0.25, warmup=0.5) == 0.5


@given(st.floats(0, 0.9), st.floats(0, 1), st.floats(0, 1), st.sampled_from([cosine, linear]))
def test_schedules_rise_then_fall(warmup, final, start, schedule):
    values = [schedule(i / 200, warmup=warmup, final=final, start=start) for i in range(201)]
    top = max(range(201), key=values.__getitem__)
    assert all(0 <= v <= 1 + 1e-12 for v in values)
    # equal up to rounding where a part is constant
    assert all(values[i] <= values[i + 1] + 1e-12 for i in range(top))
    assert all(values[i] >= values[i + 1] - 1e-12 for i in range(top, 200))


def test_cosine_matches_torch():
    p = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([p], lr=1.0)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=10)
    down = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.05)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, down], milestones=[10])
    for step in range(50):
        ours = cosine(step / 50, warmup=0.2, start=0.1, final=0.05)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        optimizer.step()
        both.step()


def test_cosine_matches_lightly():
    scheduler = pytest.importorskip("lightly.utils.scheduler")
    for step in range(50):  # lightly's last step is at progress 1, so it has n - 1 intervals
        theirs = scheduler.cosine_schedule(step, 50, 1.0, 0.05)
        assert cosine(step / 49, final=0.05) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("bad", [{"warmup": 1.0}, {"warmup": -0.1}, {"warmup": 10}, {"final": 2.0}, {"start": -1.0}])
def test_schedules_reject_invalid_arguments(bad):
    with pytest.raises(RequestError, match=next(iter(bad))):
        cosine(0.5, **bad)


# the optimizer of a run --------------------------------------------------------------------------------------------------------

SGD = {"_target_": "torch.optim.SGD", "summary": "", "lr": 9.0, "momentum": 0.9, "weight_decay": 0.01}


ADAMW = {"_target_": "torch.optim.AdamW", "summary": "", "lr": 9.0, "weight_decay": 0.01}


@pytest.mark.parametrize(("cfg", "fused"), [(SGD, None), (ADAMW, True), (ADAMW | {"foreach": True}, None)])
def test_unwrapped_optimizer_step_equals_torch(cfg, fused):
    a, b = net(), net()
    options = {k: v for k, v in cfg.items() if k in ("momentum", "foreach")} | ({"fused": True} if fused else {})
    ours = build_optimizer(cfg, a, 0.1)
    theirs = getattr(torch.optim, cfg["_target_"].rpartition(".")[2])(parameter_groups(b, 0.01), lr=0.1, **options)
    assert "step" in vars(ours), "torch has changed: look at sslcli/runtime/compilation.py"
    assert ours.defaults["fused"] is fused
    seen = []
    ours.register_step_post_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    with torch.enable_grad():
        assert torch.equal(train(a, ours), train(b, theirs))
        assert torch.is_grad_enabled()
    assert seen


def test_unknown_optimizer_step_is_not_unwrapped(monkeypatch):
    step, called = torch.optim.SGD.step, []
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, *args: called.append(1) or step(self, *args))
    train(n := net(), build_optimizer(SGD, n, 0.1), steps=2)
    assert called == [1, 1]
    assert "step" not in vars(build_optimizer(SGD, net(), 0.1, compiled=True))


def test_fused_step_equals_step_in_all_memory_formats():
    """Fused kernels ignore strides: gradients and optimizer states must have the layout of their weights, after a resume too."""
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    x = torch.randn(5, 3, 6, 6)
    ends = []
    for last, options in ((False, {"fused": False}), (True, {"fused": True}), (True, {"fused": True, "restart": True})):
        model = copy.deepcopy(whole).to(memory_format=torch.channels_last if last else torch.contiguous_format)
        restart = options.pop("restart", False)
        optimizer = build_optimizer(SGD | options, model, 0.1)
        assert optimizer.defaults["fused"] == last
        for step in range(4):
            if restart and step == 2:
                names = parameter_names(model)
                saved = optimizer_tensors(optimizer, names)
                saved = {k: v.contiguous() for k, v in saved[0].items()}, saved[1]  # the layout in a checkpoint
                optimizer = build_optimizer(SGD | options, model, 0.1)
                restore_optimizer(optimizer, names, *saved)
            optimizer.zero_grad()
            model(x.to(memory_format=torch.channels_last) if last else x).square().mean().backward()
            optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(ends[1], ends[0])
    assert torch.equal(ends[1], ends[2])
