"""Pairs of segments of which half are permuted, against a version with loops; no hint but the text."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sslcli.nn.sentence_pairs import NextSentence, SentencePairs, next_in_cycle, pair_terms, swap_second_segments
from sslcli.nn.values import Tokens
from sslcli.rng import Draw

VALUES = Tokens(10_000, pad=0, mask=4, start=2, separator=3, special=(0, 1, 2, 3, 4))
L = 16


def pair(a: list[int], b: list[int]) -> list[int]:
    row = [2, *a, 3, *b, 3] if b else [2, *a, 3]
    return row + [0] * (L - len(row))


def pairs(n: int, seed: int = 0) -> torch.Tensor:
    """Pairs that fill the view, as those of long documents do; ids tell sample and position."""
    split = torch.randint(2, L - 4, (n,), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = []
    for i, cut in enumerate(split):
        words = list(range(10 + i * L, 10 + i * L + L - 3))
        rows.append(pair(words[:cut], words[cut:]))
    return torch.tensor(rows)


def swapped(x: torch.Tensor, seed: int = 0) -> SentencePairs:
    draw = Draw(seed, 0, torch.arange(len(x)))
    return swap_second_segments(x, VALUES, draw.uniform("swap") < 0.5, draw.uniform("partner"))


def segments(row: list[int]) -> tuple[list[int], list[int]]:
    first = row.index(3)
    return row[1:first], [t for t in row[first + 1 :] if t > 4]


def slowly(x: torch.Tensor, swap: torch.Tensor, scores: torch.Tensor) -> list[list[int]]:
    """Each group in the order of its scores; each sample takes the segment, or the length, of the next one."""
    both = [segments(row) for row in x.tolist()]
    out = [row.copy() for row in x.tolist()]
    for moved in (True, False):
        group = sorted((i for i in range(len(x)) if bool(swap[i]) == moved and both[i][1]), key=lambda i: scores[i])
        for i, other in zip(group, group[1:] + group[:1], strict=True):
            size = min(len(both[i][1]), len(both[other][1]), L - 3 - len(both[i][0]))
            out[i] = pair(both[i][0], both[other if moved else i][1][:size])
    return out


@pytest.mark.parametrize("seed", range(5))
def test_pairs_match_reference(seed):
    x = pairs(12, seed)
    x[3] = torch.tensor(pair([7, 8, 9], []))
    draw = Draw(seed, 0, torch.arange(12))
    swap, scores = draw.uniform("swap") < 0.5, draw.uniform("partner")
    out = swap_second_segments(x, VALUES, swap, scores)
    assert out.x.tolist() == slowly(x, swap, scores)
    assert out.swapped.tolist() == [int(s) for s in swap & (torch.arange(12) != 3)]
    assert out.valid.tolist() == [i != 3 for i in range(12)]


def test_half_is_swapped_and_no_sample_keeps_its_segment():
    x = pairs(2000)
    out = swapped(x)
    assert out.swapped.float().mean().item() == pytest.approx(0.5, abs=0.05)
    for before, after, moved in zip(x.tolist(), out.x.tolist(), out.swapped.tolist(), strict=True):
        (a, b), (same, new) = segments(before), segments(after)
        assert a == same
        assert (new == b[: len(new)]) == (not moved)


def test_lengths_give_no_hint():
    out = swapped(pairs(4000))
    lengths = (out.x != 0).sum(dim=1).float()
    ends = out.x.gather(1, (lengths.long() - 1)[:, None])
    assert (ends == 3).all(), "each pair ends with a separator"
    moved, kept = lengths[out.swapped == 1], lengths[out.swapped == 0]
    assert moved.mean().item() == pytest.approx(kept.mean().item(), abs=0.3)
    assert moved.std().item() == pytest.approx(kept.std().item(), abs=0.3)


def test_samples_without_a_second_segment_are_no_targets():
    x = torch.tensor([pair([7, 8], []), pair([], [7, 8]), pair([7], [8]), pair([9], [10, 11]), [2, *range(5, 20)]])
    out = swap_second_segments(x, VALUES, torch.ones(5, dtype=torch.bool), torch.rand(5))
    assert out.valid.tolist() == [False, False, True, True, False]
    assert torch.equal(out.x[[0, 1, 4]], x[[0, 1, 4]])
    assert out.x[2].tolist() == pair([7], [10])
    assert out.x[3].tolist() == pair([9], [8])


def test_own_and_equal_segments_are_no_targets():
    x = torch.tensor([pair([7, 8], [9, 10]), pair([11], [12]), pair([5, 6], [9, 10])])
    alone = swap_second_segments(x, VALUES, torch.tensor([True, False, False]), torch.rand(3))
    assert alone.valid.tolist() == [False, True, True]
    equal = swap_second_segments(x, VALUES, torch.tensor([True, False, True]), torch.rand(3))
    assert equal.valid.tolist() == [False, True, False]


def test_cycles_do_not_leave_their_group():
    group, scores = torch.tensor([0, 1, 0, 2, 1, 0, 1]), torch.rand(7)
    after = next_in_cycle(group, scores)
    assert torch.equal(group[after], group)
    assert sorted(after.tolist()) == list(range(7))
    for start in range(7):
        at, seen = int(after[start]), {start}
        while at != start:
            seen.add(at)
            at = int(after[at])
        assert len(seen) == (group == group[start]).sum()


def test_terms_are_of_the_targets():
    logits = torch.randn(4, 2, dtype=torch.float64)
    target, valid = torch.tensor([0, 1, 1, 0]), torch.tensor([True, False, True, True])
    terms = pair_terms(logits, SentencePairs(torch.zeros(4, L), target, valid))
    torch.testing.assert_close(terms["loss"], F.cross_entropy(logits[valid], target[valid]))
    assert terms["accuracy"] == (logits.argmax(1) == target)[valid].double().mean()
    none = pair_terms(logits, SentencePairs(torch.zeros(4, L), target, torch.zeros(4, dtype=torch.bool)))
    assert none["loss"] == 0


def test_head_starts_undecided():
    logits = NextSentence(32)(torch.randn(5, 32))
    assert logits.shape == (5, 2)
    assert logits.abs().max() < 0.5
