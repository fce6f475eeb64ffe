"""Tokenizers of Hugging Face folders: vocab.txt as transformers reads it, and sslcli's own as tokenizer.json, with equal ids."""

from __future__ import annotations

import json
import random

import pytest

from sslcli.data.text.library import LibraryTokenizer, library
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.data.text.tokenizer import BytesTokenizer, Tokenizer
from sslcli.data.text.training import train_bpe, train_wordpiece
from sslcli.data.text.words import WordsTokenizer, split_words
from sslcli.formats.huggingface.config import read_config
from sslcli.formats.huggingface.tokenizer import from_vocabulary, longest_input, read_tokenizer, write_tokenizer
from sslcli.formats.huggingface.writer import sample_texts
from tests.formats.folders import TEXTS, VOCABULARY, write_folder, write_json

pytest.importorskip("tokenizers")
MORE = [
    *TEXTS,
    "",
    " \t\n",
    "ΟΔΟΣ ΣΑΣ Σ, Ὀδυσσεύς",
    "Привет, мир! ёЁ",
    "你好 こんにちは 한국어",
    "שלום مرحبا 🙂🏳️‍🌈",
    "na\u0308ive e\u0301 \u0301x İstanbul ǅ ß",
    "don't (2,000) a_b_c x^2 #tag @me http://a.b/c?d=e",
    "[MASK] and [SEP] are text",
    "a\x00b\x1cc\u2028d\u200de\ufeff",
]


def random_texts(n: int = 300) -> list[str]:
    """Strings of letters, marks and other characters of the first planes; no capital sigma next to characters of other scripts,
    and no letters that are newer than Python's tables."""
    rng = random.Random(0)
    blocks = [
        (0x20, 0x250),
        (0x300, 0x370),
        (0x400, 0x500),
        (0x5D0, 0x5EB),
        (0x900, 0x980),
        (0x3041, 0x3097),
        (0x1F600, 0x1F640),
    ]
    return [
        "".join(chr(rng.randrange(*rng.choice(blocks))) if rng.random() < 0.7 else " " for _ in range(40))
        for _ in range(n)
    ]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    texts = [*MORE, *random_texts()]
    words = sorted({word for text in texts for word in split_words(text)})
    cased = sorted({word for text in texts for word in split_words(text, lowercase=False)})
    return {
        "bytes": BytesTokenizer(),
        "words": WordsTokenizer(words[::2]),
        "cased words": WordsTokenizer(cased[::2], lowercase=False),
        "wordpiece": LibraryTokenizer(train_wordpiece(lambda: [texts], 400, True)),
        "cased wordpiece": LibraryTokenizer(train_wordpiece(lambda: [texts], 400, False)),
        "bpe": LibraryTokenizer(train_bpe(lambda: [texts], 500, False)),
    }


@pytest.mark.parametrize("name", ["bytes", "words", "cased words", "wordpiece", "cased wordpiece", "bpe"])
def test_written_tokenizer_gives_the_same_ids(name, tokenizers):
    tokenizer = tokenizers[name]
    files = write_tokenizer(TextPreprocessor(tokenizer, 50))
    again = LibraryTokenizer(files["tokenizer.json"].encode())
    texts = [*MORE, *random_texts(), *sample_texts(TextPreprocessor(tokenizer))]
    assert [ids.tolist() for ids in again.encode(texts)] == [ids.tolist() for ids in tokenizer.encode(texts)]
    values, other = tokenizer.values, again.values
    assert (other.size, other.pad, other.mask, other.start, other.separator) == (
        (values.size, values.pad, values.mask, values.start, values.separator)
    )
    config = json.loads(files["tokenizer_config.json"])
    assert (config["model_max_length"], config["mask_token"]) == (50, "[MASK]")


def test_written_tokenizer_has_special_tokens_and_segments():
    files = write_tokenizer(TextPreprocessor(BytesTokenizer(), 50))
    out = library().Tokenizer.from_str(files["tokenizer.json"])
    encoded = out.encode("ab", "c")
    assert encoded.tokens == ["[CLS]", "a", "b", "[SEP]", "c", "[SEP]"]
    assert encoded.type_ids == [0, 0, 0, 0, 1, 1]
    assert encoded.special_tokens_mask == [1, 0, 0, 1, 0, 1]
    assert out.decode(encoded.ids) == "abc"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"do_lower_case": False, "strip_accents": True},
    ],
    ids=str,
)
def test_vocabulary_is_read_as_by_transformers(options, tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = write_folder(tmp_path)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **options})
    other = transformers.BertTokenizer.from_pretrained(folder, **options)
    own = read_tokenizer(folder, 20, read_config(folder))
    texts = [text for text in MORE if "[" not in text]  # names of special tokens are text here
    expected = [other(text)["input_ids"][1:-1] for text in texts]
    assert [ids.tolist() for ids in own.encode(texts)] == expected
    assert own.tokenizer.lowercase == options.get("do_lower_case", True)


def test_names_of_special_tokens_are_read(tmp_path):
    folder = write_folder(tmp_path)
    names = {"[PAD]": "<pad>", "[MASK]": "<mask>"}
    (folder / "vocab.txt").write_text("\r\n".join(names.get(token, token) for token in VOCABULARY))
    write_json(folder / "tokenizer_config.json", {"pad_token": {"content": "<pad>"}, "mask_token": "<mask>"})
    values = LibraryTokenizer(from_vocabulary(folder)).values
    assert (values.pad, values.mask, values.start, values.separator) == (0, 4, 2, 3)


@pytest.mark.parametrize(
    ("value", "length"), [(512, 512), (10**30, None), (1, None), ("512", None), (None, None), (1e30, None)]
)
def test_longest_input(value, length, tmp_path):
    write_json(tmp_path / "tokenizer_config.json", {"model_max_length": value})
    assert longest_input(tmp_path) == length
