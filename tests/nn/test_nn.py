"""Shared layers and functions against reference implementations or known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslcli.nn.decoder import ConvDecoder, UpsampleConv
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.heads import head_width, mlp
from sslcli.nn.likelihood import Categorical, ColumnSlices, Mixed
from sslcli.nn.losses import masked_mse
from sslcli.nn.masking import random_keep, visible_count
from sslcli.nn.precision import full_precision
from sslcli.nn.queue import Queue
from sslcli.nn.stats import covariance, off_diagonal, spread
from sslcli.nn.transformer import Attention, sine_positions


def test_spread_of_noise_and_collapse():
    torch.manual_seed(0)
    assert spread(torch.randn(4000, 64)).item() == pytest.approx(1, abs=0.02)
    assert spread(torch.ones(8, 5)).item() == pytest.approx(0, abs=1e-6)
    line = torch.randn(4000, 1) * torch.ones(1, 64)  # one direction and its opposite: every entry is +-1/8
    assert spread(line).item() == pytest.approx(1, abs=0.02)
    assert spread(torch.randn(16, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_covariance_matches_numpy_and_off_diagonal():
    z = torch.randn(7, 4, dtype=torch.float64)
    assert np.allclose(covariance(z).numpy(), np.cov(z.numpy(), rowvar=False))
    m = torch.arange(9.0).view(3, 3)
    assert off_diagonal(m).tolist() == [1, 2, 3, 5, 6, 7]
    assert off_diagonal(torch.ones(1, 1)).tolist() == []


def test_heads():
    plain = mlp(4, 8, 3, norm=False)
    assert [type(m).__name__ for m in plain] == ["Linear", "ReLU", "Linear"]
    assert plain[0].bias is not None
    assert plain[2].bias is not None
    full = mlp(4, 8, 8, 3, last_norm="plain")
    assert [type(m).__name__ for m in full] == [*["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear", "BatchNorm1d"]
    assert all(m.bias is None for m in full if isinstance(m, nn.Linear))
    assert not full[-1].affine
    assert mlp(4, 3, last_norm="affine")[-1].affine
    assert full.describe() == "4-8-8-3"
    auto = mlp(4, head_width("auto", 2048, 4), head_width("auto", 256, 4), head_width(3, 99, 4))
    assert auto.describe() == "4-16-16-3 (auto: 4 x backbone width, at most 2048, 256)"


@pytest.mark.parametrize(
    ("asked", "dim", "width"), [("auto", 128, 512), ("auto", 512, 2048), ("auto", 2048, 2048), (7, 128, 7)]
)
def test_auto_width(asked, dim, width):
    assert head_width(asked, 2048, dim) == width


def test_cosine_momentum_schedule():
    assert cosine_momentum(0, 0.99, 1.0) == 0.99
    assert cosine_momentum(1, 0.99, 1.0) == 1.0
    assert cosine_momentum(0.5, 0.9, 1.0) == pytest.approx(0.95)
    steps = [cosine_momentum(p / 20, 0.99, 1.0) for p in range(21)]
    assert steps == sorted(steps)
    for k, tau in enumerate(steps):  # BYOL, Sec. 3.3
        assert tau == pytest.approx(1 - (1 - 0.99) * (math.cos(math.pi * k / 20) + 1) / 2)


def test_teacher_averages_weights_and_handles_buffers():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    own, copying = Teacher(net), Teacher(net, copy_buffers=True)
    assert not any(p.requires_grad for p in own.parameters())
    net(torch.randn(9, 3))  # moves the student's running statistics
    with torch.no_grad():
        net[0].weight.add_(1)
    old = own.parts[0][0].weight.clone()
    for teacher in (own, copying):
        teacher.update(net, momentum=0.75)
        assert torch.allclose(teacher.parts[0][0].weight, old + 0.25)
    assert own.parts[0][1].num_batches_tracked == 0
    assert torch.equal(copying.parts[0][1].running_mean, net[1].running_mean)
    assert not own(torch.randn(9, 3, requires_grad=True)).requires_grad
    assert own.parts[0][1].num_batches_tracked == 1, "its own batches"


def test_queue_is_first_in_first_out():
    queue, slow = Queue(5, 2), []
    assert torch.allclose(queue.keys.norm(dim=1), torch.ones(5))
    for step, n in enumerate([2, 2, 3, 7, 1]):
        ids = torch.arange(n) + 10 * step
        before = queue.keys.clone()
        for part in ids.split(3):  # a step may be of several micro-batches
            queue.stage(part[:, None].float().expand(-1, 2), part)
        assert torch.equal(queue.keys, before), "within a step it stands still"
        queue.push()
        slow = (slow + ids.tolist())[-5:]
        filled = queue.ids[queue.ids >= 0].tolist()
        assert sorted(filled) == sorted(slow)
        assert queue.keys[queue.ids >= 0][:, 0].tolist() == filled
    assert queue.head.item() == 15 % 5
    queue.stage(torch.zeros(1, 2), torch.tensor([99]))
    queue.discard()
    queue.push()
    assert 99 not in queue.ids
    again = Queue(5, 2)
    again.load_state_dict(queue.state_dict())
    assert torch.equal(again.ids, queue.ids)


@pytest.mark.parametrize(
    ("tokens", "ratio", "keep"), [(196, 0.75, 49), (16, 0.75, 4), (2, 0.75, 1), (1, 0.75, 1), (4, 0.0, 3)]
)
def test_visible_count(tokens, ratio, keep):
    assert visible_count(tokens, ratio) == keep


def test_random_keep_is_uniform_over_tokens():
    torch.manual_seed(0)
    scores = torch.rand(4000, 8)
    keep, hidden = random_keep(scores, 2)
    assert (hidden.sum(dim=1) == 6).all()
    assert not hidden.gather(1, keep).any()
    assert (scores.masked_fill(hidden, -1).amax(dim=1) < scores.masked_fill(~hidden, 2).amin(dim=1)).all()
    assert torch.allclose((~hidden).float().mean(dim=0), torch.tensor(0.25), atol=0.03)  # 4.4 standard errors


def test_masked_mse_ignores_padding():
    target = torch.tensor([[1.0, float("nan")], [3.0, 4.0]])
    guess = torch.zeros(2, 2, requires_grad=True)
    loss = masked_mse(guess, target)
    loss.backward()
    assert loss.item() == pytest.approx((1 + 9 + 16) / 3)
    assert guess.grad.flatten().tolist() == pytest.approx([-2 / 3, 0, -2, -8 / 3])
    assert masked_mse(guess, target, torch.tensor([[True], [False]])).item() == 1
    assert masked_mse(guess, torch.full((2, 2), float("nan"))).item() == 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 13, 9), (2, 1, 1), (3, 33, 64), (1, 7), (4, 150)])
def test_decoder_output_sizes(shape):
    out = ConvDecoder(6, shape, width=2)(torch.randn(2, 6))
    assert out.shape == (2, *shape)


@pytest.mark.parametrize(
    ("shape", "size"), [((4, 3), (8, 6)), ((4, 3), (7, 6)), ((1, 1), (2, 2)), ((5,), (10,)), ((5,), (9,))]
)
def test_upsample_conv_matches_upsampling_and_convolution(shape, size):
    layer = UpsampleConv(2, 3, size).double()
    ours, theirs = (
        torch.randn(2, 2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
        for _ in range(2)
    )
    conv = F.conv2d if len(size) == 2 else F.conv1d
    found, expected = layer(ours), conv(F.interpolate(theirs, size=size), layer.weight, padding=1)
    torch.testing.assert_close(found, expected)
    wanted = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (dx, dw), (ex, ew) = (
        torch.autograd.grad((y * wanted).sum(), (x, layer.weight)) for y, x in ((found, ours), (expected, theirs))
    )
    torch.testing.assert_close(dx, ex)
    torch.testing.assert_close(dw, ew)


def test_sine_positions_matches_reference():
    p = sine_positions((2, 3), 8)
    assert p.shape == (6, 8)
    row, column = 1, 2
    want = [math.sin(row), math.sin(row / 100), math.cos(row), math.cos(row / 100)]
    want += [math.sin(column), math.sin(column / 100), math.cos(column), math.cos(column / 100)]
    assert p[row * 3 + column].tolist() == pytest.approx(want, abs=1e-6)
    assert sine_positions((5,), 4)[3].tolist() == pytest.approx(
        [math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)], abs=1e-6
    )


def test_attention_matches_reference_and_mask():
    torch.manual_seed(0)
    attention = Attention(6, 2).double()
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True], [True] * 4])
    q, k, v = (t.view(2, 4, 2, 3) for t in attention.qkv(x).chunk(3, dim=2))
    q, k, v = q.detach(), k.detach(), v.detach()
    slow = torch.zeros(2, 4, 6, dtype=torch.float64)
    for b in range(2):
        for h in range(2):
            for i in range(4):
                dots = [float(q[b, i, h] @ k[b, j, h]) / math.sqrt(3) for j in range(4)]
                weight = [math.exp(dots[j]) * mask[b, j].item() for j in range(4)]
                slow[b, i, 3 * h : 3 * h + 3] = sum(w * v[b, j, h] for j, w in enumerate(weight)) / sum(weight)
    assert torch.allclose(attention(x, mask), attention.proj(slow))


def test_full_precision_casts_half_only():
    seen = []

    @full_precision
    def product(a, b):
        seen.append((a.dtype, (a @ b).dtype))
        return a @ b

    half, double = torch.ones(2, 2, dtype=torch.bfloat16), torch.ones(2, 2, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        product(half, half)
        product(double, b=double)
    assert seen == [(torch.float32, torch.float32), (torch.float64, torch.float64)]


def test_likelihood_of_columns_by_hand():
    likelihood = Mixed(ColumnSlices((0, 3, 0)))
    predicted = torch.tensor([[1.0, 0.0, 2.0, 1.0, 5.0], [0.5, 1.0, 0.0, 3.0, -1.0]])
    target = torch.tensor([[2.0, 1.0, math.nan], [0.5, 0.0, 1.0]])  # missing: a number and, as 0, a category
    entropy = math.log(math.exp(0) + math.exp(2) + math.exp(1)) - 2
    with torch.autocast("cpu", torch.bfloat16):
        loss = likelihood.loss(predicted, target)
    assert float(loss) == pytest.approx((1.0 + entropy + 0.0 + 4.0) / 4)
    hidden = torch.tensor([[False, True, True], [False, False, False]])
    assert float(likelihood.loss(predicted, target, hidden)) == pytest.approx(entropy)


def test_likelihood_of_tokens_is_cross_entropy():
    predicted = torch.randn(2, 3, 5)
    target = torch.tensor([[1, 4, 0], [2, 0, 0]])  # 0 is padding
    expected = torch.nn.functional.cross_entropy(predicted[[0, 0, 1], [0, 1, 0]], torch.tensor([1, 4, 2]))
    torch.testing.assert_close(Categorical(5, ignore=0).loss(predicted, target), expected)
