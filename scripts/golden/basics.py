"""Writes tests/golden/losses.json and vit.json: what other people's code answers to inputs made from seeds.

The tests read these files and need none of the packages. To make them again, in an environment of its own:

    pip install . timm && pip install --no-deps "lightly==1.6.*" lightly_utils
    python scripts/golden/basics.py
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "tests" / "golden")]

from golden_inputs import fill, numbers, save  # noqa: E402

from sslcli.backbones.vit import ViT  # noqa: E402

SIZES = [(2, 3), (5, 8), (16, 32)]


def losses() -> None:
    """lightly's losses in float64."""
    from lightly.loss import NegativeCosineSimilarity, NTXentLoss, VICRegLoss

    cases = []
    for n, d in SIZES:
        z1, z2 = numbers(1, n, d), numbers(2, n, d)
        bank = nn.functional.normalize(numbers(3, 7, d), dim=1)
        moco = NTXentLoss(temperature=0.2, memory_bank_size=(7, d)).double()
        moco.memory_bank.bank = bank.clone()
        moco.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.int64)
        cases.append(
            {
                "n": n,
                "d": d,
                "nt_xent": {t: NTXentLoss(temperature=float(t))(z1, z2).item() for t in ("0.1", "0.2", "0.5")},
                "moco": moco(z1, z2).item(),
                "negative_cosine": NegativeCosineSimilarity()(z1, z2).item(),
                "vicreg": VICRegLoss()(z1, z2).item(),
                "vicreg_covariance": VICRegLoss(lambda_param=0.0, mu_param=0.0)(z1, z2).item(),
                "vicreg_variance": VICRegLoss(lambda_param=0.0, nu_param=0.0)(z1, z2).item(),
            }
        )
    save("losses", {"made_with": f"lightly {version('lightly')}, torch {version('torch')}", "cases": cases})


def vit() -> None:
    """timm's VisionTransformer with our weights: every token after the last norm."""
    from timm.models.vision_transformer import VisionTransformer

    cases = []
    sizes = {"width": 16, "depth": 2}
    for shape, patch, heads in [((3, 8, 8), 4, 2), ((1, 6, 12), 3, 4)]:
        ours = fill(ViT(shape, **sizes, heads=heads, patch=patch, positions="learned"), 10)
        theirs = VisionTransformer(
            img_size=shape[1:], patch_size=patch, in_chans=shape[0], num_classes=0, embed_dim=16, depth=2,
            num_heads=heads,
        ).double()  # fmt: skip
        theirs.load_state_dict(ours.state_dict(), strict=True)
        tokens = theirs.eval().forward_features(numbers(4, 2, *shape))
        case = {"shape": shape, "patch": patch, "heads": heads, "keys": sorted(theirs.state_dict())}
        cases.append(case | {"tokens": tokens.flatten().tolist()})
    save("vit", {"made_with": f"timm {version('timm')}, torch {version('torch')}", "cases": cases})


if __name__ == "__main__":
    losses()
    vit()
