"""Masks over tokens: their statistics, and the loss of the hidden ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from sslcli.nn.masked_language import TokenMasking, metrics, token_terms
from sslcli.nn.unpadding import select_rows
from sslcli.nn.values import Tokens
from sslcli.nn.words import pack_flags
from sslcli.rng import Draw
from tests.sequences import VALUES, texts

LONG = Tokens(1000, pad=0, mask=4, start=2, separator=3, special=(0, 1, 2, 3, 4))


def documents(n: int = 400, length: int = 64) -> torch.Tensor:
    """[CLS] content [SEP] of 7 to 62 content tokens, some of them unknown."""
    generator = torch.Generator().manual_seed(0)
    x = LONG.random(n, (length,), generator)
    x[torch.rand(x.shape, generator=generator) < 0.05] = 1
    ends = 8 + torch.randint(0, length - 8, (n,), generator=generator)
    x[:, 0], x[torch.arange(n), ends] = 2, 3
    return x.masked_fill(torch.arange(length) > ends[:, None], 0)


def draw(n: int = 400, epoch: int = 0):
    return Draw(0, epoch, torch.arange(n)).uniform


def content(x: torch.Tensor) -> torch.Tensor:
    return x > 4


def test_share_of_the_content_is_hidden():
    x = documents()
    _, where = TokenMasking(LONG)(x, draw())
    count = (content(x).sum(dim=1) * 0.15 + 0.5).floor().clamp(min=1)
    assert torch.equal(where.sum(dim=1), count.long())
    assert (count == 1).any()
    assert not (where & ~content(x)).any(), "special tokens and padding are never hidden"


def test_every_position_is_equally_likely():
    x = LONG.random(4000, (22,), torch.Generator().manual_seed(0))
    rate = TokenMasking(LONG).targets(x, draw(4000)("mask", 22)).float().mean(dim=0)
    torch.testing.assert_close(rate, torch.full((22,), 3 / 22), rtol=0, atol=0.025)


def test_masked_random_and_kept_are_80_10_10():
    x = documents(3000)
    corrupted, where = TokenMasking(LONG)(x, draw(3000))
    assert torch.equal(corrupted[~where], x[~where])
    new, old = corrupted[where], x[where]
    n = len(new)
    shares = {"masked": (new == 4), "kept": (new == old), "random": (new != 4) & (new != old)}
    for name, share in (("masked", 0.8), ("kept", 0.1 + 0.1 / 995), ("random", 0.1 * 994 / 995)):
        error = 4 * math.sqrt(share * (1 - share) / n)
        assert shares[name].float().mean().item() == pytest.approx(share, abs=error), name
    drawn = new[shares["random"]]
    assert drawn.min() >= 5, "random tokens are content"
    assert drawn.float().mean().item() == pytest.approx((5 + 999) / 2, abs=4 * 288 / math.sqrt(len(drawn)))


def test_masks_are_fresh_in_each_epoch_and_functions_of_the_sample():
    x, masking = documents(8), TokenMasking(LONG)
    first, again, other = (masking(x, draw(8, epoch))[0] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    alone = masking(x[3:4], Draw(0, 0, torch.tensor([3])).uniform)[0]
    assert torch.equal(alone, first[3:4])


def test_no_content_no_target():
    x = torch.tensor([[2, 3, 0, 0], [0, 0, 0, 0], [2, 9, 3, 0]])
    assert TokenMasking(LONG)(x, draw(3))[1].sum(dim=1).tolist() == [0, 0, 1]


# whole words ---------------------------------------------------------------------------------------------------------

PARTS = replace(LONG, continues=pack_flags(torch.arange(1000) >= 600))  # ids from 600 on continue a word


def words_of(row: list[int]) -> list[list[int]]:
    """Positions of the tokens of each word, one after another."""
    out: list[list[int]] = []
    for i, token in enumerate(row):
        if token <= 4:
            continue
        if token >= 600 and i and row[i - 1] > 4:
            out[-1].append(i)
        else:
            out.append([i])
    return out


def test_whole_words_are_hidden_until_the_share_is_reached():
    x = documents()
    where = TokenMasking(PARTS, whole_word=True).targets(x, draw()("mask", 64))
    several = 0
    for row, hidden in zip(x.tolist(), where, strict=True):
        words = [w for w in words_of(row) if hidden[w].any()]
        assert all(hidden[w].all() for w in words)
        assert hidden.sum() == sum(map(len, words))
        several += sum(len(w) > 1 for w in words)
        count = max(1, math.floor(0.15 * sum(t > 4 for t in row) + 0.5))
        assert hidden.sum() >= count
        assert hidden.sum() - max(map(len, words)) < count, "no word more than needed"
    assert several > 100


def test_words_are_equally_likely():
    x = torch.tensor([[2, 10, 700, 700, 11, 12, 701, 13, 14, 15, 16, 3]]).expand(6000, -1)
    where = TokenMasking(PARTS, ratio=0.05, whole_word=True).targets(x, draw(6000)("mask", 12))
    first = where[:, [1, 4, 5, 7, 8, 9, 10]].float().mean(dim=0)
    torch.testing.assert_close(first, torch.full((7,), 1 / 7), rtol=0, atol=0.02)


def test_whole_words_need_parts_of_words():
    with pytest.raises(ValueError, match="has no effect"):
        TokenMasking(LONG, whole_word=True)


@pytest.mark.parametrize(
    ("values", "ratio", "message"),
    [(LONG, 0.0, "between 0 and 1"), (LONG, 1.0, "between 0 and 1"), (Tokens(9), 0.1, "with a mask token")],
)
def test_impossible_masks_are_refused(values, ratio, message):
    with pytest.raises(ValueError, match=message):
        TokenMasking(values, ratio)


# loss ----------------------------------------------------------------------------------------------------------------


def test_terms_are_cross_entropy_and_accuracy():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 40, generator=generator, dtype=torch.float64)
    target = torch.randint(40, (9,), generator=generator)
    target[:4] = logits[:4].argmax(dim=1)
    terms = token_terms(logits, target)
    torch.testing.assert_close(terms["loss"], F.cross_entropy(logits, target))
    assert terms["accuracy"] == (logits.argmax(dim=1) == target).double().mean()
    assert metrics(terms)["perplexity"].item() == pytest.approx(math.exp(terms["loss"]))


def test_no_target_has_no_loss():
    logits = torch.randn(0, 40, requires_grad=True)
    terms = token_terms(logits, torch.empty(0, dtype=torch.int64))
    assert terms["loss"].item() == terms["accuracy"].item() == 0
    terms["loss"].backward()


def test_selected_rows_are_in_the_order_of_a_mask():
    x = texts()
    tokens = torch.randn(*x.shape, 3)
    where = VALUES.present(x)
    assert torch.equal(select_rows(tokens, where), tokens[where])
