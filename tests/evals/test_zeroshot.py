"""Zero-shot classification and retrieval against counts by hand."""

from __future__ import annotations

import itertools

import pytest
import torch

from sslcli.evals.zero_shot.prompts import class_names, prompts
from sslcli.evals.zero_shot.recall import best_ranks, chance_recall
from sslcli.evals.zeroshot import Texts, accuracies, chance, recalls


def test_ranks_match_a_loop():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (40, 7), generator=generator).float()  # many are equal
    right = torch.rand(40, 7, generator=generator) < 0.3
    right[:, 2] |= ~right.any(dim=1)
    for row, mine, rank in zip(scores.tolist(), right.tolist(), best_ranks(scores, right).tolist(), strict=True):
        best = max(s for s, r in zip(row, mine, strict=True) if r)
        wrong = [s for s, r in zip(row, mine, strict=True) if not r]
        assert rank == 1 + sum(s > best for s in wrong) + sum(s == best for s in wrong) / 2


def test_equal_scores_are_no_success():
    """A network whose vectors are all the same finds nothing."""
    same = torch.ones(20, 8)
    assert accuracies(same, torch.arange(20) % 8) == {"top1": 0.0, "top5": 1.0}


@pytest.mark.parametrize("k", [1, 2, 5])
def test_chance_is_the_mean_over_all_orders(k):
    right, items = [1, 2, 3], 5
    found = []
    for count in right:
        orders = list(itertools.permutations(range(items)))
        found.append(sum(any(i < count for i in order[:k]) for order in orders) / len(orders))
    assert chance_recall(torch.tensor(right), items, k) == pytest.approx(sum(found) / 3)


def test_recall_of_repeated_captions():
    """Samples 0 and 2 share a caption; sample 1 has two; sample 3 could not be read."""
    texts = Texts(torch.zeros(4, 3), torch.tensor([0, 1, 1, 2, 3]), torch.tensor([0, 1, 2, 0, 3]))
    vectors = torch.eye(3)
    text_vectors = torch.tensor([[0.1, 0.2, 0.9], [0.3, 0.2, 0.1], [0.0, 0.8, 0.1], [0.0, 0.0, 1.0]])
    ids = torch.tensor([0, 1, 2])
    found = recalls(vectors, text_vectors, ids, texts)
    # image 0: its text has .1, another one .3; image 1: .8 of its second text is the largest; image 2: .9, another one 1
    assert found["text_recall@1"] == pytest.approx(1 / 3)
    # text 0: image 2 is right; text 1: image 0 is nearest, wrong; text 2: image 1 is right; text 3 belongs to no read image
    assert found["image_recall@1"] == pytest.approx(2 / 3)
    assert found["text_recall@5"] == found["image_recall@5"] == 1.0
    expected = chance(ids, texts)
    assert expected["text_recall@1"] == pytest.approx((1 / 4 + 2 / 4 + 1 / 4) / 3)
    assert expected["image_recall@1"] == pytest.approx((2 / 3 + 1 / 3 + 1 / 3) / 3)


def test_recall_in_blocks_is_that_of_all(monkeypatch):
    from sslcli.evals import zeroshot

    generator = torch.Generator().manual_seed(1)
    vectors, text_vectors = torch.randn(30, 4, generator=generator), torch.randn(25, 4, generator=generator)
    samples = torch.cat([torch.arange(30), torch.arange(0, 30, 3)])
    texts = Texts(torch.zeros(25, 3), samples, torch.randint(0, 25, (40,), generator=generator))
    ids = torch.arange(30).flip(0)
    whole = recalls(vectors, text_vectors, ids, texts)
    similar, slow = vectors @ text_vectors.T, []
    for place, sample in enumerate(ids.tolist()):
        own = {int(c) for s, c in zip(samples, texts.captions, strict=True) if int(s) == sample}
        slow.append(int(similar[place].argmax()) in own)
    assert whole["text_recall@1"] == pytest.approx(sum(slow) / 30)
    monkeypatch.setattr(zeroshot, "SCORES", 60)
    assert recalls(vectors, text_vectors, ids, texts) == pytest.approx(whole)


def test_classes_with_one_name_stay_classes():
    """Two of three classes have the same text: each keeps its place."""
    names = class_names(["crane", "crane (machine)", "tench"], {"crane (machine)": "crane"})
    assert prompts(names, ["{}", "a {}"]) == [["crane", "a crane"], ["crane", "a crane"], ["tench", "a tench"]]
