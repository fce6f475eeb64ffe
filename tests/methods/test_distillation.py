"""Self-distillation and distillation (DINO, iBOT, DINOv2, ReSSL, distill) against other implementations and reference formulas."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from golden_inputs import load, numbers

from sslcli.backbones.convnet import ConvNet
from sslcli.backbones.tcn import TCN
from sslcli.backbones.vit import ViT
from sslcli.methods.base import Batch, Encoder
from sslcli.methods.dino import DINO
from sslcli.methods.dino_v2 import DINOv2, koleo_loss
from sslcli.methods.distill import Distill, regression_loss
from sslcli.methods.ibot import IBOT
from sslcli.methods.ressl import ReSSL, relation_loss
from sslcli.nn.centering import LinearWarmup, centered_softmax
from sslcli.nn.heads import gelu_head
from sslcli.nn.masking import random_mask
from sslcli.nn.prototypes import apply_to_tokens, cosine_similarity, cross_view_loss, masked_token_loss
from sslcli.nn.running_mean import RunningMean
from sslcli.nn.sinkhorn import sinkhorn
from sslcli.rng import Draw

CASES = load("distillation")["cases"]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['n']}x{c['d']}")
EXACT = 1e-10


def views(n: int = 6, count: int = 2, small: int = 0, kinds: list[str] | None = None) -> Batch:
    """Views are samples with noise; local views have half the side."""
    x = numbers(1, n, 1, 8, 8).float()
    made = [x + 0.3 * numbers(2 + v, n, 1, 8, 8).float() for v in range(count + small)]
    made = [v if i < count else v[:, :, :4, :4] for i, v in enumerate(made)]
    kinds = kinds or ["global"] * count + ["local"] * small
    return Batch(made, kinds, Draw(0, 0, torch.arange(n)))


def convnet() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet((1, 8, 8), width=4)


def vit() -> ViT:
    torch.manual_seed(0)
    return ViT((1, 8, 8), width=16, depth=1, heads=2, patch=2)


# The parts -----------------------------------------------------------------------------------------------------------


def test_running_mean_averages_rows_of_a_step():
    centre, slow = RunningMean(3).double(), np.zeros(3)
    for seed in range(4):
        first, second = numbers(seed, 5, 3), numbers(seed + 10, 2, 3)
        centre.observe(first)
        centre.observe(second)  # accumulation
        still = centre.value.clone()
        assert np.allclose(still, slow)
        centre.update(0.9)
        slow = 0.9 * slow + 0.1 * torch.cat([first, second]).mean(dim=0).numpy()
        np.testing.assert_allclose(centre.value.numpy(), slow, rtol=1e-12)
    centre.update(0.9)  # nothing was seen
    np.testing.assert_allclose(centre.value.numpy(), slow, rtol=1e-12)
    assert set(centre.state_dict()) == {"value"}


def test_linear_warmup_of_temperature():
    warming, seen = LinearWarmup(0.04, 0.07, 0.3), []
    for progress in (0.0, 0.15, 0.3, 1.0):
        warming.after_step(progress)
        seen.append(warming.value.item())
    assert seen == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert LinearWarmup(0.04, 0.07, 0.3).value.item() == pytest.approx(0.04)
    assert LinearWarmup(0.04, 0.07, 0.0).value.item() == pytest.approx(0.07)


def test_random_mask_fractions():
    draw = Draw(3, 0, torch.arange(4000))
    hidden = random_mask(draw.uniform("a", 16), draw.uniform("b", 2), p=0.5, low=0.1, high=0.5)
    counts = hidden.sum(dim=1)
    assert 0.46 < (counts > 0).float().mean() < 0.54
    assert counts[counts > 0].min() == 2  # 1.6 rounded up
    assert counts.max() == 8
    assert (hidden.float().mean(dim=0) - 0.5 * 0.33).abs().max() < 0.03  # every place alike
    none = random_mask(torch.rand(3, 4), torch.rand(3, 2), p=0.0, low=0.1, high=0.5)
    assert not none.any()


def test_apply_to_tokens_is_tokenwise():
    head, tokens = gelu_head(4, 5, 3).double(), numbers(1, 2, 6, 4)
    found = apply_to_tokens(head, tokens)
    assert found.shape == (2, 6, 3)
    assert torch.allclose(found[1, 4], head(tokens[1, 4][None])[0])


def test_gelu_head_layers_match_dino():
    kinds = [type(m) for m in gelu_head(4, 5, 5, 3)]
    assert kinds == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    kinds = [type(m) for m in gelu_head(4, 5, 5, 3, norm=True)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Linear]


# DINO ----------------------------------------------------------------------------------------------------------------


@every_case
def test_dino_matches_lightly(case):
    n, d = case["n"], case["d"]
    student = torch.stack([numbers(s, n, d) for s in range(4)])
    teacher = torch.stack([numbers(s, n, d) for s in (4, 5)])
    centre = RunningMean(d).double()
    for loss in case["dino"]:
        targets = centered_softmax(teacher, centre.value, 0.0625)
        assert cross_view_loss(student / 0.1, targets).item() == pytest.approx(loss, rel=EXACT)
        centre.observe(teacher.flatten(0, 1))
        centre.update(0.9)
    np.testing.assert_allclose(centre.value.numpy(), case["centre"], rtol=EXACT)


def test_centered_softmax_properties():
    g, c = numbers(1, 5, 3), numbers(2, 3)
    assert torch.allclose(centered_softmax(g, c, 0.5).sum(dim=1), torch.ones(5, dtype=torch.float64))
    assert torch.allclose(centered_softmax(g + 3 * c, 4 * c, 0.5), centered_softmax(g, c, 0.5))
    assert torch.equal(centered_softmax(g, c, 1e-6).argmax(dim=1), (g - c).argmax(dim=1))
    assert centered_softmax(g, c, 1e-6).max(dim=1).values.min() > 0.999
    assert torch.allclose(centered_softmax(g, c, 1e9), torch.full((5, 3), 1 / 3, dtype=torch.float64))


def dino(backbone=None, **words) -> DINO:
    return DINO(backbone or convnet(), **{"prototypes": 7, "frozen": 0.0, **words})


@pytest.mark.parametrize("backbone", [convnet, vit])
def test_dino_forward_matches_paper(backbone):
    method, data = dino(backbone()), views(small=1)
    with torch.no_grad():
        method.teacher.parts[1][0].weight.add_(0.1 * numbers(9, *method.head[0].weight.shape).float())
        method.centre.value.copy_(numbers(3, 7).float() / 10)
    student = [cosine_similarity(method.head(method.backbone(x)), method.prototypes.weight) / 0.1 for x in data.views]
    teacher = [(method.teacher(x) - method.centre.value) / 0.04 for x in data.views[:2]]
    pairs = [(g, v) for g in (0, 1) for v in (0, 1, 2) if v != g]
    slow = sum(-(teacher[g].softmax(dim=1) * student[v].log_softmax(dim=1)).sum(dim=1).mean() for g, v in pairs) / 4
    assert method(data)["loss"].item() == pytest.approx(slow.item(), rel=1e-5)


def test_dino_center_averages_teacher_outputs():
    method, data = dino(centre_momentum=0.9), views()
    with torch.no_grad():
        method.head[0].weight.add_(0.1 * numbers(9, *method.head[0].weight.shape).float())  # not the teacher's
    said = torch.cat([method.teacher(x) for x in data.views])
    method(data)
    assert (method.centre.value == 0).all()
    method.after_step(0.1)
    assert torch.allclose(method.centre.value, 0.1 * said.mean(dim=0), atol=1e-6)
    before = method.centre.value.clone()
    with torch.no_grad():
        method.eval()(data)
    method.after_step(0.2)
    assert torch.equal(method.centre.value, before), "an evaluation is not seen"


def test_dino_last_layer_frozen_initially_and_teacher_updates():
    method, data = dino(frozen=0.2, tau=0.9, tau_end=0.9), views()
    method(data)["loss"].backward()
    assert method.prototypes.weight.grad.abs().max() == 0
    assert method.head[0].weight.grad.abs().max() > 0
    assert all(p.grad is None for p in method.teacher.parameters())
    students = [*method.backbone.parameters(), *method.head.parameters(), *method.prototypes.parameters()]
    old = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in students:
            p.add_(1.0)
    method.after_step(0.2)
    for before, student, now in zip(old, students, method.teacher.parameters(), strict=True):
        assert torch.allclose(now, 0.9 * before + 0.1 * student, atol=1e-6)
    method(data)["loss"].backward()
    assert method.prototypes.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("make", "backbone"), [(DINO, convnet), (DINO, vit), (IBOT, vit), (DINOv2, vit)])
def test_eval_backbone_is_teacher(make, backbone):
    method, x = make(backbone(), prototypes=7, tau=0.5, tau_end=0.5), views().views[0]
    assert method.eval_backbone is method.teacher.parts[0]
    start = method.eval_backbone(x)
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.mul_(2.0)
    assert torch.allclose(method.eval_backbone(x), start, atol=1e-5)
    method.after_step(0.0)
    assert not torch.allclose(method.eval_backbone(x), start, atol=1e-3)


@pytest.mark.parametrize(("make", "backbone"), [(DINO, convnet), (IBOT, vit), (DINOv2, vit)])
def test_assignments_are_probabilities(make, backbone):
    method, x = make(backbone(), prototypes=7).eval(), views().views[0]
    p = method.assign(x)
    assert p.shape == (6, 7)
    assert torch.allclose(p.sum(dim=1), torch.ones(6))
    assert torch.allclose(method.assign(x[[2]]), p[[2]], atol=1e-5)


def test_uniform_outputs_cost_log_k():
    even = torch.zeros(2, 5, 8, dtype=torch.float64)
    assert cross_view_loss(even, centered_softmax(even, even[0, 0], 0.04)).item() == pytest.approx(math.log(8))


# iBOT ----------------------------------------------------------------------------------------------------------------


@every_case
def test_ibot_matches_lightly(case):
    n, d = case["n"], case["d"]
    hidden = torch.tensor(case["mask"], dtype=torch.bool)
    targets = centered_softmax(numbers(8, n, 6, d), numbers(7, d), 0.0625)
    found = masked_token_loss(numbers(9, n, 6, d) / 0.1, targets, hidden).item()
    assert found == pytest.approx(case["ibot"], rel=1e-7)  # its weights are float32


def test_hidden_tokens_matches_reference():
    logits, targets = numbers(1, 3, 4, 5), numbers(2, 3, 4, 5).softmax(dim=2)
    hidden = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    total = 0.0
    for b in (0, 2):
        places = [n for n in range(4) if hidden[b, n]]
        for n in places:
            p = np.exp(logits[b, n].numpy())
            total -= (targets[b, n].numpy() * np.log(p / p.sum())).sum() / len(places)
    assert masked_token_loss(logits, targets, hidden).item() == pytest.approx(total / 3, rel=1e-12)
    assert masked_token_loss(logits, targets, torch.zeros_like(hidden)).item() == 0


def ibot(kind=IBOT, **words):
    at = {"teacher_temperature": 0.04, "teacher_temperature_end": 0.04}
    method = kind(vit(), prototypes=7, frozen=0.0, mask_chance=1.0, **at, **words)
    return method.eval()  # batch norm with running statistics: samples do not meet


def test_ibot_forward_matches_paper():
    method, data = ibot(), views(small=1)
    with torch.no_grad():
        method.centre.value.copy_(numbers(3, 7).float() / 10)
        method.token_centre.value.copy_(numbers(4, 7).float() / 10)
    network, net = method.backbone, method.teacher.parts[0]

    def score(h, z):
        return cosine_similarity(h(z), method.prototypes.weight)

    of_tokens, student, teacher = 0.0, [], []
    for i, x in enumerate(data.views[:2]):
        hidden = method.mask(data, i)
        seen = network.tokens(x, hidden=hidden, mask_token=method.mask_token)
        whole = net.tokens(x)
        student.append(score(method.head, seen[:, 0]))
        teacher.append(score(method.teacher.parts[1], whole[:, 0]))
        for b in range(6):
            places = [n for n in range(16) if hidden[b, n]]
            for n in places:
                s = (score(method.head, seen[b, 1 + n][None])[0] / 0.1).log_softmax(dim=0)
                t = score(method.teacher.parts[1], whole[b, 1 + n][None])[0] - method.token_centre.value
                of_tokens -= ((t / 0.04).softmax(dim=0) * s).sum().item() / len(places) / 6 / 2
    student.append(score(method.head, network.tokens(data.views[2])[:, 0]))
    targets = centered_softmax(torch.stack(teacher), method.centre.value, 0.04)
    out = method(data)
    assert out["tokens"].item() == pytest.approx(of_tokens, rel=1e-4)
    assert out["class_token"].item() == pytest.approx(
        cross_view_loss(torch.stack(student) / 0.1, targets).item(), rel=1e-5
    )
    assert out["loss"].item() == pytest.approx((out["tokens"] + out["class_token"]).item(), rel=1e-6)


@pytest.mark.parametrize("kind", [IBOT, DINOv2])
def test_masked_tokens_visible_to_teacher_only(kind):
    method, data = ibot(kind), views()
    hidden = method.mask(data, 0) if kind is IBOT else method.mask(data, 0, data.views[0])
    assert hidden.any()
    x = data.views[0]
    changed = method.backbone.unpatchify(method.backbone.patchify(x).masked_fill(hidden[:, :, None], 3.0))
    told = {"hidden": hidden, "mask_token": method.mask_token}
    assert torch.allclose(method.backbone.tokens(x, **told), method.backbone.tokens(changed, **told), atol=1e-5)
    one, other = method.teacher_scores(x)[1], method.teacher_scores(changed)[1]
    assert not torch.allclose(one[hidden], other[hidden], atol=1e-3)


@pytest.mark.parametrize("kind", [IBOT, DINOv2])
def test_padding_is_no_target(kind):
    torch.manual_seed(0)
    network = ViT((1, 32), width=16, depth=1, heads=2, patch=4)
    method = kind(
        network,
        prototypes=7,
        mask_chance=1.0,
        mask_low=1.0,
        mask_high=1.0,
        **({"koleo": 0.0} if kind is DINOv2 else {}),
    )
    x = numbers(1, 4, 1, 32).float()
    x[:, :, 16:] = float("nan")
    data = Batch([x, x], ["global"] * 2, Draw(0, 0, torch.arange(4)))
    counted = []

    def count(logits, targets, hidden):
        counted.append(hidden.sum().item())
        return masked_token_loss(logits, targets, hidden)

    module = sys.modules[kind.__module__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "masked_token_loss", count)
        method(data)
    assert sum(counted) == 2 * 4 * 4  # of eight windows, four are there


# DINOv2 --------------------------------------------------------------------------------------------------------------


@every_case
def test_koleo_matches_lightly(case):
    x = numbers(10, case["n"], case["d"])
    assert koleo_loss(x).item() == pytest.approx(case["koleo"], rel=EXACT)


def test_koleo_matches_reference_and_properties():
    x = numbers(3, 6, 4)
    unit = (x / x.norm(dim=1, keepdim=True)).numpy()
    nearest = [min(np.linalg.norm(unit[i] - unit[j]) for j in range(6) if j != i) for i in range(6)]
    assert koleo_loss(x).item() == pytest.approx(-np.mean(np.log(nearest)), rel=1e-6)
    assert koleo_loss(5 * x).item() == pytest.approx(koleo_loss(x).item())
    apart = torch.eye(4, dtype=torch.float64)
    assert koleo_loss(apart).item() == pytest.approx(-math.log(math.sqrt(2)), rel=1e-6)
    assert math.isfinite(koleo_loss(torch.ones(4, 3)).item())  # collapse costs, and does not break
    assert koleo_loss(torch.ones(4, 3)) > 10


def test_dino_v2_forward_matches_paper():
    method, data = ibot(DINOv2, koleo=0.3), views(small=1)
    backbone, head, prototypes, token_head, token_prototypes = method.teacher.parts
    hidden = [method.mask(data, i, x) for i, x in enumerate(data.views[:2])]
    seen = [
        method.backbone.tokens(x, hidden=h, mask_token=method.mask_token)
        for x, h in zip(data.views, hidden, strict=False)
    ]
    whole = [backbone.tokens(x) for x in data.views[:2]]
    targets = sinkhorn(torch.cat([prototypes(head(t[:, 0])) for t in whole]), 0.04, 3).view(2, 6, 7)
    classes = [s[:, 0] for s in seen] + [method.backbone.tokens(data.views[2])[:, 0]]
    student = torch.stack([method.prototypes(method.head(c)) for c in classes])
    labels = sinkhorn(
        torch.cat([token_prototypes(token_head(t[:, 1:][h])) for t, h in zip(whole, hidden, strict=True)]), 0.04, 3
    )
    scores = torch.cat(
        [method.token_prototypes(method.token_head(s[:, 1:][h])) for s, h in zip(seen, hidden, strict=True)]
    )
    weights = torch.cat([(1 / h.sum(dim=1, keepdim=True)).expand_as(h)[h] for h in hidden])
    each = -(labels * (scores / 0.1).log_softmax(dim=1)).sum(dim=1)
    out = method(data)
    assert out["class_token"].item() == pytest.approx(cross_view_loss(student / 0.1, targets).item(), rel=1e-4)
    assert out["tokens"].item() == pytest.approx(((each * weights).sum() / 12).item(), rel=1e-4)
    assert out["koleo"].item() == pytest.approx(sum(koleo_loss(c).item() for c in classes[:2]), rel=1e-4)
    total = out["class_token"] + out["tokens"] + 0.3 * out["koleo"]
    assert out["loss"].item() == pytest.approx(total.item(), rel=1e-5)


# ReSSL ---------------------------------------------------------------------------------------------------------------


@every_case
def test_ressl_matches_solo_learn(case):
    q, k, queue = (F.normalize(numbers(s, m, case["d"]), dim=1) for s, m in ((1, case["n"]), (2, case["n"]), (3, 7)))
    assert relation_loss(q, k, queue, 0.1, 0.04).item() == pytest.approx(case["ressl"], rel=EXACT)


def test_relation_loss_matches_reference_and_properties():
    q, k, queue = (F.normalize(numbers(s, m, 3), dim=1) for s, m in ((1, 4), (2, 4), (3, 6)))
    total = 0.0
    for i in range(4):
        target = np.exp([float(k[i] @ m) / 0.04 for m in queue])
        student = np.exp([float(q[i] @ m) / 0.1 for m in queue])
        total -= (target / target.sum() * np.log(student / student.sum())).sum()
    assert relation_loss(q, k, queue, 0.1, 0.04).item() == pytest.approx(total / 4, rel=1e-10)
    assert relation_loss(q, k, queue, 1e9, 0.04).item() == pytest.approx(math.log(6))
    q, k, queue = (t.requires_grad_() for t in (q, k, queue))
    relation_loss(q, k, queue, 0.1, 0.04).backward()
    assert q.grad is not None
    assert k.grad is None
    assert queue.grad is None


def test_ressl_first_view_is_teacher_and_queued():
    method, data = ReSSL(convnet(), queue=8), views(4, kinds=["weak", "global"])
    weak, strong = data.views
    q = F.normalize(method.projector(method.backbone(strong)), dim=1)
    k = F.normalize(method.teacher(weak), dim=1)
    slow = relation_loss(q, k, method.queue.keys, 0.1, 0.04).item()
    assert method(data)["loss"].item() == pytest.approx(slow, rel=1e-5)
    method.after_step(0.5)
    assert torch.allclose(method.queue.keys[:4], k, atol=1e-5)
    assert method.queue.ids.tolist() == [0, 1, 2, 3, -1, -1, -1, -1]


# Distillation --------------------------------------------------------------------------------------------------------


def test_distillation_matches_reference():
    torch.manual_seed(0)
    teacher = Encoder(ConvNet((1, 8, 8), width=8))
    method, data = Distill(convnet(), teacher), views(count=1)
    f = teacher(data.views[0]).double()
    target = (f - f.mean(dim=0)) / (f.var(dim=0, unbiased=False) + 1e-5).sqrt()
    said = method.projector(method.backbone(data.views[0])).double()
    slow = np.mean([(said[b, d].item() - target[b, d].item()) ** 2 for b in range(6) for d in range(teacher.dim)])
    assert method(data)["loss"].item() == pytest.approx(slow, rel=1e-4)


def test_distillation_of_mean_has_loss_one():
    x = numbers(1, 500, 8)
    target = nn.BatchNorm1d(8, affine=False).double()(x)
    assert regression_loss(torch.zeros_like(target), target).item() == pytest.approx(1.0, rel=1e-4)
    assert regression_loss(target, target).item() == 0


def test_distillation_teacher_is_frozen():
    torch.manual_seed(0)
    teacher = Encoder(ConvNet((1, 8, 8), width=8))
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    method, data = Distill(convnet(), teacher).train(), views(count=1)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        method(data)["loss"].backward()
        optimizer.step()
        method.after_step(0.5)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert method.eval_backbone is method.backbone


def test_distillation_lowers_error():
    """A student of the teacher's architecture can match it closely; its features then predict the teacher's."""
    torch.manual_seed(1)
    teacher = Encoder(TCN((1, 16), width=4, depth=1))
    torch.manual_seed(2)
    method = Distill(TCN((1, 16), width=8, depth=2), teacher)
    x = numbers(1, 64, 1, 16).float()
    data = Batch([x], ["global"], Draw(0, 0, torch.arange(64)))
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(200):
        loss = method(data)["loss"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > 0.8
    assert losses[-1] < 0.2


# the teacher is a run ------------------------------------------------------------------------------------------------


def test_teacher_latest_is_resolved_and_kept_on_resume(cli):
    from pathlib import Path

    import yaml

    small = ["experiment=smoke", "device=cpu", "device.threads=1"]
    teacher = Path(cli("pretrain", "backbone.width=8", *small).last).resolve()
    student = cli("pretrain", "method=distill", "method.teacher=latest", "backbone.width=4", *small)
    assert student.code == 0, student.err
    cfg = yaml.safe_load((Path(student.last) / "config.yaml").read_text())
    assert Path(cfg["method"]["teacher"]) == teacher
    teacher.rename(teacher.with_name("moved"))  # the student has a copy
    resumed = cli("resume", student.last, "train.steps=6")
    assert resumed.code == 0, resumed.err
    assert (Path(student.last) / "encoders" / "teacher" / "encoder.json").is_file()
    refused = cli("pretrain", "method=distill", "method.teacher=nobody", *small)
    assert refused.code == 2
    assert "nobody" in refused.err
