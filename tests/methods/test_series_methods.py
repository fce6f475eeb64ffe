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
from sslcli.methods.ts2vec import TS2Vec, crop_bounds, hierarchical_loss
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


def test_next_step_of_centered_channels():
    """Input, target and the drawn source are the channels less their means."""
    data, method = series(), NextStep(gru(center=True), shift=3).eval()
    x = data.views[0]
    centered = Batch([x - x.nanmean(dim=2, keepdim=True)], ["weak"], data.draw)
    plain = NextStep(gru(), shift=3).eval()
    plain.load_state_dict(method.state_dict())
    torch.testing.assert_close(method(data)["loss"], plain(centered)["loss"])
    torch.testing.assert_close(method.reconstruct(data).source, centered.views[0], equal_nan=True)
    torch.testing.assert_close(method.reconstruct(data).error(), plain.reconstruct(centered).error(), equal_nan=True)


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


# ts2vec --------------------------------------------------------------------------------------------------------------


def log_softmax_of(positive: float, others: list[float]) -> float:
    return positive - math.log(sum(math.exp(v) for v in [positive, *others]))


def reference_hierarchy(z1, z2, present, alpha):
    """Algorithm 1 and equations 1 and 2, one anchor at a time."""
    levels = []
    while True:
        n, steps = z1.shape[:2]
        views, samples, times = (z1, z2), [], []
        for i in range(n):
            for t in range(steps):
                if not present[i, t]:
                    continue
                for mine, other in ((0, 1), (1, 0)):
                    anchor = views[mine][i, t]
                    positive = float(anchor @ views[other][i, t])
                    others = [float(anchor @ v[j, t]) for v in views for j in range(n) if j != i and present[j, t]]
                    samples.append(-log_softmax_of(positive, others))
                    others = [float(anchor @ v[i, s]) for v in views for s in range(steps) if s != t and present[i, s]]
                    times.append(-log_softmax_of(positive, others))
        levels.append(alpha * sum(samples) / len(samples) + (1 - alpha) * sum(times) / len(times))
        if steps == 1:
            return sum(levels) / len(levels)
        pooled, here = [], torch.zeros(n, steps // 2, dtype=torch.bool)
        for view in views:
            rows = torch.zeros(n, steps // 2, view.shape[2], dtype=view.dtype)
            for i in range(n):
                for t in range(steps // 2):
                    pair = [view[i, s] for s in (2 * t, 2 * t + 1) if present[i, s]]
                    if pair:
                        rows[i, t], here[i, t] = torch.stack(pair).amax(dim=0), True
            pooled.append(rows)
        (z1, z2), present = pooled, here


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("n", "steps", "alpha"), [(3, 7, 0.5), (2, 2, 0.3), (1, 5, 0.5), (4, 1, 0.5)])
def test_hierarchical_loss_matches_reference(n, steps, alpha, missing):
    generator = torch.Generator().manual_seed(n)
    z1, z2 = (torch.randn(n, steps, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    present = torch.ones(n, steps, dtype=torch.bool)
    if missing:
        present[0, steps // 2 + 1 :] = False
        present[n - 1, :1] = n == 1
    wanted = reference_hierarchy(z1, z2, present, alpha)
    assert hierarchical_loss(z1, z2, present, alpha).item() == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_hierarchical_loss_does_not_read_missing_frames():
    z1, z2 = (torch.randn(3, 9, 4).requires_grad_() for _ in range(2))
    present = torch.ones(3, 9, dtype=torch.bool)
    present[0, 4:], present[1] = False, False
    hierarchical_loss(z1, z2, present).backward()
    assert torch.isfinite(z1.grad).all()
    assert (z1.grad[~present] == 0).all()
    assert (z1.grad[present] != 0).any()


def test_crops_overlap_within_the_sample():
    found = set()
    for numbers in torch.rand(2000, 4).tolist():
        start, left, right, end = crop_bounds(5, numbers)
        assert 0 <= start <= left < right <= end <= 5
        assert right - left >= 2
        found.add((start, left, right, end))
    assert (0, 0, 5, 5) in found
    assert len(found) == sum((left + 1) * (6 - right) for left in range(5) for right in range(left + 2, 6))


def test_ts2vec_compares_the_same_steps():
    """With frames that are the values themselves, both crops have the same values."""
    method, data = TS2Vec(GRU((1, 20), width=4), mask_ratio=0.0).eval(), series(kind="clean", steps=20)
    data.views[0] = torch.arange(80.0).view(4, 1, 20)
    method.backbone.frames = lambda x, hidden: x.transpose(1, 2)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sslcli.methods.ts2vec.hierarchical_loss", lambda a, b, here, alpha: seen.append((a, b)) or torch.zeros(())
        )
        for _ in range(20):
            method(data)
            method.clock.tick()
    lengths = {a.shape[1] for a, _ in seen}
    assert len(lengths) > 5
    assert all(torch.equal(a, b) for a, b in seen)
    assert len({(a[i, 0] - 20 * i).item() for a, _ in seen for i in range(4)}) > 10, "offsets differ between samples"


def test_ts2vec_evaluates_the_mean_of_its_weights():
    torch.manual_seed(0)
    method, weights = TS2Vec(gru(), mask_ratio=0.5), []
    for step in range(3):
        with torch.no_grad():
            for p in method.backbone.parameters():
                p.add_(torch.randn_like(p))
        weights.append(method.backbone.embed.weight.detach().clone())
        method.after_step(step / 3)
    torch.testing.assert_close(method.eval_backbone.embed.weight, torch.stack(weights).mean(dim=0))
