"""Convolutions in bf16 on a processor: those whose gradient oneDNN does not compute, or slowly, are in float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslcli.nn.cpu_bf16 import Autocast

CASES = {  # convolution, size of the input, whether it is in float32
    "stride at one pixel": (nn.Conv2d(64, 128, 3, stride=2, padding=1), (1, 1), True),
    "one pixel": (nn.Conv2d(64, 128, 3, padding=1), (1, 1), True),
    "one row": (nn.Conv2d(64, 128, 3, padding=1), (1, 8), True),
    "large kernel": (nn.Conv2d(64, 64, 7, padding=3, groups=64), (6, 6), True),
    "dilated": (nn.Conv2d(64, 64, 3, padding=2, dilation=2), (4, 4), True),
    "steps": (nn.Conv1d(64, 64, 5, stride=2, padding=2), (1,), True),
    "two frames": (nn.Conv3d(64, 64, 3, padding=1), (2, 2, 2), True),
    "transposed": (nn.ConvTranspose2d(128, 64, 3, stride=2, padding=1), (1, 1), True),
    "transposed, one row": (nn.ConvTranspose3d(16, 32, 2, padding=1), (2, 8, 5), True),
    "usual": (nn.Conv2d(64, 128, 3, stride=2, padding=1), (3, 3), False),
    "usual dilated": (nn.Conv2d(64, 64, 3, padding=2, dilation=2), (5, 5), False),
    "usual transposed": (nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1), (2, 2), False),
    "depthwise, stride": (nn.Conv2d(64, 64, 3, stride=2, padding=1, groups=64), (8, 8), True),
    "depthwise, stride along an axis": (nn.Conv2d(64, 64, 3, stride=(1, 2), padding=1, groups=64), (8, 8), True),
    "depthwise, 5 x 5": (nn.Conv2d(64, 64, 5, padding=2, groups=64), (8, 8), True),
    "depthwise, 3 x 3": (nn.Conv2d(64, 64, 3, padding=1, groups=64), (8, 8), False),
    "grouped": (nn.Conv2d(64, 64, 5, stride=2, padding=2, groups=32), (8, 8), False),
    "pointwise": (nn.Conv2d(64, 64, 1), (1, 1), False),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_types(case):
    conv, size, in_float32 = CASES[case]
    torch.manual_seed(0)
    for parameter in conv.parameters():
        parameter.grad = None
    x = torch.randn(4, conv.in_channels, *size)
    for bits in (torch.float32, torch.bfloat16):  # memory that is not initialized holds nan
        del [torch.full((n,), torch.nan, dtype=bits) for n in (conv.weight.numel(), x.numel()) for _ in range(3)][:]
    with Autocast():
        z = conv(x)
    assert z.dtype == (torch.float32 if in_float32 else torch.bfloat16)
    g = torch.randn_like(z)
    z.backward(g)
    exact = [p.detach().double().requires_grad_() for p in conv.parameters()]
    torch.func.functional_call(conv, dict(zip(("weight", "bias"), exact, strict=True)), (x.double(),)).backward(
        g.double()
    )
    for parameter, expected in zip(conv.parameters(), exact, strict=True):
        assert parameter.grad is not None
        assert expected.grad is not None
        scale = expected.grad.abs().max()
        torch.testing.assert_close(parameter.grad.double() / scale, expected.grad / scale, rtol=0, atol=0.02)


def test_arguments_by_name_and_no_change_without_autocast():
    x, weight = torch.randn(2, 8, 1), torch.randn(4, 8, 3)
    with Autocast():
        assert F.conv1d(input=x, weight=weight, padding=1).dtype == torch.float32
        assert F.conv1d(x, weight=weight, padding=(1,), dilation=(1,)).dtype == torch.float32
        assert F.conv1d(x.expand(2, 8, 1).repeat(1, 1, 9), weight, padding="same", dilation=4).dtype == torch.bfloat16
        assert (x.flatten(1) @ torch.randn(8, 3)).dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert F.conv1d(x.bfloat16(), weight.bfloat16(), padding=1).dtype == torch.bfloat16
    assert F.conv1d(x, weight, padding=1).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
