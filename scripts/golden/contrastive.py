"""Writes tests/golden/contrastive.json: what other people's losses answer, in float64, to inputs made from seeds.

pip install . pytorch-metric-learning && pip install --no-deps "lightly==1.6.*" lightly_utils
python scripts/golden/contrastive.py
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "golden"))

from golden_inputs import numbers, save

SIZES = [(2, 3), (5, 8), (16, 32)]


def main() -> None:
    from lightly.loss import BarlowTwinsLoss, DCLLoss, DCLWLoss, NTXentLoss, TiCoLoss
    from lightly.loss.emp_ssl_loss import invariance_loss, tcr_loss
    from pytorch_metric_learning.losses import SupConLoss

    cases = []
    for n, d in SIZES:
        z1, z2 = numbers(1, n, d), numbers(2, n, d)
        labels = torch.arange(n) % 3
        tico = TiCoLoss(beta=0.9, rho=20.0).double()
        steps = [tico(numbers(s, n, d), numbers(s + 1, n, d)).item() for s in (1, 3, 5)]
        crops = F.normalize(torch.stack([numbers(seed, n, d) for seed in (1, 2, 3)]), dim=2)
        # one direction of MoCo v3 is a cross-entropy over the other view's keys: lightly's NT-Xent of key and memory has
        # other negatives, so the plain cross-entropy of torch stands here for it
        logits = F.normalize(z1, dim=1) @ F.normalize(z2, dim=1).T
        cases.append(
            {
                "n": n,
                "d": d,
                "dcl": {t: DCLLoss(temperature=float(t))(z1, z2).item() for t in ("0.07", "0.1", "0.5")},
                "dclw": DCLWLoss(temperature=0.1, sigma=0.5)(z1, z2).item(),
                "supcon": SupConLoss(temperature=0.2)(torch.cat([z1, z2]), torch.cat([labels, labels])).item(),
                "supcon_unlabelled": NTXentLoss(temperature=0.2)(z1, z2).item(),
                "barlow": BarlowTwinsLoss(lambda_param=0.0051)(z1, z2).item(),
                "tico": steps,
                # the terms alone: lightly adds the coding rate to the loss, where the paper and its code subtract it
                "emp_ssl": {"coding_rate": tcr_loss(crops, 0.2).item(), "similarity": -invariance_loss(crops).item()},
                "cross_entropy": F.cross_entropy(logits / 0.2, torch.arange(n)).item(),
            }
        )
    packages = ("lightly", "pytorch-metric-learning", "torch")
    save("contrastive", {"made_with": ", ".join(f"{p} {version(p)}" for p in packages), "cases": cases})


if __name__ == "__main__":
    main()
