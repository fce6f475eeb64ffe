"""Random samples, missing values and conversions of each kind of values, and decoders of whole samples."""

from __future__ import annotations

import math

import pytest
import torch

from sslcli.nn.decoder import decoder
from sslcli.nn.values import Columns, Continuous, Tokens, Values

KINDS: list[tuple[Values, tuple[int, ...]]] = [
    (Continuous((0.5, 0.4), (0.2, 0.3)), (2, 9)),
    (Continuous((0.5, 0.4), (0.2, 0.3)), (2, 6, 5)),
    (Continuous((0.5, 0.4), (0.2, 0.3)), (2, 3, 6, 5)),
    (Tokens(11, pad=0, mask=1, special=(0, 1, 2)), (7,)),
    (Columns((3, 0, 5, 0), (1.0, 2.0), (0.5, 4.0)), (4,)),
]
every_kind = pytest.mark.parametrize(("values", "shape"), KINDS, ids=lambda v: getattr(v, "kind", None))


@every_kind
def test_random_samples_have_all_values(values, shape):
    x = values.random(50, shape, torch.Generator().manual_seed(0))
    assert x.shape == (50, *shape)
    assert values.present(x).all()
    assert torch.equal(values.complete(x), x)


@every_kind
def test_removed_values_are_missing(values, shape):
    x = values.random(5, shape)
    where = torch.rand(5, *shape) < 0.5
    removed = values.remove(x, where)
    assert torch.equal(values.present(removed), ~where)
    assert torch.equal(removed[~where], x[~where])
    assert not values.complete(removed).isnan().any()


@every_kind
def test_decoder_matches_likelihood(values, shape):
    torch.manual_seed(0)
    net, likelihood, x = decoder(values, shape, 6, width=4), values.likelihood(), values.random(5, shape)
    predicted = net(torch.randn(5, 6))
    loss = likelihood.loss(predicted, x)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert likelihood.mode(predicted).shape == x.shape
    assert likelihood.error(likelihood.mode(predicted), x).isfinite().all()


def test_conversion_of_columns_keeps_categories():
    ours, theirs = Columns((3, 0, 5, 0), (1.0, 2.0), (0.5, 4.0)), Columns((3, 0, 5, 0), (0.0, 5.0), (2.0, 3.0))
    x = torch.tensor([[2.0, 1.5, 4.0, -1.0], [0.0, math.nan, 1.0, 0.0]])
    expected = [[2.0, (1.5 * 0.5 + 1) / 2, 4.0, (-1 * 4 + 2 - 5) / 3], [0.0, math.nan, 1.0, (2 - 5) / 3]]
    torch.testing.assert_close(ours.conversion(theirs)(x), torch.tensor(expected), equal_nan=True)
    with pytest.raises(ValueError, match="columns"):
        ours.conversion(Tokens(4))


@pytest.mark.parametrize(("values", "shape"), KINDS[:4], ids=lambda v: getattr(v, "kind", None))
def test_after_end_is_what_follows_the_last_value(values, shape):
    x = values.random(3, shape)
    steps = torch.arange(shape[-1])
    last = torch.tensor([shape[-1], 3, 0]).view(3, *[1] * len(shape))  # steps of each sample
    filled = values.remove(x, (steps >= last).expand_as(x))
    filled = values.remove(filled, (steps == 1).expand_as(x))  # a gap is not the end
    assert torch.equal(values.after_end(filled).expand_as(x), (steps >= last).expand_as(x))
    if len(shape) > 1:  # a step that holds any value is no padding
        filled[:, 0] = x[:, 0]
        assert not values.after_end(filled).any()


def test_missing_columns_are_not_after_the_end():
    values, shape = KINDS[-1]
    x = values.random(3, shape)
    assert not values.after_end(values.remove(x, torch.ones_like(x, dtype=torch.bool))).any()
