"""Which tokenizer there is: the one that `dataset.tokenizer` names, fitted or read, and that of a saved preprocessor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sslcli.console import escape
from sslcli.data.text.tokenizer import SPECIAL, BytesTokenizer, Tokenizer
from sslcli.data.text.words import WordsTokenizer
from sslcli.errors import RequestError, nearest

KINDS: dict[str, type[Tokenizer]] = {kind.kind: kind for kind in (BytesTokenizer, WordsTokenizer)}
CHOICES = ("auto", "bytes", "words")
VOCABULARY = 8192


def make_tokenizer(
    choice: str,
    texts: Callable[[], Iterable[Sequence[str]]],
    vocabulary: int = VOCABULARY,
    lowercase: bool | None = None,
    notes: list[str] | None = None,
) -> Tokenizer:
    """The tokenizer that `dataset.tokenizer` names. `texts`: the training texts, in chunks, for those that are fitted.
    RequestError for an unknown choice or size."""
    if vocabulary <= len(SPECIAL):
        raise RequestError(
            f"dataset.vocabulary: expected more than {len(SPECIAL)}, got {vocabulary}",
            f"dataset.vocabulary={VOCABULARY}",
        )
    if choice == "bytes":
        return BytesTokenizer()
    if choice in ("auto", "words"):
        return WordsTokenizer.fit(texts(), vocabulary, lowercase is not False)
    close = nearest(choice, CHOICES)
    raise RequestError(
        f"dataset.tokenizer: expected {', '.join(CHOICES)} or a file, got {escape(choice)}",
        f"did you mean {close} ?" if close else None,
    )


def tokenizer_from_json(content: Mapping[str, Any], files: Mapping[str, bytes]) -> Tokenizer:
    """The inverse of `Tokenizer.to_json` and `Tokenizer.files`. ValueError, with a sentence, for anything else."""
    kind = KINDS.get(str(content.get("kind")))
    if kind is None:
        raise ValueError(f"tokenizer: expected one of {', '.join(KINDS)}")
    return kind.from_json(content, files)
