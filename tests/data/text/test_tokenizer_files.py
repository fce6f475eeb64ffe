"""Tokenizers of others: tokenizer.json and vocab.txt keep their ids, and the library `transformers` encodes in the same way."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from sslcli.data.text.choose import make_tokenizer, read_tokenizer
from sslcli.data.text.library import LibraryTokenizer
from sslcli.data.text.training import train_wordpiece, wordpiece_json
from sslcli.errors import DataError, RequestError
from tests.data.text.conftest import LINES, write

pytest.importorskip("tokenizers")
BERT = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "Cat"]


def test_vocab_txt_keeps_the_ids_of_bert(tmp_path: Path):
    tokenizer = read_tokenizer(write(tmp_path / "vocab.txt", BERT))
    values = tokenizer.values
    assert (values.pad, tokenizer.unknown, values.start, values.separator, values.mask) == (0, 100, 101, 102, 103)
    assert set(values.special) == {0, 100, 101, 102, 103}
    assert tokenizer.encode(["The cats"])[0].tolist() == [104, 105, 106]
    assert tokenizer.word_start[[104, 105, 106]].tolist() == [True, True, False]


def test_tokenizer_config_says_the_case(tmp_path: Path):
    write(tmp_path / "vocab.txt", BERT)
    write(tmp_path / "tokenizer_config.json", '{"do_lower_case": false}')
    assert read_tokenizer(str(tmp_path)).encode(["Cat"])[0].tolist() == [107]
    assert read_tokenizer(str(tmp_path), lowercase=True).encode(["Cat"])[0].tolist() == [105]


def test_truncation_and_padding_are_not_applied(tmp_path: Path):
    t = pytest.importorskip("tokenizers")
    plain = t.Tokenizer.from_str(train_wordpiece(lambda: [LINES * 2], 200, True).decode())
    plain.enable_truncation(4)
    plain.enable_padding(length=4)
    path = write(tmp_path / "tokenizer.json", plain.to_str())
    tokenizer = read_tokenizer(path)
    assert len(plain.encode("the cat sat on the mat.").ids) == 4
    assert len(tokenizer.encode(["the cat sat on the mat."])[0]) == 7
    assert len(tokenizer.encode(["the"])[0]) == 1
    assert tokenizer.files()["tokenizer.json"] == Path(path).read_bytes()


def test_a_folder_of_a_run_is_a_tokenizer(tmp_path: Path):
    words = make_tokenizer("words", lambda: [LINES])
    for name, content in words.files().items():
        write(tmp_path / "preprocessor" / name, content)
    write(tmp_path / "preprocessor" / "preprocessor.json", json.dumps({"tokenizer": words.to_json()}))
    assert read_tokenizer(str(tmp_path)).files() == words.files()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a tokenizer"),
        (b"{}", "is not a tokenizer"),
        (b'{"model": 3}', "is not a tokenizer"),
        (b"\xff\xfe\x00", "is not a tokenizer"),
        (b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}', "no token"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str):
    with pytest.raises(DataError, match=message):
        read_tokenizer(write(tmp_path / "tokenizer.json", content))


def test_bad_places(tmp_path: Path):
    with pytest.raises(RequestError, match=r"has no tokenizer\.json"):
        read_tokenizer(str(tmp_path))
    with pytest.raises(RequestError, match="expected auto, bytes"):
        read_tokenizer(str(tmp_path / "nowhere.json"))
    with pytest.raises(DataError, match="two of its tokens are equal"):
        read_tokenizer(write(tmp_path / "vocab.txt", [*BERT, "cat"]))
    path = write(tmp_path / "tokenizer.json", train_wordpiece(lambda: [LINES], 200, True))
    with pytest.raises(RequestError, match="does not apply to a tokenizer"):
        read_tokenizer(path, lowercase=True)


def test_sizes_of_hostile_files(tmp_path: Path):
    content = json.loads(train_wordpiece(lambda: [LINES], 200, True))
    content["model"]["vocab"]["huge"] = 4_000_000_000
    with pytest.raises(DataError, match="is not a tokenizer"):
        read_tokenizer(write(tmp_path / "tokenizer.json", json.dumps(content)))


def test_roberta_names_of_special_tokens():
    content = json.loads(make_tokenizer("bpe", lambda: [LINES], 300).files()["tokenizer.json"])
    text = json.dumps(content)
    for ours, theirs in (
        ("[PAD]", "<pad>"),
        ("[UNK]", "<unk>"),
        ("[CLS]", "<s>"),
        ("[SEP]", "</s>"),
        ("[MASK]", "<mask>"),
    ):
        text = text.replace(ours, theirs)
    values = LibraryTokenizer(text.encode()).values
    assert (values.pad, values.start, values.separator, values.mask) == (0, 2, 3, 4)


@pytest.mark.slow
@pytest.mark.parametrize("lowercase", [True, False])
def test_parity_with_transformers(tmp_path: Path, test_data: Path, lowercase: bool):
    transformers = pytest.importorskip("transformers")
    corpus = test_data / "text" / "imdb_unlabelled.txt.xz"
    if not corpus.exists():
        pytest.skip(f"no {corpus}")
    with lzma.open(corpus, "rt", encoding="utf-8") as file:
        reviews = [line.rstrip("\n") for line in file]
    lines = [*reviews, *(r[300:700] for r in reviews)][:10_000]
    content = train_wordpiece(lambda: [reviews[:2000]], 5000, lowercase)
    path = write(tmp_path / "tokenizer.json", content)
    theirs = transformers.BertTokenizerFast(tokenizer_file=path, do_lower_case=lowercase)
    flat, lengths = read_tokenizer(path).encode_flat(lines)
    expected = theirs(lines, add_special_tokens=False, verbose=False)["input_ids"]
    assert lengths.tolist() == [len(row) for row in expected]
    assert np.array_equal(flat, np.concatenate([np.array(row, np.int32) for row in expected]))
    vocabulary = theirs.get_vocab()
    from_text = LibraryTokenizer(wordpiece_json(sorted(vocabulary, key=vocabulary.__getitem__), lowercase))
    assert np.array_equal(from_text.encode_flat(lines[:500])[0], flat[: int(lengths[:500].sum())])


def test_a_vocabulary_without_its_unknown_token(tmp_path: Path):
    content = json.loads(train_wordpiece(lambda: [LINES], 200, True))
    content["model"]["unk_token"] = "[OTHER]"
    with pytest.raises(DataError, match="is not a tokenizer"):
        read_tokenizer(write(tmp_path / "tokenizer.json", json.dumps(content)))


def test_mutated_files_end_in_an_error_or_a_tokenizer():
    """Files of unknown origin: each of them is refused with a sentence, or encodes within its vocabulary."""
    content = train_wordpiece(lambda: [LINES], 120, True)
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        for place in rng.integers(len(changed), size=3):
            changed[place] = rng.integers(256)
        try:
            tokenizer = LibraryTokenizer(bytes(changed))
        except ValueError:
            continue
        assert tokenizer.encode_flat(LINES)[0].max() < tokenizer.size
        assert tokenizer.values.fits((8,))
