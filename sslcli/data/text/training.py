"""Fit the vocabularies of WordPiece and BPE with the library `tokenizers`.

The same texts give the same vocabulary for any number of threads: where the library would number the characters of an alphabet
in the order of a hash table, which differs from process to process and decides between pairs of equal frequency, the alphabet
is given to it in a fixed order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from sslcli.data.text.library import library
from sslcli.data.text.tokenizer import CLS, SEP, SPECIAL, UNK
from sslcli.errors import RequestError

Texts = Callable[[], Iterable[Sequence[str]]]  # the training texts in chunks, each time from the beginning
MAX_ALPHABET = 1000  # characters of WordPiece; rarer ones are [UNK], as in BERT's trainers
MAX_CHARS = 100  # of a word; longer ones are [UNK] (Devlin et al., 2019)
MIN_FREQUENCY = 2  # of a pair that is merged
PREFIX = "##"
LONG = re.compile(rf"\w{{{MAX_CHARS + 1},}}|[^\w\s]{{{MAX_CHARS + 1},}}|\s{{{MAX_CHARS + 1},}}")


def train_wordpiece(texts: Texts, size: int, lowercase: bool) -> bytes:
    """The tokenizer.json of a WordPiece vocabulary of at most `size` tokens, fitted by merging the most frequent pairs (Schuster &
    Nakajima, ICASSP 2012; Devlin et al., NAACL 2019). Text is normalized as for BERT: with `lowercase`, also without accents."""
    t = library()
    tokenizer = t.Tokenizer(t.models.WordPiece(unk_token=SPECIAL[UNK]))
    tokenizer.normalizer = t.normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = t.pre_tokenizers.BertPreTokenizer()
    alphabet = _alphabet(texts, tokenizer.normalizer.normalize_str, min(MAX_ALPHABET, (size - len(SPECIAL)) // 3))
    inner = [c for c in alphabet if len(tokenizer.pre_tokenizer.pre_tokenize_str(f"a{c}a")) == 1]
    trainer = t.trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[*SPECIAL, *(PREFIX + c for c in inner)],  # these are numbered first, in this order
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without_long_words(texts), trainer)
    return _with_vocabulary(tokenizer.get_vocab(), lowercase)


def wordpiece_json(tokens: Sequence[str], lowercase: bool) -> bytes:
    """The tokenizer.json of BERT for a vocabulary of WordPiece, the tokens by their ids."""
    return _with_vocabulary({token: i for i, token in enumerate(tokens)}, lowercase)


def _with_vocabulary(vocabulary: dict[str, int], lowercase: bool) -> bytes:
    t = library()
    model = t.models.WordPiece(
        vocabulary, unk_token=SPECIAL[UNK], max_input_chars_per_word=MAX_CHARS, continuing_subword_prefix=PREFIX
    )
    tokenizer = t.Tokenizer(model)
    tokenizer.normalizer = t.normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = t.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = t.decoders.WordPiece(prefix=PREFIX)
    return _finish(tokenizer)


def train_bpe(texts: Texts, size: int, lowercase: bool) -> bytes:
    """The tokenizer.json of a byte-level BPE vocabulary of at most `size` tokens (Sennrich et al., ACL 2016; Radford et al., 2019).
    It has all 256 bytes, so that no text is unknown. RequestError where `size` has no room for them."""
    t = library()
    alphabet = sorted(t.pre_tokenizers.ByteLevel.alphabet())
    if size <= len(SPECIAL) + len(alphabet):
        raise RequestError(
            f"dataset.vocabulary={size} is too small for bpe: expected more than {len(SPECIAL) + len(alphabet)}",
            "dataset.vocabulary=8192",
        )
    tokenizer = t.Tokenizer(t.models.BPE())
    if lowercase:
        tokenizer.normalizer = t.normalizers.Lowercase()
    tokenizer.pre_tokenizer = t.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = t.decoders.ByteLevel()
    trainer = t.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(SPECIAL),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without_long_words(texts), trainer)
    return _finish(tokenizer)


def _finish(tokenizer: Any) -> bytes:
    """The content of tokenizer.json, with [CLS] and [SEP] around a text for programs that read it."""
    t = library()
    tokenizer.add_special_tokens([t.AddedToken(name, special=True) for name in SPECIAL])
    cls, sep = (SPECIAL[i] for i in (CLS, SEP))
    tokenizer.post_processor = t.processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (cls, sep)],
    )
    content: str = tokenizer.to_str(pretty=False)
    return content.encode()


def _without_long_words(texts: Texts) -> Iterator[list[str]]:
    """The texts without runs of more than 100 letters, marks or spaces, such as encoded files: merging pairs in a word takes a time
    that grows with the square of its length."""
    spaces = " " * (MAX_CHARS + 1)
    for chunk in texts():
        yield [
            LONG.sub(" ", text) if spaces in text or max(map(len, text.split()), default=0) > MAX_CHARS else text
            for text in chunk
        ]


def _alphabet(texts: Texts, normalize: Callable[[str], str], most: int) -> list[str]:
    """The `most` most frequent characters of normalized texts, sorted."""
    counts = np.zeros(0x110000, np.int64)
    for chunk in texts():
        codes = np.frombuffer("".join(chunk).encode("utf-32-le"), np.uint32)
        counts += np.bincount(codes, minlength=len(counts))
    normalized: Counter[str] = Counter()
    for code in np.flatnonzero(counts).tolist():
        for c in normalize(chr(code)):
            if not c.isspace():
                normalized[c] += int(counts[code])
    frequent = sorted(normalized, key=lambda c: (-normalized[c], c))[:most]
    return sorted(frequent)
