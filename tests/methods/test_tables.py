"""SCARF and VIME against the papers' formulas written with loops, and every method that runs on tables, on a table."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sslcli.backbones.mlp import MLP
from sslcli.methods.base import Batch
from sslcli.methods.scarf import SCARF
from sslcli.methods.vime import VIME, mask_loss, replaced
from sslcli.nn.losses import contrastive_loss
from sslcli.rng import Draw
from sslcli.views import Views
from tests.methods.oracles import cos, draws, every_size
from tests.rows import VALUES, dataset


def scarf_slowly(z: np.ndarray, corrupted: np.ndarray, t: float) -> float:
    """Algorithm 1, with loops; its factor 1 / N inside the logarithm is left out."""
    total = 0.0
    for i in range(len(z)):
        s = [cos(z[i], other) for other in corrupted]
        total += -math.log(math.exp(s[i] / t) / sum(math.exp(v / t) for v in s))
    return total / len(z)


@every_size
@pytest.mark.parametrize("t", [1.0, 0.2])
def test_scarf_loss_matches_reference(n, d, t):
    z, other = draws(n, d)
    assert contrastive_loss(z, other, t).item() == pytest.approx(scarf_slowly(z.numpy(), other.numpy(), t), rel=1e-10)


def test_scarf_gradients_match_differences():
    z, other = (v.requires_grad_() for v in draws(5, 3))
    contrastive_loss(z, other, 1.0).backward()
    step = 1e-6
    for tensor, grad in ((z, z.grad), (other, other.grad)):
        for i, j in ((0, 0), (3, 2), (4, 1)):
            ends = []
            for sign in (1, -1):
                moved = [v.detach().clone() for v in (z, other)]
                moved[0 if tensor is z else 1][i, j] += sign * step
                ends.append(scarf_slowly(moved[0].numpy(), moved[1].numpy(), 1.0))
            assert grad[i, j].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-7)


def columns(recipe: dict, n: int = 12) -> Batch:
    data, draw = dataset(), Draw(0, 0, torch.arange(n))
    views = Views({"clean": 1, "corrupted": 1}, {"corrupted": recipe}, data)
    return Batch(views(data.train.resident.tensor[:n], draw), views.kinds, draw)


def network() -> MLP:
    torch.manual_seed(0)
    return MLP((6,), width=16, values=VALUES).eval()


def vime_slowly(method: VIME, batch: Batch) -> torch.Tensor:
    """Eqs. (4) to (6), entry by entry."""
    x, corrupted = batch.views
    h = method.backbone(corrupted)
    masks, values, starts = [], [], [0, 1, 5, 6, 9, 15]
    for i in range(len(x)):
        logits = method.mask_head.weight @ h[i] + method.mask_head.bias
        outputs = method.value_head.weight @ h[i] + method.value_head.bias
        for j, n in enumerate(VALUES.categories):
            a, b = x[i, j].item(), corrupted[i, j].item()
            m = 0.0 if a == b or (math.isnan(a) and math.isnan(b)) else 1.0
            p = torch.sigmoid(logits[j])
            masks.append(-(m * p.log() + (1 - m) * (1 - p).log()))
            if n and a != 0:
                values.append(-outputs[starts[j] : starts[j] + n].log_softmax(0)[int(a)])
            elif not n and not math.isnan(a):
                values.append((outputs[starts[j]] - a) ** 2)
    return torch.stack(masks).mean() + 2.0 * torch.stack(values).mean()


def test_vime_loss_and_gradients_match_reference():
    method, batch = VIME(network()), columns({"corrupt": {"share": 0.3, "exact": False}})
    assert replaced(*batch.views).any()
    slow, loss = vime_slowly(method, batch), method(batch)["loss"]
    torch.testing.assert_close(loss, slow, rtol=1e-5, atol=1e-6)
    parameters = list(method.parameters())
    for a, b in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(slow, parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_replaced_compares_missing_values():
    nan = math.nan
    x = torch.tensor([[1.0, nan, nan, 2.0]])
    assert replaced(x, torch.tensor([[1.0, nan, 0.0, nan]])).tolist() == [[False, False, True, True]]


def test_mask_loss_is_entropy_of_a_fair_guess():
    assert mask_loss(torch.zeros(3, 4), torch.ones(3, 4, dtype=torch.bool)).item() == pytest.approx(math.log(2))


def test_vime_learns_to_find_replaced_numbers():
    """A number that equals another one unless it was replaced: the mask can be predicted far above chance."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    a = torch.randn(512, 1, generator=g)
    x = a.expand(-1, 6).contiguous()
    values = VALUES.__class__((0,) * 6, (0.0,) * 6, (1.0,) * 6)
    where = torch.rand(512, 6, generator=g) < 0.3
    corrupted = torch.where(where, torch.randn(512, 6, generator=g), x)
    method = VIME(MLP((6,), width=32, values=values))
    batch = Batch([x, corrupted], ["clean", "corrupted"], Draw(0, 0, torch.arange(512)))
    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        method(batch)["loss"].backward()
        optimizer.step()
    out = method(batch)
    constant = -(0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    assert out["mask"] < 0.85 * constant
    assert out["value"] < 0.3
    rebuilt = method.eval().reconstruct(batch)
    assert rebuilt.error().mean() < 0.4


def test_scarf_head_has_the_widths_of_the_paper():
    method = SCARF(MLP((6,), width=256, depth=4, values=VALUES))
    assert method.projector.describe().startswith("256-256-256")
    z = method.projector(F.relu(torch.randn(4, 256)))
    assert z.shape == (4, 256)
