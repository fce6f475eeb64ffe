"""Words that characterize groups of documents, the text of tokens, and texts as views."""

from __future__ import annotations

import math

import pytest
import torch

from sslcli.data import capitals
from sslcli.views.modality import modality
from sslcli.views.texts.terms import class_terms, without_special

TEXT = modality("text")


def test_scores_are_class_based_tf_idf():
    texts = ["apple apple pear", "apple plum", "stone stone pear", ""]
    found = class_terms(texts, torch.tensor([0, 0, 1, 1]), 9)
    mean = (5 + 3) / 2  # words of a group
    expected = {"apple": 3 / 5 * math.log(1 + mean / 3), "plum": 1 / 5 * math.log(1 + mean)}
    assert dict(found[0]) == pytest.approx(expected)  # without pear, which is more frequent in the other group
    assert [word for word, _ in found[0]] == ["apple", "plum"]
    assert [word for word, _ in found[1]] == ["stone", "pear"]
    assert class_terms(texts, torch.tensor([0, 0, 1, 1]), 1)[1] == found[1][:1]
    assert [word for word, _ in class_terms(["w" * 999, "cat"], torch.tensor([0, 1]), 1)[0]] == ["w" * 40]


def test_words_of_most_documents_are_left_out():
    texts = [f"the {'cat' if i % 3 else 'dog'}" for i in range(30)]
    groups = torch.tensor([int(i % 3 == 0) for i in range(30)])
    assert [[word for word, _ in words] for words in class_terms(texts, groups, 5)] == [
        [],
        ["dog"],
    ]  # two thirds have a cat


def test_groups_without_words_have_no_terms():
    assert class_terms(["", "!"], torch.tensor([0, 2]), 5) == [[], [], []]
    assert without_special("a [UNK] b[MASK].") == "a   b ."


def test_terms_of_capitals_name_the_topic():
    data = capitals()
    groups = data.test.labels.clone()
    groups[::7] = -1
    terms = TEXT.terms(data.test, groups, data, 10)
    words = [{word for word, _ in row} for row in terms.of_groups]
    assert len(words) == len(data.classes)
    for topic, some in (("capital", "government"), ("language", "spoken"), ("currency", "money"), ("river", "floods")):
        assert some in words[data.classes.index(topic)]


def test_parse_is_a_view_with_mask_tokens():
    data = capitals()
    x = TEXT.parse("The capital of France is [MASK].", data)
    assert x.shape == data.shape
    assert TEXT.spell(x[:9].tolist(), data) == ["[CLS]", "the", "capital", "of", "france", "is", "[MASK]", ".", "[SEP]"]
    assert (x[9:] == data.values.pad).all()
    long = TEXT.parse("river " * 100, data)
    assert long.shape == data.shape
    assert long[-1] == data.values.separator
