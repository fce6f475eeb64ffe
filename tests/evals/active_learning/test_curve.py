"""Picks in the label curve."""

from __future__ import annotations

import pytest
import torch

from sslcli.errors import RequestError
from sslcli.evals.active_learning.curve import PickedProbe, picked_sets
from sslcli.evals.base.features import EvalData
from sslcli.evals.inputs.label_subsets import Amount, draw
from sslcli.evals.labels import curve
from sslcli.evals.probe import probe
from tests.evals import toys
from tests.evals.active_learning.test_rules import make_pool


def test_probe_of_picks_is_that_of_eval_probe():
    data = EvalData(toys.dataset(), untrained=toys.Rows)
    backbone = toys.Rows()
    train, test = data.features(backbone, "train"), data.features(backbone, "test")
    expected = probe(backbone, data, labels="3/class", seeds=2, baselines=False).details["draws"]["top1"]
    ours = PickedProbe(train, test, data.seed)
    assert [ours.accuracy(draw(train[1], Amount("per class", 3), data.seed, i), i) for i in range(2)] == expected
    one = torch.nonzero(train[1] == 0).flatten()[:2]
    assert ours.accuracy(one, 0) == float((test[1] == 0).double().mean())


@pytest.mark.parametrize("by", ["typical", "uncertain"])
def test_picks_grow(by):
    pool = make_pool()
    y = torch.arange(len(pool)) % 6
    few, more, most = picked_sets(by, pool, y, [6, 12, 30], 1)
    assert (len(few), len(more), len(most), len(most.unique())) == (6, 12, 30, 30)
    assert torch.equal(most[:12], more)
    assert torch.equal(more[:6], few)


def test_curve_has_picks_beside_random_ones():
    data = EvalData(toys.dataset(), untrained=toys.Rows)
    options = {"amounts": [1, 3], "seeds": 2, "supervised": False}
    result = curve(toys.Rows(), data, **options, picks="typical")
    picked = {f"{by}.top1@{n}{end}" for by in ("typical", "random_picks") for n in (1, 3) for end in ("", "_std")}
    assert picked <= result.metrics.keys()
    assert "typical.top1@1_ci95" in result.intervals
    curves = result.details["curve"]
    assert curves["typical"]["labels"] == curves["random_picks"]["labels"] == curves["self-supervised"]["labels"]
    assert not {"typical", "random_picks"} & set(result.details["labels_saved"][0]["needs"])
    assert "random picks" in result.artefacts["curve.png"].caption
    with pytest.raises(RequestError, match="unknown rule"):
        curve(toys.Rows(), data, **options, picks="typicl")
    with pytest.raises(RequestError, match="nothing to pick"):
        curve(toys.Rows(), data, **{**options, "amounts": ["all"]}, picks="typical")


def test_command_line_names_a_rule(cli):
    result = cli("eval", "labels", "run=none", "device=cpu", "device.threads=1", "backbone.width=8", "picks=typicl")
    assert result.code == 2
    assert "picks=typical" in result.err
