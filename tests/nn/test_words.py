from __future__ import annotations

import pytest
import torch

from sslcli.nn.values import Tokens
from sslcli.nn.values_json import values_from_json
from sslcli.nn.words import are_flags, pack_flags, unpack_flags


@pytest.mark.parametrize("n", [1, 8, 9, 30_522])
def test_flags_in_a_string(n: int):
    flags = torch.rand(n, generator=torch.Generator().manual_seed(n)) < 0.3
    flags[0] = True
    assert torch.equal(unpack_flags(pack_flags(flags), n), flags)
    assert are_flags(pack_flags(flags), n)
    assert len(pack_flags(flags)) <= n / 6 + 4


def test_no_flags():
    assert pack_flags(torch.zeros(9, dtype=torch.bool)) == ""
    assert not unpack_flags("", 9).any()
    assert are_flags("", 9)


@pytest.mark.parametrize("text", ["x", "AA==BB", "é", "AAAA"])
def test_strings_that_are_no_flags(text: str):
    assert not are_flags(text, 9)
    assert not Tokens(9, continues=text).fits((4,))


def test_word_starts():
    continues = torch.zeros(12, dtype=torch.bool)
    continues[[10, 11]] = True
    values = Tokens(12, mask=4, special=(0, 1, 2, 3, 4), start=2, separator=3, continues=pack_flags(continues))
    x = torch.tensor([[2, 10, 5, 11, 10, 3, 11, 10, 0, 0]])
    assert values.word_starts(x).int().tolist() == [[1, 1, 1, 0, 0, 1, 1, 0, 1, 1]]
    assert Tokens(12).word_starts(x).all()
    assert values_from_json(values.to_json()) == values
