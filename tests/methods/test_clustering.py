"""Clustering methods (SwAV, DeepCluster v2, MSN, SMoG) against other implementations and reference formulas."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from golden_inputs import load, numbers

from sslcli.backbones.convnet import ConvNet
from sslcli.backbones.vit import ViT
from sslcli.methods.base import Batch, DataInfo
from sslcli.methods.deepcluster_v2 import DeepClusterV2, cluster_loss
from sslcli.methods.msn import MSN, msn_terms
from sslcli.methods.smog import FIRST, SMoG, group_loss, update_groups
from sslcli.methods.swav import SwAV
from sslcli.nn.kmeans import nearest, spherical_kmeans
from sslcli.nn.memory_bank import MemoryBank
from sslcli.nn.prototypes import Prototypes, cosine_similarity, cross_view_loss, effective_prototypes
from sslcli.nn.sinkhorn import sinkhorn
from sslcli.nn.step_counter import StepCounter
from sslcli.rng import Draw

CASES = load("clustering")["cases"]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['n']}x{c['d']}x{c['k']}")
EXACT = 1e-10


def unit(seed: int, *shape: int) -> torch.Tensor:
    return F.normalize(numbers(seed, *shape), dim=-1)


def views(n: int = 6, count: int = 2, small: int = 0, epoch: int = 0, first: int = 0, side: int = 8) -> Batch:
    """Views are samples with noise; local views have half the side."""
    x = numbers(1, n, 1, side, side).float()
    made = [x + 0.3 * numbers(2 + v, n, 1, side, side).float() for v in range(count + small)]
    half = side // 2
    made = [v if i < count else v[:, :, :half, :half] for i, v in enumerate(made)]
    return Batch(made, ["global"] * count + ["local"] * small, Draw(0, epoch, torch.arange(first, first + n)))


def step(method, data: Batch, progress: float = 0.5) -> None:
    method(data)["loss"].backward()
    method.after_step(progress)


# Sinkhorn-Knopp ------------------------------------------------------------------------------------------------------


@every_case
def test_sinkhorn_matches_pot(case):
    scores = unit(0, case["n"], case["d"]) @ unit(9, case["k"], case["d"]).T
    for name, plan in case["plans"].items():
        epsilon, rounds = name.split()
        found = sinkhorn(scores, float(epsilon), int(rounds)).flatten()
        np.testing.assert_allclose(found.numpy(), plan, rtol=1e-9, atol=1e-15)


def test_sinkhorn_matches_reference():
    scores, n, k = numbers(3, 5, 4), 5, 4
    q = np.exp(scores.numpy() / 0.3)
    for _ in range(3):
        for j in range(k):
            q[:, j] = q[:, j] / sum(q[i, j] for i in range(n)) / k
        for i in range(n):
            q[i] = q[i] / sum(q[i, j] for j in range(k)) / n
    np.testing.assert_allclose(sinkhorn(scores, 0.3, 3).numpy(), q * n, rtol=1e-12)


def test_sinkhorn_properties():
    scores = numbers(3, 8, 4)
    shared = sinkhorn(scores, 0.5, 200)
    assert torch.allclose(shared.sum(dim=1), torch.ones(8, dtype=torch.float64))
    assert torch.allclose(shared.sum(dim=0), torch.full((4,), 2.0, dtype=torch.float64))  # equal shares
    assert torch.equal(sinkhorn(scores, 0.5, 0), (scores / 0.5).softmax(dim=1))
    assert torch.allclose(sinkhorn(scores + 7.0, 0.5, 3), sinkhorn(scores, 0.5, 3))
    assert torch.allclose(sinkhorn(torch.ones(8, 4), 0.05, 3), torch.full((8, 4), 0.25))
    assert torch.isfinite(sinkhorn(1e4 * scores.float(), 0.01, 3)).all()  # exp would be 0 or inf
    assert not sinkhorn(scores.requires_grad_(), 0.5, 3).requires_grad
    order = torch.tensor([3, 0, 7, 1, 2, 6, 5, 4])
    assert torch.allclose(sinkhorn(scores[order], 0.5, 3), sinkhorn(scores, 0.5, 3)[order])


def test_sinkhorn_ignores_rows_of_weight_zero():
    scores = numbers(4, 7, 3)
    weights = torch.tensor([1.0, 0, 1, 1, 0, 1, 0], dtype=torch.float64)
    there = weights > 0
    assert torch.allclose(sinkhorn(scores, 0.1, 3, weights)[there], sinkhorn(scores[there], 0.1, 3), rtol=1e-10)
    assert torch.isfinite(sinkhorn(scores, 0.1, 3, 0 * weights)).all()
    twice = torch.cat([scores, scores[:1]])
    weighed = sinkhorn(scores, 0.1, 3, torch.tensor([2.0, 1, 1, 1, 1, 1, 1], dtype=torch.float64))
    assert torch.allclose(weighed, sinkhorn(twice, 0.1, 3)[:7], rtol=1e-10)


# Prototypes ----------------------------------------------------------------------------------------------------------


def test_prototypes_are_cosines_frozen_initially():
    layer = Prototypes(5, 3, frozen=0.1).double()
    z = numbers(0, 4, 5)
    slow = [[float(a @ b / a.norm() / b.norm()) for b in layer.weight.detach()] for a in z]
    np.testing.assert_allclose(layer(z).detach().numpy(), slow, rtol=1e-12)
    seen = []
    for progress in (0.0, 0.05, 0.1, 1.0):
        layer.after_step(progress)
        layer.weight.grad = None
        layer(z).square().sum().backward()
        seen.append(bool(layer.weight.grad.abs().max() > 0))
    assert seen == [False, False, True, True]
    assert Prototypes(5, 3).moves == 1
    assert Prototypes(5, 3, frozen=0.1).moves == 0
    with pytest.raises(ValueError, match="at least 2"):
        Prototypes(5, 1)


def test_effective_prototypes_counts_used():
    assert effective_prototypes(torch.eye(4)) == pytest.approx(4.0)
    assert effective_prototypes(torch.eye(4)[[1, 1, 1]]) == pytest.approx(1.0)
    assert effective_prototypes(torch.full((3, 4), 0.25)) == pytest.approx(4.0)
    assert effective_prototypes(torch.eye(4)[[0, 0, 1, 1]]) == pytest.approx(2.0)


def test_cross_view_loss_matches_reference():
    logits, targets = numbers(1, 4, 5, 3), numbers(2, 2, 5, 3).softmax(dim=2)
    slow, pairs = 0.0, 0
    for t in range(2):
        for v in range(4):
            if v != t:
                pairs += 1
                for b in range(5):
                    below = sum(math.exp(logits[v, b, k]) for k in range(3))
                    slow -= sum(float(targets[t, b, k]) * math.log(math.exp(logits[v, b, k]) / below) for k in range(3))
    assert cross_view_loss(logits, targets).item() == pytest.approx(slow / pairs / 5, rel=1e-12)


# SwAV ----------------------------------------------------------------------------------------------------------------


@every_case
def test_swav_matches_lightly(case):
    prototypes = unit(9, case["k"], case["d"])
    scores = torch.stack([unit(seed, case["n"], case["d"]) @ prototypes.T for seed in range(4)])
    past = unit(5, 7, case["d"]) @ prototypes.T
    codes = torch.stack([sinkhorn(own, 0.05, 3) for own in scores[:2]])
    assert cross_view_loss(scores / 0.1, codes).item() == pytest.approx(case["swav"], rel=EXACT)
    queued = torch.stack([sinkhorn(torch.cat([own, past]), 0.05, 3)[: case["n"]] for own in scores[:2]])
    assert cross_view_loss(scores / 0.1, queued).item() == pytest.approx(case["swav_queue"], rel=EXACT)


def swav(**words) -> SwAV:
    torch.manual_seed(0)
    return SwAV(ConvNet((1, 8, 8), width=4), **{"prototypes": 5, "queue": None, "frozen": 0.0, **words})


def test_swav_forward_matches_paper():
    method, data = swav(), views(6, small=1)
    z = [F.normalize(method.projector(method.backbone(x)), dim=1) for x in data.views]
    c = F.normalize(method.prototypes.weight, dim=1)
    codes = [sinkhorn(z[g] @ c.T, 0.03, 3) for g in (0, 1)]
    pairs = [(v, g) for g in (0, 1) for v in (0, 1, 2) if v != g]
    slow = sum(-(codes[g] * (z[v] @ c.T / 0.1).log_softmax(dim=1)).sum(dim=1).mean() for v, g in pairs) / 4
    assert method(data)["loss"].item() == pytest.approx(slow.item(), rel=1e-5)
    assert torch.allclose(method.assign(data.views[0]), (z[0] @ c.T / 0.1).softmax(dim=1), atol=1e-5)


def test_swav_codes_have_no_gradient():
    """The gradient equals that of a cross-entropy with constant codes."""
    method, data = swav(), views(6)
    codes = torch.stack([method.codes(method.prototypes(method.projector(method.backbone(x)))) for x in data.views])
    method(data)["loss"].backward()
    found = method.prototypes.weight.grad.clone()
    method.zero_grad()
    scores = torch.stack([method.prototypes(method.projector(method.backbone(x))) for x in data.views])
    cross_view_loss(scores / 0.1, codes.detach()).backward()
    assert torch.allclose(found, method.prototypes.weight.grad, atol=1e-6)


def test_swav_queue_starts_late_and_ignores_empty_entries():
    method, data = swav(queue=9, queue_from=0.5).eval(), views(6)
    scores = method.prototypes(method.projector(method.backbone(data.views[0]))).detach()
    alone = sinkhorn(scores, 0.03, 3)
    method.queue.stage(unit(3, 4, method.queue.keys.shape[1]).float(), torch.arange(4))
    method.after_step(0.1)
    assert torch.allclose(method.codes(scores), alone, atol=1e-6)  # not yet due
    method.after_step(0.5)
    past = method.prototypes(method.queue.keys[:4]).detach()  # the other five are not filled
    joined = sinkhorn(torch.cat([scores, past]), 0.03, 3)[:6]
    assert torch.allclose(method.codes(scores), joined, atol=1e-6)
    assert not torch.allclose(joined, alone, atol=1e-3)


def test_swav_queue_unchanged_in_eval_mode():
    method, data = swav(queue=9), views(6)
    step(method, data)
    assert method.queue.ids.tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1]
    z = F.normalize(method.projector(method.backbone(data.views[0])), dim=1)
    assert torch.allclose(method.queue.keys[:6], z, atol=1e-5)
    method.eval()
    with torch.no_grad():
        method(data)
    method.after_step(0.6)
    assert method.queue.head == 6


# DeepCluster v2 ------------------------------------------------------------------------------------------------------

FACTS = DataInfo(samples=12, classes=2, steps_per_epoch=2)


@every_case
def test_deepcluster_matches_solo_learn(case):
    prototypes = unit(9, case["k"], case["d"])
    scores = torch.stack([unit(seed, case["n"], case["d"]) @ prototypes.T for seed in range(4)])
    clusters = (torch.arange(case["n"]) % case["k"]).expand(4, -1)
    assert cluster_loss(scores, clusters, 0.1).item() == pytest.approx(case["deepcluster"], rel=EXACT)


def test_spherical_kmeans_matches_reference():
    x, start = unit(1, 20, 3).numpy(), unit(2, 4, 3).numpy().copy()
    weights = np.arange(20) % 5 != 0
    centroids = start.copy()
    for _ in range(6):
        where = [max(range(4), key=lambda c: float(x[i] @ centroids[c])) for i in range(20)]
        for c in range(4):
            total = sum((x[i] for i in range(20) if where[i] == c and weights[i]), np.zeros(3))
            if np.linalg.norm(total) > 0:
                centroids[c] = total / np.linalg.norm(total)
    found = spherical_kmeans(*map(torch.from_numpy, (x, start)), 6, torch.from_numpy(weights * 1.0))
    np.testing.assert_allclose(found.numpy(), centroids, rtol=1e-10)


def test_spherical_kmeans_recovers_clusters_and_keeps_empty():
    axes = torch.eye(3, dtype=torch.float64)
    x = F.normalize(axes.repeat(5, 1) + 0.05 * numbers(1, 15, 3), dim=1)
    found = spherical_kmeans(x, x[[0, 1, 2]], 5, torch.ones(15, dtype=torch.float64))
    assert (found @ axes).diagonal().min() > 0.99
    far = torch.cat([x[[0, 1, 2]], -F.normalize(torch.ones(1, 3, dtype=torch.float64), dim=1)])
    assert torch.equal(spherical_kmeans(x, far, 5, torch.ones(15, dtype=torch.float64))[3], far[3])


def test_nearest_in_parts_equals_whole():
    x, centroids = unit(1, 20, 3), unit(2, 4, 3)
    assert torch.equal(nearest(x, centroids, rows=7), nearest(x, centroids))


def deepcluster(**words) -> DeepClusterV2:
    torch.manual_seed(0)
    return DeepClusterV2(ConvNet((1, 8, 8), width=4), FACTS, **{"prototypes": 3, "clusterings": 3, **words})


def halves(epoch: int = 0) -> list[Batch]:
    return [views(6, epoch=epoch), views(6, epoch=epoch, first=6)]


def test_deepcluster_clusters_at_epoch_end():
    method = deepcluster()
    first, second = halves()
    start = method.centroids.clone()
    step(method, first)
    assert (method.clusters == -1).all()
    assert torch.equal(method.centroids, start)
    step(method, second)
    assert (method.clusters >= 0).all()
    for h in range(3):
        memory = method.memory[h % 2]
        assert torch.equal(method.clusters[:, h], cosine_similarity(memory.keys, method.centroids[h]).argmax(dim=1))
        for c in range(3):
            own = memory.keys[method.clusters[:, h] == c]
            if len(own):  # converged: ten rounds on twelve samples
                assert torch.allclose(method.centroids[h, c], F.normalize(own.sum(dim=0), dim=0), atol=1e-5)
    assert not torch.equal(method.centroids[0], method.centroids[2])  # same embeddings, other starts


def test_deepcluster_memory_per_view_and_sample():
    method, (_, second) = deepcluster(), halves()
    step(method, second)
    for memory, x in zip(method.memory, second.views, strict=True):
        assert memory.ids.tolist() == [-1] * 6 + [6, 7, 8, 9, 10, 11]
        z = F.normalize(method.projector(method.backbone(x)), dim=1)
        assert torch.allclose(memory.keys[6:], z, atol=1e-5)


def test_deepcluster_loss_predicts_clusters():
    method = deepcluster()
    for data in halves():
        step(method, data)
    data = views(6, small=1, epoch=1)
    losses = []
    for h in range(3):
        for x in data.views:
            z = F.normalize(method.projector(method.backbone(x)), dim=1)
            logits = (z @ method.centroids[h].T / 0.1).log_softmax(dim=1)
            losses += [-logits[i, method.clusters[i, h]].item() for i in range(6)]
    assert method(data)["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_deepcluster_first_epoch_uses_other_views_code():
    method, data = deepcluster(clusterings=1), views(6, small=1)
    z = [F.normalize(method.projector(method.backbone(x)), dim=1) for x in data.views]
    codes = [sinkhorn(own @ method.centroids[0].T, 0.03, 3).argmax(dim=1) for own in z]
    losses = [
        F.cross_entropy(z[v] @ method.centroids[0].T / 0.1, codes[other]).item()
        for v, other in ((0, 1), (1, 0), (2, 0))
    ]
    assert method(data)["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_deepcluster_resumed_has_same_clusters():
    whole, (first, second) = deepcluster(), halves()
    step(whole, first)
    resumed = deepcluster()
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for method in (whole, resumed):
        step(method, second)
    for (key, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert (resumed.clusters >= 0).all()


def test_deepcluster_unseen_samples_have_no_cluster():
    torch.manual_seed(0)
    facts = DataInfo(samples=15, classes=0, steps_per_epoch=2)  # the last three are left over
    method = DeepClusterV2(ConvNet((1, 8, 8), width=4), facts, prototypes=9)
    for data in halves():
        step(method, data)
    assert (method.clusters[:12] >= 0).all()
    assert (method.clusters[12:] == -1).all()
    method.iterations = 0  # the starts themselves
    method.cluster(1)
    starts = method.centroids[0] @ method.memory[0].keys.T
    assert (starts[:, :12].max(dim=1).values > 1 - 1e-5).all()
    assert (starts[:, 12:] < 1 - 1e-5).all()


def test_deepcluster_clusters_at_most_samples():
    assert deepcluster(prototypes=100).centroids.shape[1] == 12


def test_step_counter_follows_buffer():
    clock = StepCounter()
    assert [clock.tick() for _ in range(3)] == [1, 2, 3]
    kept = clock.steps.clone()
    clock.tick()
    clock.steps.copy_(kept)  # a step that was undone
    assert clock.tick() == 4
    other = StepCounter()
    other.load_state_dict(clock.state_dict())
    assert other.tick() == 5
    assert copy.deepcopy(clock).tick() == 5


def test_memory_bank_keeps_latest_embedding():
    memory = MemoryBank(5, 2)
    before = memory.keys.clone()
    memory.stage(torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([3, 1]))
    memory.stage(torch.tensor([[0.0, -1]]), torch.tensor([3]))
    memory.push()
    assert memory.keys[[1, 3]].tolist() == [[0, 1], [0, -1]]
    assert torch.equal(memory.keys[[0, 2, 4]], before[[0, 2, 4]])
    assert memory.ids.tolist() == [-1, 1, -1, 3, -1]


# MSN -----------------------------------------------------------------------------------------------------------------


def msn(**words) -> MSN:
    torch.manual_seed(0)
    return MSN(ViT((1, 8, 8), width=16, depth=1, heads=2, patch=2), **{"prototypes": 6, "sharpening": 0.25, **words})


@every_case
@pytest.mark.parametrize("rounds", [0, 3])
def test_msn_matches_lightly(case, rounds):
    n, d, k = case["n"], case["d"], case["k"]
    method = msn(iterations=rounds)
    prototypes = unit(9, k, d)
    logits = torch.stack([unit(seed, n, d) @ prototypes.T for seed in (6, 7)]) / 0.1
    terms = msn_terms(logits, method.targets(unit(8, n, d) @ prototypes.T))
    loss = terms["assignment"] + 2.0 * terms["mean_entropy"]
    assert loss.item() == pytest.approx(case["msn"][str(rounds)], rel=1e-9)


def test_msn_terms_matches_reference():
    logits, targets = numbers(1, 2, 5, 3), numbers(2, 5, 3).softmax(dim=1)
    p = np.exp(logits.numpy())
    p /= p.sum(axis=2, keepdims=True)
    ce = np.mean([-(targets[b].numpy() * np.log(p[a, b])).sum() for a in range(2) for b in range(5)])
    mean = p.mean(axis=(0, 1))
    terms = msn_terms(logits, targets)
    assert terms["assignment"].item() == pytest.approx(ce, rel=1e-12)
    assert terms["mean_entropy"].item() == pytest.approx(math.log(3) + (mean * np.log(mean)).sum(), rel=1e-12)


def test_msn_properties():
    even = torch.zeros(2, 5, 3, dtype=torch.float64)
    assert msn_terms(even, even[0].softmax(dim=1))["mean_entropy"].item() == pytest.approx(0.0, abs=1e-12)
    one = 1e3 * torch.eye(3, dtype=torch.float64)[[0] * 5].expand(2, -1, -1)
    assert msn_terms(one, one[0].softmax(dim=1))["mean_entropy"].item() == pytest.approx(math.log(3))  # collapse
    targets = numbers(2, 5, 3).requires_grad_()
    logits = numbers(1, 2, 5, 3).requires_grad_()
    sum(msn_terms(logits, targets.softmax(dim=1)).values()).backward()
    assert targets.grad is None
    assert logits.grad is not None


def test_msn_targets_are_sharper():
    method = msn(iterations=0)
    scores = numbers(3, 4, 6)
    p = (scores / 0.1).softmax(dim=1)
    sharp = p**4 / (p**4).sum(dim=1, keepdim=True)
    assert torch.allclose(method.targets(scores), sharp, rtol=1e-10)


def test_msn_masks_anchor_not_target():
    method, data = msn(mask_ratio=0.5).eval(), views(4)
    assert method.keep == 8
    hidden = method(data)["loss"].item()
    scores = data.uniform("mask of anchor 0", 16)
    dropped = torch.ones(4, 16, dtype=torch.bool).scatter_(1, scores.argsort(dim=1)[:, :8], False)
    cut = method.backbone.patchify(data.views[1]).masked_fill(dropped[:, :, None], 9.0)
    other = Batch([data.views[0], method.backbone.unpatchify(cut)], data.kinds, data.draw)
    assert method(other)["loss"].item() == pytest.approx(hidden, rel=1e-5)  # what was dropped does not matter
    target = Batch([method.backbone.unpatchify(cut), data.views[1]], data.kinds, data.draw)
    assert method(target)["loss"].item() != pytest.approx(hidden, rel=1e-3)  # the target sees all


def test_msn_eval_backbone_is_teacher():
    method = msn(tau=0.9, tau_end=0.9)
    assert method.eval_backbone is method.teacher.parts[0]
    before = method.eval_backbone.norm.weight.clone()
    with torch.no_grad():
        method.backbone.norm.weight.add_(1.0)
    method.after_step(0.0)
    assert torch.allclose(method.eval_backbone.norm.weight, before + 0.1)


# SMoG ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", load("smog")["cases"], ids=lambda c: f"{c['n']}x{c['d']}x{c['k']}")
def test_smog_matches_lightly(case):
    n, d, k = case["n"], case["d"], case["k"]
    z, p, groups = unit(0, n, d).requires_grad_(), numbers(2, n, d).requires_grad_(), unit(9, k, d)
    own = nearest(unit(1, n, d), groups)
    assert own.tolist() == case["own"]
    moved = update_groups(groups, z, 0.9)
    np.testing.assert_allclose(moved.detach().flatten().numpy(), case["moved"], rtol=EXACT)
    loss = group_loss(p, moved, own, 0.1)
    assert loss.item() == pytest.approx(case["loss"], rel=EXACT)
    loss.backward()
    np.testing.assert_allclose(p.grad.flatten().numpy(), case["grad_p"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(z.grad.flatten().numpy(), case["grad_z"], rtol=1e-9, atol=1e-12)


def test_update_groups_matches_reference():
    groups, z = unit(1, 4, 3).numpy() * 0.7, unit(2, 5, 3).numpy()
    expected = groups.copy()
    own = [max(range(4), key=lambda c: float(x @ groups[c]) / np.linalg.norm(groups[c])) for x in z]
    for c in set(own):
        expected[c] = 0.8 * groups[c] + 0.2 * np.mean([x for x, o in zip(z, own, strict=True) if o == c], axis=0)
    assert len(set(own)) < 4  # one stays
    np.testing.assert_allclose(update_groups(*map(torch.from_numpy, (groups, z)), 0.8).numpy(), expected, rtol=1e-12)


def smog(**words) -> SMoG:
    torch.manual_seed(0)
    return SMoG(ConvNet((1, 8, 8), width=4), **{"prototypes": 3, "queue": 24, **words})


def test_smog_forward_matches_paper():
    method, data = smog(), views(6)
    groups = method.groups.clone()
    y = [method.projector(method.backbone(x)) for x in data.views]
    own = [(F.normalize(method.teacher(x), dim=1) @ F.normalize(groups, dim=1).T).argmax(dim=1) for x in data.views]
    moved = update_groups(groups, F.normalize(torch.cat(y), dim=1), 0.99)
    losses = [group_loss(method.predictor(y[v]), moved, own[1 - v], 0.1).item() for v in (0, 1)]
    assert method(data)["loss"].item() == pytest.approx(np.mean(losses), rel=1e-5)
    torch.testing.assert_close(method.groups, moved.detach())


def test_smog_groups_unchanged_in_eval_mode():
    method, data = smog(), views(6)
    groups = method.groups.clone()
    with torch.no_grad():
        method(data)
    method.after_step(0.5)
    assert torch.equal(method.groups, groups)
    assert (method.queue.ids < 0).all()


def test_smog_resets_groups_and_teacher():
    method = smog(reset_every=FIRST + 2)
    for n in range(1, FIRST + 3):
        step(method, views(6, epoch=n))
        with torch.no_grad():
            next(method.backbone.parameters()).add_(0.1)  # as an optimizer would
        ours, theirs = next(method.backbone.parameters()), next(method.teacher.parameters())
        unit_norms = torch.allclose(method.groups.norm(dim=1), torch.ones(3), atol=1e-6)
        assert unit_norms == (n in (FIRST, FIRST + 2)), n  # centroids are unit vectors, moved groups are shorter
        assert torch.allclose(theirs, ours - 0.1, atol=1e-6) == (n == FIRST + 2 or n == 1), n


def test_smog_resumed_is_identical():
    whole = smog(reset_every=3)
    step(whole, views(6))
    resumed = smog(reset_every=3)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for method in (whole, resumed):
        for n in (1, 2):
            step(method, views(6, epoch=n))
    for (key, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


# All -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [swav, deepcluster, msn, smog])
def test_assignments_are_probabilities(make):
    method, x = make().eval(), views(5).views[0]
    p = method.assign(x)
    assert torch.allclose(p.sum(dim=1), torch.ones(5))
    assert (p >= 0).all()
    assert torch.allclose(method.assign(x[[2]]), p[[2]], atol=1e-6)  # each sample for itself
