"""Losses against other implementations, by stored values in tests/golden (written by scripts/golden)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from golden_inputs import fill, load, numbers, uniform

from sslcli.backbones.vit import ViT
from sslcli.methods.base import Batch
from sslcli.methods.mae import MAE
from sslcli.methods.moco_v2 import info_nce
from sslcli.methods.simclr import nt_xent
from sslcli.methods.vicreg import vicreg_terms
from sslcli.nn.losses import negative_cosine_similarity
from sslcli.rng import Draw

LOSSES = load("losses")["cases"]
every_size = pytest.mark.parametrize("case", LOSSES, ids=lambda c: f"{c['n']}x{c['d']}")
EXACT = 1e-10  # float64 on both sides; the order of sums differs


def pair(case):
    return numbers(1, case["n"], case["d"]), numbers(2, case["n"], case["d"])


@every_size
def test_nt_xent_matches_lightly(case):
    for temperature, loss in case["nt_xent"].items():
        assert nt_xent(*pair(case), float(temperature)).item() == pytest.approx(loss, rel=EXACT)


@every_size
def test_moco_matches_lightly_memory_bank(case):
    z1, z2 = (F.normalize(z, dim=1) for z in pair(case))
    bank = F.normalize(numbers(3, 7, case["d"]), dim=1)
    assert info_nce(z1, z2, bank, 0.2).item() == pytest.approx(case["moco"], rel=EXACT)


@every_size
def test_cosine_distance_matches_lightly(case):
    assert negative_cosine_similarity(*pair(case)).item() == pytest.approx(
        case["negative_cosine"], rel=EXACT, abs=EXACT
    )


@every_size
def test_vicreg_matches_lightly(case):
    terms = vicreg_terms(*pair(case))
    assert terms["covariance"].item() == pytest.approx(case["vicreg_covariance"], rel=EXACT)
    assert 25 * terms["variance"].item() == pytest.approx(case["vicreg_variance"], rel=EXACT)
    loss = 25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"]
    assert loss.item() == pytest.approx(case["vicreg"], rel=EXACT)


class FixedMask(Batch):
    """A batch whose mask scores are the noise of the reference."""

    def uniform(self, purpose, *shape):
        assert (purpose, shape) == ("mask", (16,))
        return uniform(6, 3, 16)


@pytest.mark.parametrize("case", load("mae")["cases"], ids=["norm_pix", "raw"])
def test_mae_matches_transformers(case):
    network = ViT((case["channels"], 8, 8), width=16, depth=2, heads=2, patch=2)
    method = fill(MAE(network, norm_pix=case["norm_pix"], decoder_depth=2), 20)
    x = numbers(5, 3, case["channels"], 8, 8)
    data = FixedMask([x], ["weak"], Draw(0, 0, torch.arange(3)))
    _, hidden = method.predict(x, data.uniform("mask", 16))
    assert hidden.int().tolist() == case["hidden"]
    # transformers keeps positions in float32; norm_pix divides by the std of 4 x C values, which magnifies rounding
    assert method(data)["loss"].item() == pytest.approx(case["loss"], rel=1e-6)
