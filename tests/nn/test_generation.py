"""Draws from predicted distributions, and texts made of them."""

from __future__ import annotations

import torch

from sslcli.nn.generation import continue_tokens
from sslcli.nn.sampling import sample_categories
from sslcli.nn.values import Tokens

VALUES = Tokens(12, pad=0, mask=4, start=2, separator=3, special=(0, 1, 2, 3, 4))


def test_frequencies_are_those_of_the_softmax():
    logits = torch.tensor([0.0, 1.0, -2.0, 0.5, -torch.inf])
    n = 40_000
    uniform = (torch.arange(n) + 0.5) / n
    drawn = sample_categories(logits.expand(n, -1), uniform)
    torch.testing.assert_close(torch.bincount(drawn, minlength=5) / n, logits.softmax(dim=0), rtol=0, atol=1e-3)


def test_draws_stay_in_range():
    logits = torch.tensor([[-torch.inf, 1.0, 1.0, -torch.inf]])
    edges = torch.tensor([0.0, 1 - 2.0**-24])
    assert [int(sample_categories(logits, u[None])) for u in edges] == [1, 2]
    assert int(sample_categories(logits.bfloat16(), edges[:1])) == 1


def test_continuations_end_with_a_separator():
    def predict(x, first, at):
        logits = torch.full((len(x), 12), -9.0)
        logits[:, [0, 2, 4]] = 50.0  # special tokens, which are not drawn
        logits[:, 6 if at < 5 else 3] = 40.0
        return logits

    x = torch.tensor([[2, 7, 8, 9, 7, 8, 9, 3], [2, 7, 3, 0, 0, 0, 0, 0]])
    out = continue_tokens(predict, x, torch.tensor([3, 2]), VALUES, torch.rand(2, 8))
    assert out.tolist() == [[2, 7, 8, 6, 6, 3, 0, 0], [2, 7, 6, 6, 6, 3, 0, 0]]


def test_each_token_depends_on_those_before_it():
    seen = []

    def predict(x, first, at):
        seen.append(x.clone())
        return torch.nn.functional.one_hot(x[:, at - 1] + 1, 12) * 100.0

    out = continue_tokens(predict, torch.tensor([[2, 5, 5, 5, 5]]), torch.tensor([2]), VALUES, torch.rand(1, 5))
    assert out.tolist() == [[2, 5, 6, 7, 8]]
    assert [x.tolist() for x in seen] == [[[2, 5, 0, 0, 0]], [[2, 5, 6, 0, 0]], [[2, 5, 6, 7, 0]]]
