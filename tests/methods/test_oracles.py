"""Losses against the papers' formulas written with loops, and their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslcli.backbones.convnet import ConvNet
from sslcli.backbones.vit import ViT
from sslcli.methods.autoencoder import Autoencoder
from sslcli.methods.base import Batch
from sslcli.methods.byol import BYOL, byol_loss
from sslcli.methods.mae import MAE
from sslcli.methods.moco_v2 import MoCoV2, info_nce
from sslcli.methods.simclr import SimCLR, nt_xent
from sslcli.methods.simsiam import SimSiam, simsiam_loss
from sslcli.methods.vicreg import VICReg, vicreg_terms
from sslcli.rng import Draw
from tests.methods.oracles import cos, draws, every_size, images


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: nt_xent(a, b, 0.2),
        lambda a, b: info_nce(a, b, b, 0.2),
        lambda a, b: simsiam_loss(a, b, b, a),
        byol_loss,
        lambda a, b: vicreg_terms(a, b)["covariance"],
    ],
    ids=["nt_xent", "info_nce", "simsiam", "byol", "vicreg"],
)
def test_losses_ignore_autocast(loss):
    a, b = (t.float() for t in draws(16, 8))
    with torch.autocast("cpu", torch.bfloat16):
        under = loss(a, b)
    assert torch.equal(under, loss(a, b))


# SimSiam -------------------------------------------------------------------------------------------------------------


@every_size
def test_simsiam_loss_matches_reference(n, d):
    p1, p2, z1, z2 = draws(n, d, count=4)
    slow = 0.0
    for i in range(n):
        slow += -cos(p1[i].numpy(), z2[i].numpy()) / 2 - cos(p2[i].numpy(), z1[i].numpy()) / 2
    assert simsiam_loss(p1, p2, z1, z2).item() == pytest.approx(slow / n, rel=1e-12)
    assert simsiam_loss(z1, z2, z2, z1).item() == pytest.approx(-1.0)


def test_simsiam_target_has_no_gradient():
    p1, p2, z1, z2 = (t.requires_grad_() for t in draws(4, 3, count=4))
    simsiam_loss(p1, p2, z1, z2).backward()
    assert p1.grad is not None
    assert p2.grad is not None
    assert z1.grad is None
    assert z2.grad is None


def test_simsiam_heads_match_paper():
    wide = nn.Identity()
    wide.dim = 2048
    method = SimSiam(wide)
    assert method.describe()["projector"].startswith("2048-2048-2048-2048")
    assert method.describe()["predictor"].startswith("2048-512-2048 ")
    assert isinstance(method.projector[-1], nn.BatchNorm1d)
    assert not method.projector[-1].affine
    assert SimSiam(ConvNet((1, 8, 8))).describe() == {
        "projector": "128-512-512-512 (auto: 4 x backbone width, at most 2048)",
        "predictor": "512-128-512 (auto: 4 x backbone width, at most 2048)",
    }


# SimCLR --------------------------------------------------------------------------------------------------------------


@every_size
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_matches_reference(n, d, temperature):
    z1, z2 = draws(n, d)
    z = torch.cat([z1, z2]).numpy()
    slow = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        below = sum(math.exp(cos(z[i], z[k]) / temperature) for k in range(2 * n) if k != i)
        slow -= math.log(math.exp(cos(z[i], z[j]) / temperature) / below)
    assert nt_xent(z1, z2, temperature).item() == pytest.approx(slow / (2 * n), rel=1e-10)


def test_nt_xent_properties():
    z1, z2 = draws(6, 4)
    loss = nt_xent(z1, z2, 0.2)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert nt_xent(z2, z1, 0.2).item() == pytest.approx(loss.item())  # swapping the views
    assert nt_xent(z1[order], z2[order], 0.2).item() == pytest.approx(loss.item())  # order of samples
    assert nt_xent(3 * z1, 0.1 * z2, 0.2).item() == pytest.approx(loss.item())  # scale
    assert nt_xent(z1, z2, 1e9).item() == pytest.approx(math.log(11))  # no preference: ln(2 N - 1)
    one = torch.ones(6, 4, dtype=torch.float64)
    assert nt_xent(one, one, 0.2).item() == pytest.approx(math.log(11))  # collapse
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5), (z1.requires_grad_(), z2.requires_grad_()))


# MoCo ----------------------------------------------------------------------------------------------------------------


@every_size
def test_info_nce_matches_reference(n, d):
    q, k, queue = (F.normalize(t, dim=1) for t in [*draws(n, d), *draws(9, d, count=1)])
    ignore = torch.zeros(n, 9, dtype=torch.bool)
    ignore[0, 2] = ignore[1, 5] = True
    slow = 0.0
    for i in range(n):
        positive = math.exp(float(q[i] @ k[i]) / 0.2)
        negative = sum(math.exp(float(q[i] @ queue[m]) / 0.2) for m in range(9) if not ignore[i, m])
        slow -= math.log(positive / (positive + negative))
    assert info_nce(q, k, queue, 0.2, ignore).item() == pytest.approx(slow / n, rel=1e-10)


def test_moco_queue_holds_teacher_keys_and_skips_own_sample():
    method = MoCoV2(ConvNet((1, 8, 8), width=4), queue=10)
    first, second = images(4), images(4, epoch=1)
    method(first)
    method.queue.push()
    keys = F.normalize(method.teacher(first.views[1]), dim=1)
    assert torch.allclose(method.queue.keys[:4], keys, atol=1e-6)
    assert method.queue.ids.tolist() == [0, 1, 2, 3] + [-1] * 6
    before = method.queue.keys.clone()
    q = F.normalize(method.projector(method.backbone(second.views[0])), dim=1)
    k = F.normalize(method.teacher(second.views[1]), dim=1)
    others = torch.stack([torch.cat([before[[j for j in range(4) if j != i]], before[4:]]) for i in range(4)])
    slow = torch.stack([info_nce(q[i : i + 1], k[i : i + 1], others[i], 0.2) for i in range(4)]).mean()
    assert method(second)["loss"].item() == pytest.approx(slow.item(), rel=1e-5)
    method.eval()(second)
    method.queue.push()
    assert method.queue.head.item() == 8, "an evaluation does not push"


# BYOL ----------------------------------------------------------------------------------------------------------------


@every_size
def test_byol_loss_matches_reference(n, d):
    q, t = draws(n, d)
    slow = 0.0
    for i in range(n):
        a, b = q[i].numpy() / np.linalg.norm(q[i].numpy()), t[i].numpy() / np.linalg.norm(t[i].numpy())
        slow += float(((a - b) ** 2).sum())
    assert byol_loss(q, t).item() == pytest.approx(slow / n, rel=1e-12)


def test_byol_loss_sums_both_directions():
    method, data = BYOL(ConvNet((1, 8, 8), width=4)), images(6)
    x1, x2 = data.views
    q1, q2 = (method.predictor(method.projector(method.backbone(x))) for x in (x1, x2))
    t1, t2 = method.teacher(x1), method.teacher(x2)
    assert method(data)["loss"].item() == pytest.approx((byol_loss(q1, t2) + byol_loss(q2, t1)).item(), rel=1e-5)


@pytest.mark.parametrize("kind", [BYOL, MoCoV2])
def test_teacher_is_ema_and_student_is_evaluated(kind):
    method = kind(ConvNet((1, 8, 8), width=4), tau=0.9, tau_end=0.9)
    assert method.eval_backbone is method.backbone
    old = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(1.0)
    method.after_step(0.3)
    students = [*method.backbone.parameters(), *method.projector.parameters()]
    for before, student, now in zip(old, students, method.teacher.parameters(), strict=True):
        assert torch.allclose(now, 0.9 * before + 0.1 * student, atol=1e-6)


def test_byol_teacher_constant_at_end():
    method = BYOL(ConvNet((1, 8, 8), width=4))
    old = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(1.0)
    method.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(old, method.teacher.parameters(), strict=True))


# VICReg --------------------------------------------------------------------------------------------------------------


@every_size
def test_vicreg_terms_matches_reference(n, d):
    z1, z2 = (z.numpy() for z in draws(n, d))
    invariance = sum((z1[i, j] - z2[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (z1, z2):
        mean = [sum(z[:, j]) / n for j in range(d)]
        for a in range(d):
            for b in range(d):
                c = sum((z[i, a] - mean[a]) * (z[i, b] - mean[b]) for i in range(n)) / (n - 1)
                if a == b:
                    variance += max(0.0, 1 - math.sqrt(c + 1e-4)) / d / 2
                else:
                    covariance += c**2 / d
    terms = vicreg_terms(*draws(n, d))
    assert terms["invariance"].item() == pytest.approx(invariance, rel=1e-12)
    assert terms["variance"].item() == pytest.approx(variance, rel=1e-12, abs=1e-15)
    assert terms["covariance"].item() == pytest.approx(covariance, rel=1e-10, abs=1e-15)


def test_vicreg_weights_terms():
    method = VICReg(ConvNet((1, 8, 8), width=4), invariance=2.0, variance=3.0, covariance=5.0)
    out = method(images(6))
    weighed = 2 * out["invariance"] + 3 * out["variance"] + 5 * out["covariance"]
    assert out["loss"].item() == pytest.approx(weighed.item(), rel=1e-6)


def test_vicreg_penalizes_collapse():
    one = torch.ones(5, 4, dtype=torch.float64)
    assert vicreg_terms(one, one)["variance"].item() == pytest.approx(1 - 1e-2)


# Autoencoder ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 13, 9), (2, 33, 33)])
def test_autoencoder_loss_is_reconstruction_error(shape):
    method = Autoencoder(ConvNet(shape, width=4), width=4).eval()
    data = images(3, views=1, kind="weak", shape=shape)
    source, drawn = method.figures(data)["reconstruction"].values()
    slow = np.mean((source.numpy() - drawn.numpy()) ** 2)
    assert method(data)["loss"].item() == pytest.approx(float(slow), rel=1e-5)


# MAE -----------------------------------------------------------------------------------------------------------------


def masked(norm_pix: bool, shape=(2, 8, 8)) -> tuple[MAE, Batch]:
    torch.manual_seed(0)
    method = MAE(ViT(shape, width=16, depth=1, heads=2, patch=2), norm_pix=norm_pix).eval()
    return method, images(3, views=1, kind="weak", shape=shape)


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 14)])
def test_mae_loss_matches_reference(norm_pix, shape):
    method, data = masked(norm_pix, shape)
    x = data.views[0]
    predicted, hidden = method.predict(x, data.uniform("mask", method.backbone.num_tokens))
    patches, total, count = method.backbone.patchify(x).numpy(), 0.0, 0
    for b in range(len(x)):
        for n in range(patches.shape[1]):
            if hidden[b, n]:
                target = patches[b, n]
                if norm_pix:
                    target = (target - target.mean()) / math.sqrt(target.var(ddof=1) + 1e-6)
                total += float(((predicted[b, n].detach().numpy() - target) ** 2).mean())
                count += 1
    assert method(data)["loss"].item() == pytest.approx(total / count, rel=1e-5)


def test_mae_prediction_ignores_masked_values():
    method, data = masked(norm_pix=True)
    x = data.views[0]
    scores = data.uniform("mask", 16)
    predicted, hidden = method.predict(x, scores)
    patches = method.backbone.patchify(x).masked_fill(hidden[:, :, None], 9.0)
    again, _ = method.predict(method.backbone.unpatchify(patches), scores)
    assert torch.allclose(predicted, again, atol=1e-6)
    assert hidden.sum(dim=1).tolist() == [12, 12, 12]


def test_mae_mask_is_a_function_of_the_sample():
    method, _ = masked(norm_pix=True)
    three, one = Draw(4, 2, torch.tensor([7, 8, 9])), Draw(4, 2, torch.tensor([8]))
    x = draws(3, 2, 8, 8, count=1)[0].float()
    _, all_three = method.predict(x, Batch([x], ["weak"], three).uniform("mask", 16))
    _, alone = method.predict(x[1:2], Batch([x[1:2]], ["weak"], one).uniform("mask", 16))
    assert torch.equal(all_three[1], alone[0])


@pytest.mark.parametrize("norm_pix", [True, False])
def test_mae_figures_keep_visible_and_denormalize_predicted(norm_pix):
    method, data = masked(norm_pix)
    source, without, filled = method.figures(data)["reconstruction"].values()
    predicted, hidden = method.predict(data.views[0], data.uniform("mask", 16))
    cut = method.backbone.patchify
    assert torch.equal(cut(filled)[~hidden], cut(source)[~hidden])
    assert (cut(without)[hidden] == 0).all()
    drawn = predicted
    if norm_pix:
        patches = cut(source)
        drawn = predicted * (patches.var(dim=2, keepdim=True) + 1e-6).sqrt() + patches.mean(dim=2, keepdim=True)
    assert torch.allclose(cut(filled)[hidden], drawn[hidden], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 2)])
def test_mae_keeps_and_masks_at_least_one_token(shape):
    method = MAE(ViT(shape, width=16, depth=1, heads=2, patch=1))
    out = method(images(2, views=1, kind="weak", shape=shape))
    assert method.keep == 1
    assert torch.isfinite(out["loss"])


def test_invalid_widths_are_rejected():
    for make in (lambda b: SimCLR(b, proj_dim=0), lambda b: SimSiam(b, proj_dim="wide"), lambda b: MoCoV2(b, queue=0)):
        with pytest.raises(ValueError, match=r"at least|positive"):
            make(ConvNet((1, 8, 8), width=4))
