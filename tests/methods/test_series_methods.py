"""Methods of series: the formulas of the papers written with loops."""

from __future__ import annotations

import math

import pytest
import torch

from sslcli.backbones.tcn import TCN
from sslcli.backbones.temporal.gru import GRU
from sslcli.methods.base import Batch
from sslcli.methods.cpc import CPC, anchor_frames, info_nce_of_steps
from sslcli.methods.next_step import NextStep
from sslcli.rng import Draw


def series(n: int = 4, steps: int = 14, kind: str = "weak") -> Batch:
    """Two channels; the second sample ends early, a value of the third is missing."""
    x = torch.randn(n, 2, steps, generator=torch.Generator().manual_seed(2))
    x[1, :, steps // 2 :] = math.nan
    x[2, 0, 5] = math.nan
    return Batch([x], [kind], Draw(0, 0, torch.arange(n)))


def gru(steps: int = 14, **options) -> GRU:
    torch.manual_seed(0)
    return GRU((2, steps), width=8, **options)


# next_step -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2])
def test_next_step_matches_reference(stride):
    """The network reads a series up to a step; the absolute error of its prediction of the values `shift` frames later."""
    method, data = NextStep(gru(stride=stride), shift=3).eval(), series()
    x, errors = data.views[0], []
    for b in range(len(x)):
        for t in range(14 // stride - 3):
            start = x[b : b + 1, :, : (t + 1) * stride]
            predicted = method.head(method.backbone.frames(start))[0, -1].view(stride, 2)
            for step in range(stride):
                for c in range(2):
                    target = x[b, c, (t + 3) * stride + step]
                    if not target.isnan():
                        errors.append((predicted[step, c] - target).abs())
    assert method(data)["loss"].item() == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)
    result = method.reconstruct(data)
    torch.testing.assert_close(result.hidden[:, 0], (torch.arange(14) >= 3 * stride).expand(4, -1))


def test_next_step_learns_a_sine():
    """A recurrent network predicts a sine of random phase better than its mean, and than its last value."""
    torch.manual_seed(0)
    phase = 6.3 * torch.rand(32, 1, 1)
    x = (phase + torch.arange(24) / 2).sin()
    method = NextStep(GRU((1, 24), width=16, depth=1), shift=5)
    optimizer = torch.optim.Adam(method.parameters(), lr=2e-2)
    data = Batch([x], ["weak"], Draw(0, 0, torch.arange(32)))
    for _ in range(25):
        optimizer.zero_grad()
        method(data)["loss"].backward()
        optimizer.step()
    copied = (x[:, :, 5:] - x[:, :, :-5]).abs().mean()
    assert method(data)["loss"] < 0.25 * min(copied, x.abs().mean())


@pytest.mark.parametrize("kind", [NextStep, CPC])
def test_causal_methods_check_their_backbone(kind):
    with pytest.raises(ValueError, match="causal"):
        kind(TCN((2, 14), width=8))
    with pytest.raises(ValueError, match="at least 2 frames"):
        kind(gru(steps=4, stride=4))


def test_next_step_limits_its_shift():
    assert NextStep(gru(steps=4), shift=5).shift == 3
    with pytest.raises(ValueError, match="shift"):
        NextStep(gru(), shift=0)


# cpc -----------------------------------------------------------------------------------------------------------------


def test_cpc_loss_matches_reference():
    """Equations 3 and 4 with loops. Anchors 0 and 1 of sample 0 have the same frame, and one target is missing."""
    generator = torch.Generator().manual_seed(1)
    predicted, target = (torch.randn(3, 2, 2, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    frame = torch.tensor([[[3, 4], [3, 4]], [[0, 1], [5, 6]], [[3, 4], [2, 3]]])
    exists = torch.ones(3, 2, 2, dtype=torch.bool)
    exists[1, 1, 1] = False
    each, hits = [], []
    for b in range(3):
        for a in range(2):
            for k in range(2):
                if not exists[b, a, k]:
                    continue
                positive = math.exp(predicted[b, a, k] @ target[b, a, k])
                negatives = []
                for c in range(3):
                    for d in range(2):
                        same_frame = b == c and frame[b, a, k] == frame[c, d, k]
                        if exists[c, d, k] and not same_frame:
                            negatives.append(math.exp(predicted[b, a, k] @ target[c, d, k]))
                assert len(negatives) == 5 - (b == 0) - (k == 1)
                each.append(-math.log(positive / (positive + sum(negatives))))
                hits.append(positive >= max(negatives))
    loss, accuracy = info_nce_of_steps(predicted, target, frame, exists)
    assert loss.item() == pytest.approx(sum(each) / len(each))
    assert accuracy.item() == pytest.approx(sum(hits) / len(hits))


def test_cpc_anchors_leave_room_for_their_targets():
    present = torch.ones(3, 20, dtype=torch.bool)
    present[1, 10:], present[2, 3:] = False, False
    at = anchor_frames(torch.rand(3, 500), present, 6)
    assert [(row.min().item(), row.max().item()) for row in at] == [(0, 13), (0, 3), (0, 0)]


def test_cpc_contexts_are_those_of_the_anchors():
    method, data = CPC(gru(), steps=3, anchors=2).eval(), series()
    x = data.views[0]
    values = method.backbone.frame_values(x).nan_to_num()
    at = anchor_frames(data.uniform("anchors", 2), method.backbone.present(x), 3)
    predicted, target = (torch.zeros(4, 2, 3, method.encoder.widths[-1]) for _ in range(2))
    exists = torch.zeros(4, 2, 3, dtype=torch.bool)
    for b in range(4):
        for a in range(2):
            t = int(at[b, a])
            context = method.backbone.frames(x[b : b + 1, :, : t + 1])[0, -1]
            predicted[b, a] = method.predictor(context).view(3, -1)
            for k in range(3):
                target[b, a, k] = method.encoder(values[b, t + k + 1])
                exists[b, a, k] = not x[b, :, t + k + 1].isnan().all()
    loss, _ = info_nce_of_steps(predicted, target, at[:, :, None] + torch.arange(1, 4), exists)
    assert method(data)["loss"].item() == pytest.approx(loss.item(), rel=1e-4)
