"""Joint objectives: clustering head and Deep SVDD, their evaluation, and train.classes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sslcli.backbones.convnet import ConvNet
from sslcli.methods.base import DataInfo
from sslcli.methods.clustering_head import ClusteringHead, standardize, temi_loss
from sslcli.methods.deep_svdd import DeepSVDD, soft_boundary_loss, squared_distance
from tests.methods.oracles import draws, images


def small() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet((1, 8, 8), width=4)


# clusters ------------------------------------------------------------------------------------------------------------


def test_temi_loss_matches_reference():
    """The paper's formula with loops over samples and heads, on probabilities instead of their logarithms."""
    samples, heads, clusters, beta = 5, 2, 3, 0.6
    s, t, near = (torch.stack([draws(samples, clusters)[i], draws(samples, clusters)[1 - i]], 1) for i in (0, 1, 0))
    near = near.flip(0)
    share = draws(heads, clusters)[0].softmax(dim=1)
    ps, pt, pn = (x.softmax(dim=2).numpy() for x in (s, t, near))
    slow = np.zeros((samples, heads))
    for i in range(samples):
        weight = sum(pt[i, h, c] * pn[i, h, c] for h in range(heads) for c in range(clusters)) / heads
        for h in range(heads):
            pmi = sum((ps[i, h, c] * pn[i, h, c]) ** beta / share[h, c].item() for c in range(clusters))
            slow[i, h] = -weight * math.log(pmi)
    found = temi_loss(*(x.log_softmax(dim=2) for x in (s, t, near)), share, beta)
    assert np.allclose(found.numpy(), slow, rtol=1e-10)


def test_temi_loss_matches_scikit_learn_for_hard_clusters():
    from sklearn.metrics import mutual_info_score

    labels = torch.tensor([0, 0, 1, 2, 2, 2, 1, 0])
    certain = (100.0 * F.one_hot(labels, 3).double()).log_softmax(dim=1)[:, None]
    share = certain.exp().mean(dim=0)
    wanted = mutual_info_score(labels.numpy(), labels.numpy())
    assert temi_loss(certain, certain, certain, share, 1.0).mean().item() == pytest.approx(-wanted, rel=1e-9)


def test_temi_gradient_reaches_student_only_and_is_finite():
    student = torch.tensor([[[50.0, -50.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    near = torch.tensor([[[-50.0, 50.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    share = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    temi_loss(student.log_softmax(2), near.log_softmax(2), near.log_softmax(2), share, 0.6).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert near.grad is None


def clusterer(**settings: Any) -> ClusteringHead:
    return ClusteringHead(small(), DataInfo(40, 0, 4), clusters=3, heads=2, **settings)


def test_neighbors_are_nearest_other_samples():
    method = clusterer(neighbours=2).eval()
    data, dim = images(6), method.backbone.dim
    u = standardize(torch.randn(6, dim, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(method.sample_neighbor(data, u), u)  # nobody is known yet
    method.memory.stage(F.normalize(u, dim=1), data.ids)
    method.memory.push()
    likeness = (F.normalize(u, dim=1) @ F.normalize(u, dim=1).T).fill_diagonal_(-2)
    drawn = set()
    for epoch in range(30):
        found = method.sample_neighbor(images(6, epoch=epoch), u)
        at = (found[:, None] - u[None]).norm(dim=2).argmin(dim=1)
        assert (likeness.gather(1, at[:, None])[:, 0] >= likeness.topk(2).values[:, 1] - 1e-6).all()
        drawn |= {(i, int(j)) for i, j in enumerate(at)}
    assert len(drawn) == 12  # both of each, by and by


def test_assign_uses_head_of_lowest_loss():
    method = clusterer().eval()
    x = images(4).views[0]
    for best in (0, 1):
        method.losses.value.copy_(torch.tensor([0.0, -1.0] if best else [-1.0, 0.0]))
        logits = method.teacher(standardize(method.backbone(x))).view(4, 2, 3)[:, best]
        assert torch.allclose(method.assign(x), (logits / method.temperature).softmax(dim=1), atol=1e-6)


def test_clustering_averages_update_after_step():
    method = clusterer()
    method(images(6))
    assert not method.losses.value.any()
    assert (method.memory.ids < 0).all()
    assert torch.allclose(method.share.value, torch.tensor(1 / 3))
    method.after_step(0.1)
    assert method.losses.value.all()
    assert sorted(method.memory.ids[method.memory.ids >= 0].tolist()) == images(6).ids.tolist()
    shares = method.share.value.view(2, 3)
    assert torch.allclose(shares.sum(dim=1), torch.ones(2))
    assert not torch.allclose(shares, torch.tensor(1 / 3))


def test_clustering_teacher_updates_and_backbone_has_gradient():
    method = clusterer()
    before = method.teacher.parts[0].weight.clone()
    method(images(6))["loss"].backward()
    assert next(method.backbone.parameters()).grad.abs().sum() > 0
    assert method.teacher.parts[0].weight.grad is None
    with torch.no_grad():
        method.head.weight.add_(1.0)
    method.after_step(0.1)
    assert torch.allclose(method.teacher.parts[0].weight, before + 0.1, atol=1e-6)


# one class -----------------------------------------------------------------------------------------------------------


def test_svdd_distance_matches_reference():
    z, centre = F.normalize(draws(5, 4)[0], dim=1), draws(5, 4)[1][0]
    c = centre.numpy() / math.sqrt(float(centre @ centre))
    slow = [sum((z[i, j].item() - c[j]) ** 2 for j in range(4)) for i in range(5)]
    assert squared_distance(z, centre).tolist() == pytest.approx(slow, rel=1e-10)


def test_soft_boundary_matches_reference():
    distances = torch.tensor([0.1, 0.4, 0.2, 0.9, 0.3], dtype=torch.float64)
    radius = np.quantile(distances.numpy(), 0.8)
    slow = radius + sum(max(0.0, d - radius) for d in distances.tolist()) / 5 / 0.2
    assert soft_boundary_loss(distances, 0.2).item() == pytest.approx(slow, rel=1e-10)


def test_svdd_center_is_first_epoch_mean_then_fixed():
    torch.manual_seed(0)
    method = DeepSVDD(small(), DataInfo(20, 0, 2)).eval()
    means = []
    for epoch in range(4):
        data = images(5, views=1, kind="weak", epoch=epoch)
        data.views = [data.views[0] + epoch]
        means.append(F.normalize(method.backbone(data.views[0]), dim=1).mean(dim=0))
        method.training = True  # batch norm stays as it is
        method(data)
        method.after_step(0.1)
    wanted = means[0] + means[1]
    assert torch.allclose(F.normalize(method.total, dim=0), F.normalize(wanted, dim=0), atol=1e-5)


def test_svdd_center_has_no_gradient():
    z, centre = F.normalize(draws(5, 4)[0], dim=1).requires_grad_(), draws(5, 4)[1][0].requires_grad_()
    squared_distance(z, centre).sum().backward()
    assert z.grad is not None
    assert centre.grad is None


# through the door ----------------------------------------------------------------------------------------------------

SMALL = [
    "backbone.width=8",
    "train.steps=4",
    "train.batch_size=32",
    "train.eval_every=0",
    "device=cpu",
    "device.threads=1",
]


def test_eval_cluster_includes_clustering_head(cli):
    run = Path(cli("pretrain", "experiment=joint_clustering", *SMALL).last)
    numbers = json.loads(cli("eval", "cluster", "--json", "evaluator.baselines=false").out)["numbers"]
    assert {"acc", "head.acc", "head.nmi", "head.ari", "head.used"} <= set(numbers)
    assert 1 <= numbers["head.used"] <= 10
    assert (run / "eval" / "cluster_head_exemplars.png").is_file()
    cli("pretrain", *SMALL)
    assert "head.acc" not in json.loads(cli("eval", "cluster", "--json", "evaluator.baselines=false").out)["numbers"]


def test_eval_anomaly_includes_objective(cli):
    run = Path(cli("pretrain", "experiment=joint_anomaly", "train.classes=[3]", *SMALL).last)
    facts = json.loads((run / "encoder.json").read_text())["facts"]
    assert facts["samples"] == 146  # threes among the 1,437 training digits
    words = ["--json", "evaluator.baselines=false", "evaluator.normal=3", "evaluator.scores=[knn]"]
    numbers = json.loads(cli("eval", "anomaly", *words).out)["numbers"]
    assert {"knn.auroc", "objective.auroc", "objective.fpr95"} <= set(numbers)
    cli("pretrain", *SMALL)
    refused = cli("eval", "anomaly", "evaluator.scores=[objective]")
    assert refused.code == 2
    assert "joint_anomaly" in refused.err


def test_train_classes_restricts_samples():
    from sslcli.builders import load_dataset

    cfg = {"dataset": {"_target_": "sslcli.data.digits", "holdout": 0.2, "split_seed": 0, "name": "digits"}}
    whole = load_dataset(cfg)
    part = load_dataset({**cfg, "train": {"classes": [3, "7"]}})
    assert set(part.pretrain.labels.tolist()) == {3, 7}
    wanted = whole.train.resident.tensor[torch.isin(whole.train.labels, torch.tensor([3, 7]))]
    assert torch.equal(part.pretrain.resident.tensor, wanted)
    assert part.train is not None
    assert len(part.train) == len(whole.train)


@pytest.mark.parametrize(
    ("words", "says"), [("train.classes=[12]", "no class 12"), ("train.classes=[]", "must name a class")]
)
def test_train_classes_unknown(cli, words, says):
    result = cli("pretrain", words, *SMALL)
    assert result.code == 2
    assert says in result.err
