"""Convert texts to the inputs of the encoder in this folder. Requires NumPy, and for tokenizer.json the package tokenizers."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # the ids 0 to 4, except in a tokenizer.json
NAMES = {"pad": ("[PAD]", "<pad>"), "start": ("[CLS]", "<s>"), "end": ("[SEP]", "</s>")}  # in a tokenizer.json
HTML_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
ASCII_WORDS = re.compile(r"[a-z0-9_]+|[^\sa-z0-9_]")


class Preprocessor:
    """length: the number L of tokens of an input, with those of start and end. most: windows of a text over which features are
    averaged. tokenize: from a text to the ids of its tokens, of which `pad`, `start` and `end` are not content."""

    def __init__(self, folder: str | Path = Path(__file__).parent / "preprocessor"):
        about = json.loads(Path(folder, "preprocessor.json").read_text(encoding="utf-8"))
        self.length: int = about["max_length"]
        self.most: int = about.get("windows", 1)
        self.without_breaks = about["html_breaks"] == "space"
        self.pad, self.start, self.end = 0, 2, 3
        self.tokenize: Callable[[str], list[int]]
        kind = about["tokenizer"]["kind"]
        if kind == "bytes":
            self.tokenize = lambda text: [len(SPECIAL) + byte for byte in text.encode("utf-8", "replace")]
        elif kind == "words":
            words = Path(folder, "vocabulary.txt").read_bytes().decode().split("\n")
            ids, lowercase, pattern = (
                {word: i for i, word in enumerate(words)},
                about["tokenizer"]["lowercase"],
                word_pattern(),
            )
            for name in SPECIAL:  # they are no words of a text
                del ids[name]
            self.tokenize = lambda text: [ids.get(word, 1) for word in split_words(text, lowercase, pattern)]
        else:
            from tokenizers import Tokenizer

            library = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
            library.no_truncation()
            library.no_padding()
            library.encode_special_tokens = True  # their names in a text are text
            found = {role: [library.token_to_id(name) for name in names] for role, names in NAMES.items()}
            self.pad, self.start, self.end = (next(i for i in found[r] if i is not None) for r in NAMES)
            self.tokenize = lambda text: list(library.encode(text, add_special_tokens=False).ids)

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """(n, L) int64: the beginning of each text."""
        return np.array([self.assemble(self.content(text)) for text in texts], np.int64).reshape(-1, self.length)

    def encode_windows(self, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """(m, L) int64: the consecutive windows of all texts, at most `most` of each; and their number for each text, (n,)."""
        rows: list[list[int]] = []
        counts = []
        for text in texts:
            content, room = self.content(text), self.length - 2
            starts = range(0, min(max(len(content), 1), self.most * room), room)
            rows += [self.assemble(content[start:]) for start in starts]
            counts.append(len(starts))
        return np.array(rows, np.int64).reshape(-1, self.length), np.array(counts, np.int64)

    def average(self, outputs: np.ndarray, windows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """(n, d): the outputs (m, d) of windows averaged for each text, weighted by the number of tokens."""
        weights = (windows != self.pad).sum(axis=1)[:, None]
        starts = np.cumsum(counts) - counts
        return np.add.reduceat(outputs * weights, starts) / np.add.reduceat(weights, starts)

    def content(self, text: str) -> list[int]:
        return self.tokenize(HTML_BREAK.sub(" ", text) if self.without_breaks else text)

    def assemble(self, content: list[int]) -> list[int]:
        """The start of the content, between the tokens of start and end, followed by padding."""
        row = [self.start, *content[: self.length - 2], self.end]
        return row + [self.pad] * (self.length - len(row))


def word_pattern() -> re.Pattern[str]:
    """Words of letters, digits, underscores and the marks that combine with them; single ideographs and other characters."""
    marks = "".join(re.escape(chr(c)) for c in range(0x300, 0x1F000) if unicodedata.category(chr(c))[0] == "M")
    return re.compile(rf"[{IDEOGRAPHS}]|(?![{IDEOGRAPHS}])\w(?:(?![{IDEOGRAPHS}])[\w{marks}])*|[^\w\s]")


def split_words(text: str, lowercase: bool, pattern: re.Pattern[str]) -> list[str]:
    if text.isascii() and lowercase:
        return ASCII_WORDS.findall(text.lower())
    text = text if text.isascii() else unicodedata.normalize("NFC", text)
    return pattern.findall(text.lower() if lowercase else text)
