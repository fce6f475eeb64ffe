"""The tokenizers `bytes` and `words` as objects of the library tokenizers, with the same ids."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from sslcli.data.text.library import BYTE_OF, library
from sslcli.data.text.tokenizer import SPECIAL, UNK, BytesTokenizer
from sslcli.data.text.words import IDEOGRAPHS, WordsTokenizer, classes

SIGMA, FINAL_SIGMA = "\u03a3", "\u03c2"


def bytes_tokenizer(tokenizer: BytesTokenizer) -> Any:
    """A BPE without merges over bytes, each of which the library writes as one printable character."""
    t = library()
    ids = {name: i for i, name in enumerate(SPECIAL)} | {c: len(SPECIAL) + byte for c, byte in BYTE_OF.items()}
    out = t.Tokenizer(t.models.BPE(vocab=ids, merges=[]))
    out.pre_tokenizer = t.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    out.decoder = t.decoders.ByteLevel()
    return out


def words_tokenizer(tokenizer: WordsTokenizer) -> Any:
    """A vocabulary of whole words, split by a regular expression with the characters of Python's classes."""
    t = library()
    ids = {word: i for i, word in enumerate((*SPECIAL, *tokenizer.words))}
    out = t.Tokenizer(t.models.WordLevel(ids, unk_token=SPECIAL[UNK]))
    steps: list[Any] = [t.normalizers.NFC()]
    if tokenizer.lowercase:
        steps += [t.normalizers.Replace(t.Regex(final_sigma()), FINAL_SIGMA), t.normalizers.Lowercase()]
    out.normalizer = t.normalizers.Sequence(steps)
    out.pre_tokenizer = t.pre_tokenizers.Split(t.Regex(words_pattern()), behavior="removed", invert=True)
    return out


def words_pattern() -> str:
    """The pattern of `split_words` with explicit classes: the library's engine has other definitions of \\w and \\s."""
    begin, inside, other = (_class(text) for text in classes())
    return f"{_class(f'[{IDEOGRAPHS}]')}|{begin}{inside}*|{other}"


def final_sigma() -> str:
    """A pattern of the capital sigmas that end a word, which Python lower-cases to another letter than the library does: they
    follow a cased letter, with one ignored character at most between them, and precede none."""
    every = [chr(code) for code in _codes()]
    cased = [f"{c}{SIGMA}".lower().endswith(FINAL_SIGMA) for c in every]
    ignored = [f"a{c}{SIGMA}".lower().endswith(FINAL_SIGMA) for c in every]
    a = _ranges(ord(c) for c, yes in zip(every, cased, strict=True) if yes)
    b = _ranges(ord(c) for c, yes, other in zip(every, ignored, cased, strict=True) if yes and not other)
    return f"(?<={a}|{a}{b}){SIGMA}(?!{b}*{a})"


def _codes() -> Iterable[int]:
    """All characters, without surrogates."""
    return (*range(0xD800), *range(0xE000, sys.maxunicode + 1))


def _class(pattern: str) -> str:
    """The class of all characters that match a pattern of one character, such as `[\\x{61}-\\x{7a}]`."""
    every = "".join(map(chr, _codes()))
    return _ranges(ord(c) for c in re.findall(pattern, every))


def _ranges(codes: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for code in codes:
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "[" + "".join(f"\\x{{{a:x}}}-\\x{{{b:x}}}" for a, b in runs) + "]"
