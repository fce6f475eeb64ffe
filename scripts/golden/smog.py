"""Writes tests/golden/smog.json: what lightly's SMoGPrototypes answers, in float64, to inputs made from seeds.

pip install . && pip install --no-deps "lightly==1.6.*" lightly_utils
python scripts/golden/smog.py
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "golden"))

from golden_inputs import numbers, save

SIZES = [(3, 2, 4), (6, 5, 3), (16, 8, 12)]  # samples, width, groups


def main() -> None:
    from lightly.models.modules.heads import SMoGPrototypes

    cases = []
    for n, d, k in SIZES:
        z, told = (F.normalize(numbers(seed, n, d), dim=1).requires_grad_() for seed in (0, 1))
        groups = F.normalize(numbers(9, k, d), dim=1)
        theirs = SMoGPrototypes(groups.clone(), beta=0.9)
        own = theirs.assign_groups(told)
        moved = theirs.get_updated_group_features(z)
        p = numbers(2, n, d).requires_grad_()
        loss = F.cross_entropy(theirs(p, moved, temperature=0.1), own)
        loss.backward()
        cases.append(
            {
                "n": n,
                "d": d,
                "k": k,
                "own": own.tolist(),
                "moved": moved.flatten().tolist(),
                "loss": loss.item(),
                "grad_p": p.grad.flatten().tolist(),
                "grad_z": z.grad.flatten().tolist(),
            }
        )
    save("smog", {"made_with": f"lightly {version('lightly')}, torch {version('torch')}", "cases": cases})


if __name__ == "__main__":
    main()
