"""Which tokenizer there is: the one that `dataset.tokenizer` names, fitted or read, and that of a saved preprocessor."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.console import escape, format_override
from sslcli.data.text import library, training, words
from sslcli.data.text.library import LibraryTokenizer
from sslcli.data.text.tokenizer import SPECIAL, BytesTokenizer, Tokenizer
from sslcli.data.text.training import Texts
from sslcli.data.text.words import WordsTokenizer
from sslcli.errors import DataError, RequestError, nearest

FITTED = ("words", "wordpiece", "bpe")
CHOICES = ("auto", "bytes", *FITTED)
VOCABULARY = 8192  # tokens, the default
MAX_VOCABULARY = 1_000_000
VOCAB = "vocab.txt"  # of BERT: a token on each line
MAX_FILE = 256 << 20  # bytes


def make_tokenizer(
    choice: str,
    texts: Texts,
    vocabulary: int = VOCABULARY,
    lowercase: bool | None = None,
    notes: list[str] | None = None,
) -> Tokenizer:
    """The tokenizer that `dataset.tokenizer` names: fitted to `texts`, or read from a file or a folder.

    `lowercase`: None for true of words and WordPiece, false of BPE. Adds a note. RequestError for an unknown choice or size,
    DataError for a file that is no tokenizer, MachineError without the extra [text]."""
    notes = [] if notes is None else notes
    if choice not in CHOICES:
        out = read_tokenizer(choice, lowercase)
        notes.append(f"tokenizer: {out.describe()}, from {escape(choice)}")
        return out
    if choice == "bytes" and lowercase:
        raise RequestError("dataset.lowercase does not apply to dataset.tokenizer=bytes", "dataset.tokenizer=words")
    if choice == "bytes":
        notes.append(f"tokenizer: {BytesTokenizer().describe()}")
        return BytesTokenizer()
    if not len(SPECIAL) < vocabulary <= MAX_VOCABULARY:
        raise RequestError(
            f"dataset.vocabulary: expected {len(SPECIAL) + 1} to {MAX_VOCABULARY:,}, got {vocabulary}",
            f"dataset.vocabulary={VOCABULARY}",
        )
    why = ""
    if choice == "auto":
        installed = importlib.util.find_spec("tokenizers") is not None
        choice = "wordpiece" if installed else "words"
        why = "" if installed else " (WordPiece requires the extra: pip install 'sslcli[text]')"
    out = _fit(choice, texts, vocabulary, lowercase)
    notes.append(f"tokenizer: {out.describe()}, fitted to the training text{why}")
    return out


def _fit(choice: str, texts: Texts, vocabulary: int, lowercase: bool | None) -> Tokenizer:
    lower = choice != "bpe" if lowercase is None else lowercase
    if choice == "words":
        return WordsTokenizer.fit(texts(), vocabulary, lower)
    train = training.train_wordpiece if choice == "wordpiece" else training.train_bpe
    return LibraryTokenizer(train(texts, vocabulary, lower))


def read_tokenizer(path: str, lowercase: bool | None = None) -> Tokenizer:
    """The tokenizer of a file tokenizer.json or vocab.txt, of a folder with one of them, or of a run or an exported encoder.

    `lowercase`: for vocab.txt without a tokenizer_config.json that says it. RequestError where there is none, DataError for files
    that are none."""
    place = os.path.expanduser(path)
    if not os.path.exists(place):
        close = nearest(path, CHOICES)
        raise RequestError(
            f"dataset.tokenizer: expected {', '.join(CHOICES)}, or a file tokenizer.json, got {escape(path)}",
            f"did you mean {format_override('dataset.tokenizer', close)} ?" if close else None,
        )
    if os.path.isdir(place):
        names = (library.FILE, f"preprocessor/{library.FILE}", f"preprocessor/{words.FILE}", VOCAB)
        found = next((n for n in names if os.path.isfile(os.path.join(place, n))), None)
        if found is None:
            raise RequestError(
                f"dataset.tokenizer: {escape(path)} has no {library.FILE} or {VOCAB}", "dataset.tokenizer=FILE"
            )
        place = os.path.join(place, found)
    try:
        if os.path.getsize(place) > MAX_FILE:
            raise DataError(f"{escape(place)} is too large for a tokenizer: more than {MAX_FILE >> 20} MB")
        content = Path(place).read_bytes()
        if os.path.basename(place) == words.FILE:
            return _words(place, content)
        if place.endswith(".txt"):
            content = training.wordpiece_json(_tokens(content), _lowercase_of(place, lowercase))
        elif lowercase is not None:
            raise RequestError(
                "dataset.lowercase does not apply to a tokenizer.json, which says it", "dataset.lowercase=null"
            )
        return LibraryTokenizer(content)
    except ValueError as e:
        raise DataError(
            f"{escape(place)} is not a tokenizer: {escape(str(e))}", "expected tokenizer.json, or vocab.txt of BERT"
        ) from None
    except OSError as e:
        raise DataError(f"{escape(place)} cannot be read: {e.strerror}") from None


def _words(place: str, content: bytes) -> Tokenizer:
    """The tokenizer of a run, beside its preprocessor.json."""
    saved = json.loads(Path(os.path.dirname(place), "preprocessor.json").read_bytes())
    return tokenizer_from_json(saved["tokenizer"], {words.FILE: content})


def _tokens(content: bytes) -> list[str]:
    tokens = content.decode("utf-8-sig").rstrip("\n").split("\n")
    tokens = [token.rstrip("\r") for token in tokens]
    if len(set(tokens)) != len(tokens):
        raise ValueError("two of its tokens are equal")
    return tokens


def _lowercase_of(place: str, lowercase: bool | None) -> bool:
    """Whether the vocabulary of a vocab.txt is of lower-cased text: by tokenizer_config.json, else by the tokens."""
    config = Path(os.path.dirname(place), "tokenizer_config.json")
    if lowercase is None and config.is_file():
        known = json.loads(config.read_bytes())
        if isinstance(known, dict) and isinstance(known.get("do_lower_case"), bool):
            return bool(known["do_lower_case"])
    return lowercase is not False


def tokenizer_from_json(content: Mapping[str, Any], files: Mapping[str, bytes]) -> Tokenizer:
    """The inverse of `Tokenizer.to_json` and `Tokenizer.files`. ValueError, with a sentence, for anything else."""
    kind = KINDS.get(str(content.get("kind")))
    if kind is None:
        raise ValueError(f"tokenizer: expected one of {', '.join(KINDS)}")
    return kind.from_json(content, files)


KINDS: dict[str, type[Tokenizer]] = {"bytes": BytesTokenizer, "words": WordsTokenizer, "library": LibraryTokenizer}
