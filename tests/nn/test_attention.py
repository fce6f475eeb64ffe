"""Attention by matrix products, as in training in bfloat16 on a processor, against PyTorch's in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sslcli.nn import attention as module
from sslcli.nn.attention import attention

MASKS = {
    "none": None,
    "keys": torch.arange(9) < torch.tensor([9, 4, 1])[:, None, None, None],
    "pairs": (torch.rand(3, 1, 7, 9, generator=torch.Generator().manual_seed(1)) < 0.5).index_fill(
        3, torch.tensor([2]), True
    ),
}


def tensors(dtype: torch.dtype, n: int = 7, m: int = 9) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2, n, 16), (3, 2, m, 16), (3, 2, m, 16)]
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def slow_reference(mask: torch.Tensor | None, causal: bool, n: int = 7, m: int = 9) -> list[torch.Tensor]:
    """The output and the gradients of its sum of squares, in float64 from the rounded inputs."""
    inputs = [x.detach().double().requires_grad_() for x in tensors(torch.bfloat16, n, m)]
    out = F.scaled_dot_product_attention(*inputs, attn_mask=mask, is_causal=causal)
    return [out, *torch.autograd.grad((out**2).sum(), inputs)]


@pytest.mark.parametrize("mask", MASKS)
def test_products_match_sdpa_in_float64(mask, monkeypatch):
    monkeypatch.setattr(F, "scaled_dot_product_attention", None)  # is not called
    inputs = tensors(torch.bfloat16)
    out = attention(*inputs, MASKS[mask])
    found = [out, *torch.autograd.grad((out.float() ** 2).sum(), inputs)]
    monkeypatch.undo()
    for a, b in zip(found, slow_reference(MASKS[mask], causal=False), strict=True):
        assert a.dtype == torch.bfloat16
        assert torch.allclose(a.double(), b, atol=0.02 * b.abs().max().item())


def test_causal_products_match_sdpa_in_float64():
    inputs = tensors(torch.bfloat16, 9, 9)
    out = attention(*inputs, causal=True)
    expected = slow_reference(None, causal=True, n=9)
    assert torch.allclose(out.double(), expected[0], atol=0.02)
    assert torch.equal(out[:, :, 0], inputs[2][:, :, 0])


def test_products_are_those_of_autocast():
    """Autocast would compute the softmax in float32 and round it for the product: the same to a rounding."""
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(*tensors(torch.bfloat16))
    assert torch.equal(out, attention(*tensors(torch.bfloat16)))


def test_a_query_without_keys_has_finite_gradients():
    inputs = tensors(torch.bfloat16)
    mask = torch.ones(3, 1, 7, 9, dtype=torch.bool)
    mask[0, :, 0] = False
    attention(*inputs, mask).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in inputs)


def test_dropout_drops_weights():
    torch.manual_seed(0)
    inputs = tensors(torch.bfloat16)
    assert not torch.equal(attention(*inputs, dropout=0.5), attention(*inputs))
    mean = sum(attention(*inputs, dropout=0.5).float() for _ in range(400)) / 400
    assert torch.allclose(mean, attention(*inputs).float(), atol=0.3)


@pytest.mark.parametrize("case", ["float32", "inference", "long"])
def test_elsewhere_it_is_sdpa(case, monkeypatch):
    inputs = tensors(torch.float32 if case == "float32" else torch.bfloat16)
    monkeypatch.setattr(module, "MAX_PRODUCTS", 8 if case == "long" else 511)
    with torch.set_grad_enabled(case != "inference"):
        assert torch.equal(attention(*inputs), F.scaled_dot_product_attention(*inputs))
