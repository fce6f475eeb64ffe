"""The tokenizers `bytes` and `words` as objects of the library tokenizers, with the same ids."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

from sslcli.data.text.library import BYTE_OF, library
from sslcli.data.text.tokenizer import SPECIAL, UNK, BytesTokenizer
from sslcli.data.text.words import IDEOGRAPHS, WordsTokenizer

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
    ideograph, word, space = (re.compile(text).fullmatch for text in (f"[{IDEOGRAPHS}]", r"\w", r"\s"))

    def is_word(c: str) -> bool:
        return bool(word(c)) and not ideograph(c)

    begin = _class(is_word)
    inside = _class(lambda c: is_word(c) or (unicodedata.category(c)[0] == "M" and not ideograph(c)))
    other = _class(lambda c: not word(c) and not space(c))
    return f"{_class(lambda c: bool(ideograph(c)))}|{begin}{inside}*|{other}"


def final_sigma() -> str:
    """A pattern of the capital sigmas that end a word, which Python lower-cases to another letter than the library does: they
    follow a cased letter, with one ignored character at most between them, and precede none."""
    cased = _class(lambda c: f"{c}{SIGMA}".lower().endswith(FINAL_SIGMA))
    ignored = _class(
        lambda c: f"a{c}{SIGMA}".lower().endswith(FINAL_SIGMA) and not f"{c}{SIGMA}".lower().endswith(FINAL_SIGMA)
    )
    return f"(?<={cased}|{cased}{ignored}){SIGMA}(?!{ignored}*{cased})"


def _class(wanted: Callable[[str], bool]) -> str:
    """A class of a regular expression, such as `[\\x{61}-\\x{7a}]`."""
    codes = (c for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000 and wanted(chr(c)))
    return "[" + "".join(f"\\x{{{a:x}}}-\\x{{{b:x}}}" for a, b in _runs(codes)) + "]"


def _runs(codes: Iterable[int]) -> list[tuple[int, int]]:
    """Runs of consecutive numbers, first and last."""
    runs: list[tuple[int, int]] = []
    for code in codes:
        if runs and code == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], code)
        else:
            runs.append((code, code))
    return runs
