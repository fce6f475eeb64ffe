from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sslcli.evals.finetuning.mixup import blend, cut_box, mix_batch, paste

X = torch.rand(6, 3, 10, 14, generator=torch.manual_seed(0))
Y = torch.tensor([0, 1, 2, 3, 1, 0])


def gradient(x, targets):
    """Of a linear model's loss in its weights."""
    w = torch.linspace(-1, 1, x[0].numel() * 4).view(-1, 4).requires_grad_()
    F.cross_entropy(x.flatten(1) @ w * 0.01, targets).backward()
    return w.grad


@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 1.0])
def test_mixup_matches_torchvision(share):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    theirs = v2.MixUp(num_classes=4)
    params = {"lam": share, "labels": Y, "batch_size": len(Y)}
    x, targets = theirs.transform(X, params), theirs.transform(Y, params)
    mine = blend(X, share), blend(F.one_hot(Y, 4).float(), share)
    torch.testing.assert_close(mine[0], x)
    torch.testing.assert_close(mine[1], targets)
    torch.testing.assert_close(gradient(*mine), gradient(x, targets))


@pytest.mark.parametrize(
    ("share", "center"), [(0.3, (0.5, 0.5)), (0.75, (0.05, 0.95)), (0.99, (0.5, 0.5)), (0.0, (0.3, 0.6))]
)
def test_cutmix_matches_torchvision(share, center, monkeypatch):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    theirs = v2.CutMix(num_classes=4)
    monkeypatch.setattr(theirs._dist, "sample", lambda _: torch.tensor(share))
    drawn = iter([int(center[1] * 14), int(center[0] * 10)])  # torchvision draws the column first
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([next(drawn)]))
    params = theirs.make_params([X]) | {"labels": Y, "batch_size": len(Y)}
    x, targets = theirs.transform(X, params), theirs.transform(Y, params)
    mine, left = paste(X, cut_box((10, 14), share, list(center)))
    assert left == pytest.approx(params["lam_adjusted"])
    torch.testing.assert_close(mine, x)
    soft = blend(F.one_hot(Y, 4).float(), left)
    torch.testing.assert_close(soft, targets)
    torch.testing.assert_close(gradient(mine, soft), gradient(x, targets))


def test_cutmix_cuts_series_in_time():
    assert cut_box((100,), 0.6, [0.5]) == (slice(30, 70),)
    x, left = paste(torch.arange(200.0).view(2, 1, 100), (slice(30, 70),))
    assert left == pytest.approx(0.6)
    assert x[0, 0, 30:70].tolist() == list(range(130, 170))
    assert x[0, 0, :30].tolist() == list(range(30))


def test_mixing_depends_on_the_seed_only():
    x, targets = mix_batch(X, Y, 4, 0.0, 0.0, 5)
    assert x is X
    assert torch.equal(targets, F.one_hot(Y, 4).float())
    for alphas in ((0.4, 0.0), (0.0, 1.0), (0.4, 1.0)):
        first, again, other = (mix_batch(X, Y, 4, *alphas, seed) for seed in (5, 5, 6))
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
        assert not torch.equal(first[0], other[0])
        torch.testing.assert_close(first[1].sum(dim=1), torch.ones(6))
    before = X.clone()
    mix_batch(X, Y, 4, 1.0, 1.0, 1)
    assert torch.equal(X, before)
