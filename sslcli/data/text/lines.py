"""Read documents: one on each line of a file, or one in each file of a folder. UTF-8, plain or compressed (.gz, .xz, .bz2)."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from sslcli.console import escape
from sslcli.data.folders.placeholders import detect_placeholder
from sslcli.data.text.documents import DocumentsBuilder, Growing
from sslcli.errors import DataError

BLOCK = 1 << 22  # bytes
MAX_BYTES = 1 << 20  # of a document, the default
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open, b"BZh": bz2.open}
KINDS = {  # first bytes of files that are not text
    b"PK\x03\x04": "an archive or a document of an office program: unpack it, or save it as plain text",
    b"%PDF": "a PDF: convert it, for example by pdftotext",
    b"PAR1": "a Parquet file: dataset=text_table reads it",
    b"\xff\xfe": "UTF-16: convert it by iconv -f UTF-16 -t UTF-8 FILE > NEW.txt",
    b"\xfe\xff": "UTF-16: convert it by iconv -f UTF-16 -t UTF-8 FILE > NEW.txt",
}
WHITE = np.zeros(256, bool)
WHITE[[9, 10, 11, 12, 13, 32]] = True


class TextFile:
    """The blocks of a file, unpacked and checked. DataError for what is not UTF-8, with its line and byte."""

    def __init__(self, path: str):
        self.path, self.what = path, escape(path)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The unpacked content."""
        try:
            with open(self.path, "rb") as file:
                head = file.read(64)
            opener = next((opener for magic, opener in OPENERS.items() if head.startswith(magic)), open)
            with opener(self.path, "rb") as file:
                yield file
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise DataError(f"{self.what} is damaged or incomplete: {error}", "copy or download it again") from error
        except OSError as error:
            raise DataError(f"{self.what} cannot be read: {error.strerror or error}") from error

    def blocks(self) -> Iterator[bytes]:
        """The content without a byte order mark, which may be divided inside a character."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        lines, offset, pending = 1, 0, 0  # before the block; bytes of a character that the last block began
        with self.open() as file:
            while block := file.read(BLOCK):
                if offset == 0:
                    self._require_text(block)
                if b"\0" in block:
                    at = block.index(b"\0")
                    raise self._error(lines + block.count(b"\n", 0, at), offset + at, "a null byte, which is no text")
                try:
                    decoder.decode(block)
                except UnicodeDecodeError as error:
                    at = error.start - pending
                    line = lines + block.count(b"\n", 0, max(at, 0))
                    value = error.object[error.start]
                    raise self._error(line, offset + at, f"0x{value:02x} is not UTF-8") from error
                pending = len(decoder.getstate()[0])
                if offset == 0 and block.startswith(codecs.BOM_UTF8):
                    yield block[len(codecs.BOM_UTF8) :]
                else:
                    yield block
                offset += len(block)
                lines += block.count(b"\n")
            try:
                decoder.decode(b"", final=True)
            except UnicodeDecodeError as error:
                raise self._error(lines, offset - pending, "the last character is incomplete") from error

    def _require_text(self, head: bytes) -> None:
        kind = detect_placeholder(head) or next((k for magic, k in KINDS.items() if head.startswith(magic)), None)
        if kind is not None:
            raise DataError(f"{self.what} is {kind}")

    def _error(self, line: int, byte: int, problem: str) -> DataError:
        return DataError(
            f"{self.what}, line {line:,}, byte {byte:,}: {problem}",
            "save it as UTF-8, or convert it: iconv -f CP1252 -t UTF-8 FILE > NEW.txt",
        )


class LineReader:
    """Adds a document for each line that is not empty, without the white space around it.

    lines: the number of each, from 1. empty: the number of each line left out."""

    def __init__(self, builder: DocumentsBuilder):
        self.builder = builder
        self.lines, self.empty = Growing(np.int32), Growing(np.int32)

    def read(self, file: TextFile) -> None:
        limit = self.builder.max_bytes + 8  # what is kept of a line that is not yet complete
        rest, line = b"", 1
        for block in file.blocks():
            end = block.rfind(b"\n") + 1
            if not end:
                rest = (rest + block[: max(0, limit - len(rest))]) if len(rest) < limit else rest
                continue
            first = block.index(b"\n") + 1
            line = self._add(rest[:limit] + block[:first], line)
            line = self._add(block[first:end], line)
            rest = block[end:]
        if rest:
            self._add(rest + b"\n", line)

    def _add(self, text: bytes, line: int) -> int:
        """Add whole lines; returns the number of the line after them."""
        block = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(block == 10)
        starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
        inked = np.flatnonzero(~WHITE[block])
        first, last = np.searchsorted(inked, starts), np.searchsorted(inked, ends)
        kept = np.flatnonzero(first < last)
        self.empty.append((np.flatnonzero(first == last) + line).astype(np.int32))
        if len(kept):
            self.builder.add_spans(block, inked[first[kept]], inked[last[kept] - 1] + 1)
            self.lines.append((kept + line).astype(np.int32))
        return line + len(ends)


def read_whole(path: str, builder: DocumentsBuilder) -> bool:
    """Add a file as one document; False where it is empty."""
    kept, limit = bytearray(), builder.max_bytes + 8
    for block in TextFile(path).blocks():
        if not kept:
            block = block.lstrip()
        kept += block[: max(0, limit - len(kept))]
    text = bytes(kept).rstrip() if len(kept) < limit else bytes(kept)
    if text:
        builder.add(text)
    return bool(text)
