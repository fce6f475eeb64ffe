from __future__ import annotations

from sslcli.data.text.capitals import FACTS, TOPICS, capitals, sentences
from tests.data.text.conftest import preprocessor, texts


def test_the_corpus_is_the_same_each_time():
    dataset = capitals()
    assert dataset.fingerprint == "3520-bfbfe4eb6c2120e1"
    assert dataset.test is not None
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (2816, 704, TOPICS)
    assert dataset.train.labels.bincount().tolist() == [281, 281, 282, 282, 282, 1408]  # type: ignore[union-attr]


def test_no_sentence_occurs_twice():
    every = [text for _, text in sentences()]
    assert len(set(every)) == len(every) == 44 * (5 * 8 + 40)
    assert "The capital of France is Paris." in every
    assert "The Nile flows through Egypt." in every


def test_each_fact_is_stated_in_training():
    train = set(texts(capitals()))
    for row in FACTS.strip().lower().splitlines():
        country, *facts = row.split(", ")
        for fact in facts:
            assert any(country in text and fact in text for text in train), (country, fact)


def test_nothing_is_cut_or_unknown():
    dataset = capitals()
    assert dataset.train.resident is not None
    longest = max(len(dataset.train.read(i)) for i in range(len(dataset.train)))
    assert longest <= dataset.shape[0] - 2
    assert preprocessor(dataset).tokenizer.unknown not in dataset.train.resident.flat  # type: ignore[attr-defined]


def test_other_tokenizers():
    assert capitals(tokenizer="bytes", max_length=90).values.size == 261
