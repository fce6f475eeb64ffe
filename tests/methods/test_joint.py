"""Objectives that are joined with self-supervision: clusters, one class; what evaluators make of them; train.classes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sslcli.backbones.convnet import ConvNet
from sslcli.methods.base import Facts
from sslcli.methods.clustering_head import ClusteringHead, lost_information
from sslcli.methods.deep_svdd import DeepSVDD, distance, soft_boundary
from tests.methods.oracles import draws, images


def small() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet((1, 8, 8), width=4)


# clusters ------------------------------------------------------------------------------------------------------------


def test_lost_information_by_hand():
    a, b = draws(7, 3)
    p, q = a.softmax(dim=1).numpy(), b.softmax(dim=1).numpy()
    joint = np.zeros((3, 3))
    for i in range(7):
        for c in range(3):
            for d in range(3):
                joint[c, d] += (p[i, c] * q[i, d] + p[i, d] * q[i, c]) / 14
    information = sum(
        joint[c, d] * math.log(joint[c, d] / (joint[c].sum() * joint[:, d].sum())) for c in range(3) for d in range(3)
    )
    assert lost_information(a, b).item() == pytest.approx(-information, rel=1e-10)


def test_lost_information_is_scikit_learns_where_clusters_are_certain():
    from sklearn.metrics import mutual_info_score

    labels = torch.tensor([0, 0, 1, 2, 2, 2, 1, 0])
    certain = 100.0 * F.one_hot(labels, 3).double()
    own = mutual_info_score(labels.numpy(), labels.numpy())
    assert lost_information(certain, certain).item() == pytest.approx(-own, rel=1e-9)
    even = 100.0 * F.one_hot(torch.arange(9) % 3, 3).double()
    assert lost_information(even, even).item() == pytest.approx(-math.log(3), rel=1e-9)  # the least there is
    one = torch.zeros(8, 3, dtype=torch.float64)
    assert lost_information(one, one).item() == pytest.approx(0.0, abs=1e-12)  # nothing is said
    a, b = draws(8, 3)
    assert lost_information(a, b).item() == pytest.approx(lost_information(b, a).item())


def test_the_head_with_the_best_average_is_believed():
    method = ClusteringHead(small(), clusters=3, heads=2, finer=0).eval()
    x = images(4).views[0]
    for best in (0, 1):
        method.running.copy_(torch.tensor([0.0, -1.0] if best else [-1.0, 0.0]))
        wanted = method.heads[best](method.backbone(x)).softmax(dim=1)
        assert torch.allclose(method.assign(x), wanted, atol=1e-6)


def test_averages_move_after_the_step():
    method = ClusteringHead(small(), clusters=3, heads=2)
    data = images(6)
    method(data)
    assert not method.running.any()
    h1, h2 = (method.backbone(x) for x in data.views)
    own = torch.stack([lost_information(head(h1), head(h2)) for head in method.heads])
    method.after_step(0.1)
    assert torch.allclose(method.running, 0.01 * own.detach(), atol=1e-5)


# one class -----------------------------------------------------------------------------------------------------------


def test_distance_by_hand():
    z, centre = F.normalize(draws(5, 4)[0], dim=1), draws(5, 4)[1][0]
    c = centre.numpy() / math.sqrt(float(centre @ centre))
    slow = [sum((z[i, j].item() - c[j]) ** 2 for j in range(4)) for i in range(5)]
    assert distance(z, centre).tolist() == pytest.approx(slow, rel=1e-10)


def test_soft_boundary_by_hand():
    distances = torch.tensor([0.1, 0.4, 0.2, 0.9, 0.3], dtype=torch.float64)
    radius = np.quantile(distances.numpy(), 0.8)
    slow = radius + sum(max(0.0, d - radius) for d in distances.tolist()) / 5 / 0.2
    assert soft_boundary(distances, 0.2).item() == pytest.approx(slow, rel=1e-10)


def test_the_centre_is_the_mean_of_the_first_epoch_and_stands_still_then():
    torch.manual_seed(0)
    method = DeepSVDD(small(), Facts(20, 0, 2)).eval()
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


def test_the_centre_is_not_taught():
    z, centre = F.normalize(draws(5, 4)[0], dim=1).requires_grad_(), draws(5, 4)[1][0].requires_grad_()
    distance(z, centre).sum().backward()
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


def test_a_clustering_head_is_measured_beside_kmeans(cli):
    run = Path(cli("pretrain", "experiment=joint_clustering", *SMALL).last)
    numbers = json.loads(cli("eval", "cluster", "--json", "evaluator.baselines=false").out)["numbers"]
    assert {"acc", "head.acc", "head.nmi", "head.ari", "head.used"} <= set(numbers)
    assert 1 <= numbers["head.used"] <= 10
    assert (run / "eval" / "cluster_head_exemplars.png").is_file()
    cli("pretrain", *SMALL)
    assert "head.acc" not in json.loads(cli("eval", "cluster", "--json", "evaluator.baselines=false").out)["numbers"]


def test_an_anomaly_objective_is_measured_beside_distances(cli):
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


def test_pretraining_on_some_classes_reads_their_samples_alone():
    from sslcli.job import load_dataset

    cfg = {"dataset": {"_target_": "sslcli.data.classic.digits", "holdout": 0.2, "split_seed": 0, "name": "digits"}}
    whole = load_dataset(cfg)
    part = load_dataset({**cfg, "train": {"classes": [3, "7"]}})
    assert set(part.pretrain.labels.tolist()) == {3, 7}
    wanted = whole.train.resident[torch.isin(whole.train.labels, torch.tensor([3, 7]))]
    assert torch.equal(part.pretrain.resident, wanted)
    assert part.train is not None
    assert len(part.train) == len(whole.train)


@pytest.mark.parametrize(
    ("words", "says"), [("train.classes=[12]", "no class 12"), ("train.classes=[]", "at least one")]
)
def test_classes_that_are_not_there_are_told(cli, words, says):
    result = cli("pretrain", words, *SMALL)
    assert result.code == 2
    assert says in result.err
