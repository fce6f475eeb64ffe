"""Writes tests/golden/isotropic.json: lightly's LeJEPA, VISReg and W-MSE, in float64, on inputs and slices made from seeds.

pip install . && pip install --no-deps "lightly==1.6.*" lightly_utils
python scripts/golden/isotropic.py
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "golden"))

from golden_inputs import numbers, save

SIZES = [(5, 3), (16, 8), (40, 4)]


def main() -> None:
    from lightly.loss import LeJEPALoss, VISRegLoss, visreg_loss
    from lightly.loss.wmse_loss import WMSELoss

    cases = []
    for n, d in SIZES:
        slices = numbers(9, d, 7)
        seen, small = (
            torch.stack([numbers(s, n, d) for s in (1, 2)]),
            torch.stack([numbers(s, n, d) for s in (3, 4, 5)]),
        )
        lejepa = LeJEPALoss(lambda_param=0.1, sigreg_num_vectors=7).double()
        lejepa.sigreg.t, lejepa.sigreg.phi = lejepa.sigreg.t.double(), lejepa.sigreg.phi.double()
        with mock.patch("torch.randn", side_effect=lambda *_, given=slices, **__: given.clone()):
            case = {"n": n, "d": d, "lejepa": lejepa(local_proj=small, global_proj=seen).item()}
            case["sigreg"] = lejepa.sigreg(seen).item()
            whole = VISRegLoss(lambda_param=0.6, num_slices=7)(local_proj=small, global_proj=seen)
            every = torch.cat([seen, small])
            case["visreg_shape"] = visreg_loss.visreg_shape_loss(every, 7).item()
        case["visreg_centre"] = visreg_loss.visreg_center_loss(every).item()
        case["visreg_scale"] = visreg_loss.visreg_scale_loss(every).item()
        case["visreg"] = float(whole if isinstance(whole, torch.Tensor) else whole.total)
        if n // 2 >= 2 * d:
            with mock.patch("torch.randperm", return_value=torch.arange(n)):
                w_mse = WMSELoss(embedding_dim=d, w_size=n // 2, eps=0.0, track_running_stats=False).double()
                case["w_mse"] = w_mse(torch.cat([seen[0], seen[1]])).item()
        cases.append(case)
    save("isotropic", {"made_with": f"lightly {version('lightly')}, torch {version('torch')}", "cases": cases})


if __name__ == "__main__":
    main()
