"""Writes tests/golden/distillation.json: what other people's losses answer, in float64, to inputs made from seeds.

pip install . && pip install --no-deps "lightly==1.6.*" lightly_utils "solo-learn==1.0.*"
python scripts/golden/distillation.py
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "golden"))

from golden_inputs import numbers, save, uniform

SIZES = [(2, 3), (5, 8), (16, 32)]


def alone(path: str) -> Any:
    """One file of solo-learn as a module: the package itself imports Lightning's bolts."""
    file = distribution("solo-learn").locate_file(path)
    spec = importlib.util.spec_from_file_location(Path(path).stem, str(file))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss

    ressl_loss_func = alone("solo/losses/ressl.py").ressl_loss_func
    warm = 0.0625  # lightly keeps temperatures in float32: one that it keeps exactly
    cases = []
    for n, d in SIZES:
        dino = DINOLoss(output_dim=d, teacher_temp=warm, student_temp=0.1, center_momentum=0.9).double()
        student, teacher = [numbers(s, n, d) for s in range(4)], [numbers(s, n, d) for s in (4, 5)]
        losses = [dino(teacher, student).item() for _ in range(3)]  # the centre moves after each
        mask = uniform(6, n, 2, 3) < 0.5
        mask[0, 0, 0], mask[-1] = True, False  # one sample without hidden tokens
        ibot = IBOTPatchLoss(output_dim=d, teacher_temp=warm, student_temp=0.1).double()
        ibot.center.center = numbers(7, 1, d)
        hidden = (numbers(8, n, 6, d)[mask.flatten(1)], numbers(9, n, 6, d)[mask.flatten(1)])
        q, k, queue = (F.normalize(numbers(s, m, d), dim=1) for s, m in ((1, n), (2, n), (3, 7)))
        cases.append(
            {
                "n": n,
                "d": d,
                "dino": losses,
                "centre": dino.center.flatten().tolist(),
                "mask": mask.flatten(1).int().tolist(),
                "ibot": ibot(*hidden, mask).item(),
                "koleo": KoLeoLoss()(numbers(10, n, d)).item(),
                "ressl": ressl_loss_func(q, k, queue, 0.1, 0.04).item(),
            }
        )
    made = ", ".join(f"{p} {version(p)}" for p in ("lightly", "solo-learn", "torch"))
    save("distillation", {"made_with": made, "cases": cases})


if __name__ == "__main__":
    main()
