"""Contrastive losses against reference formulas and other implementations, and their properties."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from golden_inputs import load, numbers

from sslcli.backbones.convnet import ConvNet
from sslcli.methods.base import DataInfo
from sslcli.methods.dcl import DCL, decoupled_contrastive_loss
from sslcli.methods.instance_discrimination import InstanceDiscrimination, instance_loss
from sslcli.methods.moco_v3 import MoCoV3, contrastive_loss
from sslcli.methods.nnclr import NNCLR, nearest_neighbor_loss
from sslcli.methods.simclr import nt_xent
from sslcli.methods.supcon import supcon_loss
from tests.methods.oracles import cos, draws, every_size, images

CASES = load("contrastive")["cases"]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['n']}x{c['d']}")
EXACT = 1e-10


def small() -> ConvNet:
    return ConvNet((1, 8, 8), width=4)


# DCL -----------------------------------------------------------------------------------------------------------------


@every_case
def test_dcl_matches_lightly(case):
    z1, z2 = numbers(1, case["n"], case["d"]), numbers(2, case["n"], case["d"])
    for temperature, loss in case["dcl"].items():
        assert decoupled_contrastive_loss(z1, z2, float(temperature)).item() == pytest.approx(loss, rel=EXACT)
    assert decoupled_contrastive_loss(z1, z2, 0.1, 0.5).item() == pytest.approx(case["dclw"], rel=EXACT)


@every_size
@pytest.mark.parametrize("sigma", [None, 0.5])
def test_dcl_matches_reference(n, d, sigma):
    z1, z2 = (z.numpy() for z in draws(n, d))
    closeness = [1.0 if sigma is None else math.exp(cos(z1[i], z2[i]) / sigma) for i in range(n)]
    total = 0.0
    for anchors, same, other in ((z1, z1, z2), (z2, z2, z1)):
        for i in range(n):
            below = sum(
                math.exp(cos(anchors[i], same[k]) / 0.2) + math.exp(cos(anchors[i], other[k]) / 0.2)
                for k in range(n)
                if k != i
            )
            weight = 1.0 if sigma is None else 2 - closeness[i] / (sum(closeness) / n)
            total += -weight * cos(z1[i], z2[i]) / 0.2 + math.log(below)
    assert decoupled_contrastive_loss(*draws(n, d), 0.2, sigma).item() == pytest.approx(total / (2 * n), rel=1e-10)


def test_dcl_properties():
    z1, z2 = draws(6, 4)
    loss = decoupled_contrastive_loss(z1, z2, 0.2)
    assert decoupled_contrastive_loss(z2, z1, 0.2).item() == pytest.approx(loss.item())
    assert decoupled_contrastive_loss(3 * z1, 0.1 * z2, 0.2).item() == pytest.approx(loss.item())
    one = torch.ones(6, 4, dtype=torch.float64)
    assert decoupled_contrastive_loss(one, one, 0.2).item() == pytest.approx(
        math.log(10) + 5 - 5
    )  # collapse: ln(2 N - 2)
    assert decoupled_contrastive_loss(z1, z2, 0.2) < nt_xent(z1, z2, 0.2), "the denominator has lost a term"
    assert torch.autograd.gradcheck(
        lambda a, b: decoupled_contrastive_loss(a, b, 0.5), (z1.requires_grad_(), z2.requires_grad_())
    )


def test_dcl_weighting_is_optional():
    torch.manual_seed(0)
    plain = DCL(small(), sigma=0.1)
    weighted = DCL(plain.backbone, sigma=0.1, weighted=True)
    weighted.projector = plain.projector
    assert plain(images(6))["loss"] != weighted(images(6))["loss"]
    assert plain.sigma is None


# MoCo v3 -------------------------------------------------------------------------------------------------------------


@every_case
def test_moco_v3_loss_is_cross_entropy(case):
    z1, z2 = numbers(1, case["n"], case["d"]), numbers(2, case["n"], case["d"])
    assert contrastive_loss(z1, z2, 0.2).item() == pytest.approx(0.4 * case["cross_entropy"], rel=EXACT)


@every_size
def test_moco_v3_loss_matches_reference(n, d):
    q, k = (z.numpy() for z in draws(n, d))
    total = 0.0
    for i in range(n):
        below = sum(math.exp(cos(q[i], k[j]) / 0.3) for j in range(n))
        total -= math.log(math.exp(cos(q[i], k[i]) / 0.3) / below)
    assert contrastive_loss(*draws(n, d), 0.3).item() == pytest.approx(2 * 0.3 * total / n, rel=1e-10)


def test_moco_v3_keys_detached_and_symmetric():
    q, k = (t.requires_grad_() for t in draws(4, 3))
    contrastive_loss(q, k, 0.2).backward()
    assert k.grad is None
    assert q.grad is not None
    method, data = MoCoV3(small()), images(6)
    x1, x2 = data.views
    q1, q2 = (method.predictor(method.projector(method.backbone(x))) for x in (x1, x2))
    slow = contrastive_loss(q1, method.teacher(x2), 0.2) + contrastive_loss(q2, method.teacher(x1), 0.2)
    assert method(data)["loss"].item() == pytest.approx(slow.item(), rel=1e-5)


def test_moco_v3_freezes_patch_projection():
    from sslcli.backbones.vit import ViT

    method = MoCoV3(ViT((1, 8, 8), width=16, depth=1, heads=2), freeze_patches=True)
    assert not any(p.requires_grad for p in method.backbone.patch_embed.parameters())
    with pytest.raises(ValueError, match="vision transformer"):
        MoCoV3(small(), freeze_patches=True)


# NNCLR ---------------------------------------------------------------------------------------------------------------


@every_size
def test_nnclr_loss_matches_reference(n, d):
    nearest, p = (z.numpy() for z in draws(n, d))
    total = 0.0
    for i in range(n):
        below = sum(math.exp(cos(nearest[i], p[k]) / 0.2) for k in range(n))
        total -= math.log(math.exp(cos(nearest[i], p[i]) / 0.2) / below)
    assert nearest_neighbor_loss(*draws(n, d), 0.2).item() == pytest.approx(total / n, rel=1e-10)


def test_nnclr_neighbors_are_filled_and_of_other_samples():
    method = NNCLR(small(), queue=8)
    width = method.queue.keys.shape[1]
    z = torch.randn(3, width)
    assert torch.allclose(method.nearest_neighbors(z, torch.arange(3)), F.normalize(z, dim=1)), "an empty queue"
    keys = F.normalize(torch.cat([z, torch.randn(2, width)]), dim=1)
    method.queue.stage(keys, torch.tensor([0, 1, 2, 7, 8]))
    method.queue.push()
    found = method.nearest_neighbors(z, torch.arange(3))
    for i in range(3):  # by hand: the nearest of the five that is not i's own
        likeness = [cos(z[i].numpy(), k.numpy()) if j != i else -2.0 for j, k in enumerate(keys)]
        assert torch.equal(found[i], keys[likeness.index(max(likeness))])


def test_nnclr_without_neighbors_uses_views():
    torch.manual_seed(0)
    method, data = NNCLR(small(), queue=8), images(6)
    z1, z2 = (method.projector(method.backbone(x)) for x in data.views)
    p1, p2 = method.predictor(z1), method.predictor(z2)
    across = (nearest_neighbor_loss(z1, p2, 0.2) + nearest_neighbor_loss(z2, p1, 0.2)) / 2
    assert method(data)["loss"].item() == pytest.approx(across.item(), rel=1e-5)


def test_nnclr_gradient_reaches_predictions_only():
    n, p = (t.requires_grad_() for t in draws(4, 3))
    nearest_neighbor_loss(n, p, 0.2).backward()
    assert n.grad is None
    assert p.grad is not None


# instance discrimination ---------------------------------------------------------------------------------------------


def test_instance_loss_matches_reference():
    v, memory = (F.normalize(t, dim=1) for t in (draws(4, 6)[0], draws(9, 6)[1]))
    ids = torch.tensor([3, 0, 8, 5])
    total = 0.0
    for i in range(4):
        below = sum(math.exp(float(v[i] @ memory[j]) / 0.1) for j in range(9))
        total -= math.log(math.exp(float(v[i] @ memory[ids[i]]) / 0.1) / below)
    assert instance_loss(v, memory, ids, 0.1).item() == pytest.approx(total / 4, rel=1e-10)


def test_memory_updates_after_step_for_batch_only():
    torch.manual_seed(0)
    method = InstanceDiscrimination(small(), DataInfo(10, 0, 1), proj_dim=8, momentum=0.25)
    data = images(4, views=1)
    before = method.memory.keys.clone()
    v = F.normalize(method.projector(method.backbone(data.views[0])), dim=1)
    method(data)
    assert torch.equal(method.memory.keys, before)
    method.after_step(0.1)
    assert torch.allclose(method.memory.keys[:4], F.normalize(0.25 * before[:4] + 0.75 * v, dim=1), atol=1e-6)
    assert torch.equal(method.memory.keys[4:], before[4:])
    method.eval()(data)
    moved = method.memory.keys.clone()
    method.after_step(0.2)
    assert torch.equal(method.memory.keys, moved), "an evaluation leaves no trace"


# SupCon --------------------------------------------------------------------------------------------------------------


@every_case
def test_supcon_matches_metric_learning(case):
    z1, z2 = numbers(1, case["n"], case["d"]), numbers(2, case["n"], case["d"])
    labels = torch.arange(case["n"]) % 3
    assert supcon_loss(z1, z2, labels, 0.2).item() == pytest.approx(case["supcon"], rel=1e-9)
    unlabelled = torch.full((case["n"],), -1)
    assert supcon_loss(z1, z2, unlabelled, 0.2).item() == pytest.approx(case["supcon_unlabelled"], rel=EXACT)


def test_supcon_with_partial_labels_matches_reference():
    z1, z2 = draws(5, 4)
    labels = torch.tensor([0, 1, 0, -1, -1])
    z, y = torch.cat([z1, z2]).numpy(), [0, 1, 0, 10, 11] * 2
    total = 0.0
    for i in range(10):
        below = sum(math.exp(cos(z[i], z[a]) / 0.2) for a in range(10) if a != i)
        positives = [p for p in range(10) if p != i and y[p] == y[i]]
        total -= sum(math.log(math.exp(cos(z[i], z[p]) / 0.2) / below) for p in positives) / len(positives)
    assert supcon_loss(z1, z2, labels, 0.2).item() == pytest.approx(total / 10, rel=1e-10)
