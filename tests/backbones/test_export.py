"""Every backbone as a program of torch.export, for batches of any size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sslcli.backbones.base import Backbone
from tests import rows
from tests.backbones.test_backbones import NAMES, SMALL, recipe, target
from tests.sequences import VALUES

SHAPES: dict[str, tuple[int, ...]] = {"clip_convnet": (1, 4, 16, 16), "clip_vit": (1, 4, 16, 16)}
SHAPES |= dict.fromkeys(("patchtst", "dilated", "gru", "inception", "rocket", "tcn"), (2, 24))
OTHERS = {"sasrec", "bert4rec", "bag", "bert_micro", "bert_tiny", "bert_small", "bert_base"}  # of sequences of tokens


def build(name: str) -> tuple[Backbone, torch.Tensor]:
    options: dict[str, Any] = {k: v for k, v in recipe(name).items() if k not in ("_target_", "summary")}
    options |= SMALL if "heads" in options else {}
    options |= {"patch": 8} if "patch" in options and name.startswith(("vit", "clip")) else {}
    options |= {"name": "resnet18"} if name in ("torchvision", "timm") else {}
    if name in OTHERS:
        x = torch.randint(VALUES.size, (3, 12), generator=torch.Generator().manual_seed(0))
        x[0, 5:] = VALUES.pad
        return target(name)(input_shape=(12,), values=VALUES, **options), x
    if name in ("mlp", "ft_transformer"):
        return target(name)(input_shape=(6,), values=rows.VALUES, **options), rows.rows(3)[0]
    shape = SHAPES.get(name, (2, 24, 24))
    return target(name)(input_shape=shape, **options), torch.randn(3, *shape)


@pytest.mark.filterwarnings(
    "ignore:The tensor attributes:UserWarning"
)  # the weights of a GRU, which torch.export copies
@pytest.mark.parametrize("name", NAMES)
def test_batches_of_any_size(name):
    if name == "timm":
        pytest.importorskip("timm")
    torch.manual_seed(0)
    backbone, x = build(name)
    backbone.eval()
    with torch.no_grad():
        program = torch.export.export(backbone, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)).module()
        for n in (1, 3, 5):
            more = x.repeat(2, *[1] * (x.ndim - 1))[:n]
            torch.testing.assert_close(program(more), backbone(more), rtol=1e-4, atol=1e-5)
