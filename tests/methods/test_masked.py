"""Masked prediction (SimMIM, data2vec, I-JEPA, autoregression): masks, and losses against reference formulas."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from golden_inputs import fill, load, numbers, uniform

from sslcli.backbones.vit import ViT
from sslcli.methods.autoregressive import Autoregressive, causal
from sslcli.methods.data2vec import Data2Vec
from sslcli.methods.i_jepa import IJEPA
from sslcli.methods.simmim import SimMIM
from sslcli.nn.block_masks import block_mask
from sslcli.nn.masking import exclude_padding, random_keep
from sslcli.nn.patches import masked_l1, smooth_l1
from tests.methods.oracles import draws, images

SHAPES = [(2, 8, 8), (3, 14)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def vit(shape) -> ViT:
    torch.manual_seed(0)
    return ViT(shape, width=16, depth=3, heads=2, patch=2)


def one(shape, n: int = 3):
    return images(n, views=1, kind="weak", shape=shape)


# losses --------------------------------------------------------------------------------------------------------------


def test_l1_matches_reference():
    predicted, target = draws(2, 3, 4)
    target[0, 1, 2] = float("nan")
    where = torch.tensor([[True, True, False], [False, True, True]])[:, :, None]
    total, count = 0.0, 0
    for b in range(2):
        for n in range(3):
            for p in range(4):
                if where[b, n, 0] and target[b, n, p] == target[b, n, p]:
                    total += abs(predicted[b, n, p].item() - target[b, n, p].item())
                    count += 1
    assert masked_l1(predicted, target, where).item() == pytest.approx(total / count, rel=1e-12)
    assert masked_l1(predicted, target, where & False).item() == 0


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_smooth_l1_matches_torch(beta):
    predicted, target = draws(2, 3, 4)
    where = torch.tensor([[True, False, False], [True, True, True]])
    wanted = F.smooth_l1_loss(predicted[where], target[where], beta=beta)
    assert smooth_l1(predicted, target, where, beta).item() == pytest.approx(wanted.item(), rel=1e-12)


@pytest.mark.parametrize(("size", "share"), [((6, 8), 0.5), ((12,), 0.3), ((4, 4), 0.99), ((2, 2), 0.01)])
def test_block_masks_have_one_size_and_are_inside(size, share):
    places = torch.rand(50, len(size), generator=torch.Generator().manual_seed(0))
    found = block_mask(places, size, share)
    wanted = [min(max(1, round(s * share)), s - 1) for s in size]
    for one_ in found:
        at = one_.nonzero()
        spans = (at.max(dim=0).values - at.min(dim=0).values + 1).tolist()
        assert spans == wanted
        assert len(at) == torch.tensor(wanted).prod()
    assert found.any(dim=0).all(), "every place is covered by some block"


# SimMIM --------------------------------------------------------------------------------------------------------------


@every_shape
def test_simmim_loss_matches_reference_and_ignores_masked(shape):
    method, data = SimMIM(vit(shape)).eval(), one(shape)
    x = data.views[0]
    scores = data.uniform("mask", method.backbone.num_tokens)
    predicted, hidden = method.predict(x, scores)
    patches = method.backbone.patchify(x)
    total = sum(
        (predicted[b, n] - patches[b, n]).abs().mean().item()
        for b in range(3)
        for n in range(patches.shape[1])
        if hidden[b, n]
    )
    assert method(data)["loss"].item() == pytest.approx(total / hidden.sum().item(), rel=1e-5)
    other = method.backbone.unpatchify(patches.masked_fill(hidden[:, :, None], 9.0))
    assert torch.allclose(predicted, method.predict(other, scores)[0], atol=1e-6)


# data2vec ------------------------------------------------------------------------------------------------------------


@every_shape
def test_data2vec_target_and_loss_matches_reference(shape):
    method, data = Data2Vec(vit(shape), top=2).eval(), one(shape)
    x = data.views[0]
    with torch.no_grad():
        for p in method.teacher.parameters():
            p.add_(0.01)
    teacher = method.teacher.parts[0]
    depths = [d - d.mean(dim=2, keepdim=True) for d in teacher.depths(x)[-2:]]
    depths = [d / (d.var(dim=2, unbiased=False, keepdim=True) + 1e-5).sqrt() for d in depths]
    target = ((depths[0] + depths[1]) / 2)[:, 1:]
    assert torch.allclose(method.target(x), target, atol=1e-5)
    scores = data.uniform("mask", method.backbone.num_tokens)
    hidden = torch.ones_like(scores, dtype=torch.bool).scatter(1, scores.argsort(dim=1)[:, : method.keep], False)
    student = method.regress(method.backbone.tokens(x, hidden=hidden, mask_token=method.mask_token)[:, 1:])
    wanted = F.smooth_l1_loss(student[hidden], target[hidden], beta=2.0)
    assert method(data)["loss"].item() == pytest.approx(wanted.item(), rel=1e-4)


def padded_series(tail: float = float("nan")):
    """Series of 14 steps, of which the first sample has 4 and the second 10, with `tail` after them."""
    data = one((3, 14))
    x = data.views[0].clone()
    x[0, :, 4:], x[1, :, 10:] = tail, tail
    data.views = [x]
    return data


def test_data2vec_does_not_predict_padding():
    method, data = Data2Vec(vit((3, 14)), top=2).eval(), padded_series()
    x = data.views[0]
    _, hidden = random_keep(data.uniform("mask", method.backbone.num_tokens), method.keep)
    present = torch.tensor([[True] * 2 + [False] * 5, [True] * 5 + [False] * 2, [True] * 7])
    assert (hidden & ~present).any(), "some padding is masked, or this test shows nothing"
    student = method.regress(method.backbone.tokens(x, hidden=hidden, mask_token=method.mask_token)[:, 1:])
    counted = hidden & present
    wanted = F.smooth_l1_loss(student[counted], method.target(x)[counted], beta=2.0)
    assert method(data)["loss"].item() == pytest.approx(wanted.item(), rel=1e-4)
    everything = F.smooth_l1_loss(student[hidden], method.target(x)[hidden], beta=2.0)
    assert abs(everything.item() - wanted.item()) > 1e-3


def test_data2vec_of_padding_alone_has_no_loss():
    method, data = Data2Vec(vit((3, 14))), one((3, 14))
    data.views = [torch.full_like(data.views[0], float("nan"))]
    loss = method(data)["loss"]
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in method.parameters())


def test_data2vec_of_images_has_its_bits():
    """No image has padding: the mask of the loss is the same object."""
    method, data = Data2Vec(vit((2, 8, 8))), one((2, 8, 8))
    assert method.backbone.present(data.views[0]) is None
    _, hidden = random_keep(data.uniform("mask", method.backbone.num_tokens), method.keep)
    assert exclude_padding(hidden, None) is hidden


def test_data2vec_teacher_is_unmasked_ema():
    method, data = Data2Vec(vit((2, 8, 8)), tau=0.9, tau_end=0.9), one((2, 8, 8))
    method(data)["loss"].backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    old = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(1.0)
    method.after_step(0.5)
    for before, student, now in zip(old, method.backbone.parameters(), method.teacher.parameters(), strict=True):
        assert torch.allclose(now, 0.9 * before + 0.1 * student, atol=1e-6)


# I-JEPA --------------------------------------------------------------------------------------------------------------


@every_shape
def test_i_jepa_context_excludes_targets(shape):
    method, data = IJEPA(vit(shape), predictor_dim=16).eval(), one(shape, n=5)
    x, network = data.views[0], method.backbone
    places = data.uniform("blocks", method.targets, len(network.grid))
    blocks = [block_mask(places[:, t], network.grid, method.side).flatten(1) for t in range(method.targets)]
    covered = torch.stack(blocks).any(dim=0)
    context, keep, seen = method.context(x, covered)
    assert (seen.sum(dim=1) == (~covered).sum(dim=1)).all(), "all that is not covered is context"
    other = network.unpatchify(network.patchify(x).masked_fill(covered[:, :, None], 5.0))
    again, _, _ = method.context(other, covered)
    assert torch.allclose(context[seen], again[seen], atol=1e-6)
    at = blocks[0].nonzero()[:, 1].view(5, -1)
    said = method.predict(context, keep, seen, at)
    assert torch.allclose(said, method.predict(again, keep, seen, at), atol=1e-5)


@every_shape
def test_i_jepa_loss_matches_reference(shape):
    method, data = IJEPA(vit(shape), targets=2, predictor_dim=16).eval(), one(shape)
    x, network = data.views[0], method.backbone
    goal = method.teacher.parts[0].tokens(x)[:, 1:]
    goal = F.layer_norm(goal, goal.shape[-1:])
    places = data.uniform("blocks", 2, len(network.grid))
    blocks = [block_mask(places[:, t], network.grid, method.side).flatten(1) for t in range(2)]
    context, keep, seen = method.context(x, torch.stack(blocks).any(dim=0))
    total = 0.0
    for inside in blocks:
        for b in range(3):
            at = inside[b].nonzero().flatten()
            said = method.predict(context[b : b + 1], keep[b : b + 1], seen[b : b + 1], at[None])[0]
            total += F.smooth_l1_loss(said, goal[b, at]).item()
    assert method(data)["loss"].item() == pytest.approx(total / 6, rel=1e-4)


def test_i_jepa_eval_backbone_is_teacher():
    method = IJEPA(vit((2, 8, 8)), predictor_dim=16)
    assert method.eval_backbone is method.teacher.parts[0]
    with pytest.raises(ValueError, match="multiple of 16"):
        IJEPA(vit((2, 8, 8)), predictor_dim=20)


# autoregression ------------------------------------------------------------------------------------------------------


def test_causal_matches_reference():
    found = causal(torch.tensor([1, 3]), 1, 5)
    for b, length in enumerate((1, 3)):
        for row in range(-1, 5):
            for column in range(-1, 5):
                allowed = column < length or (row >= 0 and column <= row)
                assert found[b, row + 1, column + 1] == allowed, (length, row, column)


@every_shape
def test_causal_attention_ignores_later_tokens(shape):
    method, data = Autoregressive(vit(shape)).eval(), one(shape)
    x, network = data.views[0], method.backbone
    length = torch.tensor([1, 2, 4])
    said = method.next(x, length)
    for at in range(4, network.num_tokens):
        patches = network.patchify(x)
        patches[:, at] += 1.0
        again = method.next(network.unpatchify(patches), length)
        assert torch.allclose(said[:, :at], again[:, :at], atol=1e-6)
        assert not torch.allclose(said[:, at], again[:, at], atol=1e-4)


@every_shape
def test_autoregressive_loss_matches_reference(shape):
    method, data = Autoregressive(vit(shape)).eval(), one(shape)
    x, n = data.views[0], method.backbone.num_tokens
    length = 1 + (data.uniform("prefix") * (n - 1)).long()
    said, patches = method.next(x, length), method.backbone.patchify(x)
    total, count = 0.0, 0
    for b in range(3):
        for at in range(int(length[b]), n):
            total += (said[b, at - 1] - patches[b, at]).square().mean().item()
            count += 1
    assert method(data)["loss"].item() == pytest.approx(total / count, rel=1e-4)


@every_shape
def test_completion_uses_first_half_only(shape):
    method, data = Autoregressive(vit(shape)).eval(), one(shape)
    found = method.reconstruct(data)
    other = torch.where(found.hidden, found.source + 3, found.source)
    data.views[0] = other
    assert torch.allclose(method.reconstruct(data).predicted, found.predicted, atol=1e-5)
    first = method.backbone.num_tokens // 2
    hidden = method.backbone.patchify(found.hidden.float())[:, :, 0]
    assert hidden[:, :first].sum() == 0
    assert (hidden[:, first:] == 1).all()


# transformers' ViTForMaskedImageModeling ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", load("masked")["cases"], ids=["colour", "grey"])
def test_simmim_matches_transformers(case):
    network = ViT((case["channels"], 8, 8), width=16, depth=2, heads=2, patch=2, positions="learned")
    method = fill(SimMIM(network), 20)
    x = numbers(5, 3, case["channels"], 8, 8)
    predicted, hidden = method.predict(x, uniform(6, 3, 16))
    drawn = torch.tensor(case["drawn"], dtype=torch.float64).view_as(x)
    assert torch.allclose(network.unpatchify(predicted), drawn, rtol=0, atol=1e-10)
    loss = masked_l1(predicted, network.patchify(x), hidden[:, :, None])
    assert loss.item() == pytest.approx(case["loss"], rel=1e-7)  # theirs adds 1e-5 to the count, in float32
