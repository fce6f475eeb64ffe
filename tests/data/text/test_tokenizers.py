"""Tokenizers: what is a token, what begins a word, the way back to text, and vocabularies that are the same each time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from sslcli.data.text import words
from sslcli.data.text.choose import make_tokenizer, tokenizer_from_json
from sslcli.data.text.tokenizer import BytesTokenizer, Tokenizer
from sslcli.data.text.words import WordsTokenizer, split_words
from sslcli.errors import RequestError
from tests.data.text.conftest import LINES

HARD = [
    "The naïve Café — 日本語 テスト",
    "👍🏽 😀 עברית العربية हिन्दी",
    "don't_stop [MASK] [SEP] <br /> a\tb",
    "x" * 300,
    "é",
]


def fitted(
    kind: str, size: int = 400, lowercase: bool | None = None, lines: Sequence[str] = (*LINES, *HARD)
) -> Tokenizer:
    if kind in ("wordpiece", "bpe"):
        pytest.importorskip("tokenizers")
    return make_tokenizer(kind, lambda: [list(lines)], size, lowercase)


KINDS = ("bytes", "words", "wordpiece", "bpe")


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_content_of_the_vocabulary(kind: str):
    tokenizer = fitted(kind)
    flat, lengths = tokenizer.encode_flat([*HARD, ""])
    assert (flat.dtype, len(flat), lengths[-1]) == (np.int32, lengths.sum(), 0)
    assert flat.max() < tokenizer.size == tokenizer.values.size == len(tokenizer.word_start)
    special = set(tokenizer.values.special) - {tokenizer.unknown}
    assert not special & set(flat.tolist())
    assert [a.tolist() for a in tokenizer.encode([*HARD, ""])] == [
        tokenizer.encode([t])[0].tolist() for t in [*HARD, ""]
    ]


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_nothing_is_unknown_to_bytes(kind: str):
    tokenizer = fitted(kind)
    for text in HARD:
        assert tokenizer.decode(tokenizer.encode([text])[0]) == text
    assert tokenizer.unknown is None or tokenizer.unknown not in tokenizer.encode_flat(HARD)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_left_out_of_text(kind: str):
    tokenizer = fitted(kind)
    values = tokenizer.values
    ids = [values.start, *tokenizer.encode_masked("the [MASK] sat").tolist(), values.separator, values.pad]
    assert tokenizer.decode(torch.tensor(ids)).replace(" ", "") == "the[MASK]sat"
    assert tokenizer.pieces(ids)[0] == "[CLS]"
    assert ids.count(values.mask) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_json_and_files_restore_it(kind: str):
    tokenizer = fitted(kind)
    again = tokenizer_from_json(tokenizer.to_json(), tokenizer.files())
    assert type(again) is type(tokenizer)
    assert (again.values, again.files(), again.describe()) == (
        tokenizer.values,
        tokenizer.files(),
        tokenizer.describe(),
    )
    assert np.array_equal(again.encode_flat(HARD)[0], tokenizer.encode_flat(HARD)[0])


def test_words_are_the_most_frequent_ones():
    tokenizer = fitted("words", 8, lines=["b a. a", "c b a", "d"])
    assert isinstance(tokenizer, WordsTokenizer)
    assert tokenizer.words == ("a", "b", ".")  # of equally frequent ones the first by their characters
    assert tokenizer.encode(["A d b"])[0].tolist() == [5, 1, 6]
    assert fitted("words", lowercase=False, lines=["A a"]).pieces([5, 6]) == ["A", "a"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's 3.5%_x!", ["it", "'", "s", "3", ".", "5", "%", "_x", "!"]),
        ("naïve cafe\u0301", ["naïve", "café"]),
        ("日本 is", ["日", "本", "is"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("שלום עולם", ["שלום", "עולם"]),
        ("👍 ok", ["👍", "ok"]),
        (" \u00a0\u3000\t", []),
    ],
)
def test_words_of_all_scripts(text: str, expected: list[str]):
    assert split_words(text) == expected


def test_ascii_and_general_pattern_agree():
    text = "".join(map(chr, range(128))) + " some words, 12 and_more\n"
    assert split_words(text) == words.pattern().findall(text.lower())


def test_words_decode_with_the_spaces_of_text():
    tokenizer = fitted("words", lines=["Hello (world), it's fine: yes!"])
    assert tokenizer.decode(tokenizer.encode(["Hello (world), it's fine: yes!"])[0]) == "hello (world), it's fine: yes!"


def test_rare_words_are_dropped_while_counting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(words, "MAX_COUNTED", 3)
    assert words.count_words([["a a b c d"], ["a b"]], True) == {"a": 3, "b": 1}


def test_word_starts():
    def starts(tokenizer: Tokenizer, text: str) -> str:
        ids = tokenizer.encode([text])[0]
        marks = tokenizer.word_start[torch.from_numpy(ids).long()].tolist()
        return " ".join(("|" if m else "") + p for m, p in zip(marks, tokenizer.pieces(ids), strict=True))

    assert starts(BytesTokenizer(), "ab é.") == "a b |␣ <c3> <a9> |."
    lines = ["play playing"] * 9 + ["ing ed"]
    assert starts(fitted("wordpiece", 40, lines=lines), "playing played") == "|playing |play ##e ##d"
    assert starts(fitted("bpe", 270, lines=lines), "played at").startswith("play e d |␣")


@pytest.mark.parametrize("kind", ["words", "wordpiece", "bpe"])
def test_sizes_are_kept(kind: str):
    lines = [f"word{i} other{i * 7}" for i in range(3000)]
    assert fitted(kind, 500, lines=lines).size == 500
    assert fitted(kind, 300, lines=["a b"]).size <= 300


def test_lowercase():
    assert fitted("wordpiece").lowercase
    assert not fitted("bpe").lowercase
    cased, lower = fitted("wordpiece", lowercase=False), fitted("bpe", lowercase=True)
    assert cased.decode(cased.encode(["The cat"])[0]) == "The cat"
    assert lower.decode(lower.encode(["The cat"])[0]) == "the cat"


def test_without_the_library_auto_is_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    notes: list[str] = []
    assert make_tokenizer("auto", lambda: [LINES], notes=notes).kind == "words"
    assert "sslcli[text]" in notes[0]


FIT = """
import hashlib, sys
from sslcli.data.text.choose import make_tokenizer
lines = [" ".join(f"{a}{b}{c}é" for b in "xyzuvw") + "!" for a in "abcdefgh" for c in "klmn日"]
for kind in ("words", "wordpiece", "bpe"):
    content = make_tokenizer(kind, lambda: [lines[:20], lines[20:]], 320).files()
    print(kind, hashlib.sha256(repr(sorted(content.items())).encode()).hexdigest())
"""


@pytest.mark.slow
def test_a_vocabulary_is_the_same_in_each_process_and_for_any_number_of_threads():
    pytest.importorskip("tokenizers")

    def fit(threads: int) -> str:
        env = {**os.environ, "RAYON_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(threads)}
        return subprocess.run([sys.executable, "-c", FIT], env=env, capture_output=True, text=True, check=True).stdout

    outputs = {fit(threads) for threads in (1, 2, 4)}
    assert len(outputs) == 1
    assert outputs.pop().count("\n") == 3


@pytest.mark.parametrize("kind", ["words", "wordpiece", "bpe"])
def test_words_of_a_megabyte_do_not_stop_the_fit(kind: str):
    word = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 1 << 19))
    tokenizer = fitted(kind, 400, lines=[word, "=" * (1 << 19), " " * (1 << 19) + "x", "a cat " * 9])
    assert tokenizer.pieces(tokenizer.encode(["cat"])[0]) == ["cat"]


def test_vocabularies_of_impossible_sizes():
    with pytest.raises(RequestError, match="expected 6 to 1,000,000"):
        fitted("words", 1 << 40)
