"""WAV files: 8-, 16-, 24- and 32-bit integers, 32- and 64-bit floats, also as WAVE_FORMAT_EXTENSIBLE.

Format: Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0", 1991, and Microsoft's
"Multiple Channel Audio Data and WAVE Files", 2007.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from sslcli.errors import BadSample

INTEGERS, FLOATS, EXTENSIBLE = 1, 3, 0xFFFE
TYPES = {(INTEGERS, 8), (INTEGERS, 16), (INTEGERS, 24), (INTEGERS, 32), (FLOATS, 32), (FLOATS, 64)}
UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # of the samples, written by programs that do not know where a stream will end
MAX_CHUNKS = 1024


@dataclass(frozen=True)
class WavHeader:
    """Where the samples of a file are, and of which type. length: number of samples of each channel."""

    rate: int
    channels: int
    bits: int
    code: int  # INTEGERS or FLOATS
    offset: int  # bytes before the first sample
    length: int

    @property
    def frame(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * self.bits // 8


def is_wav(start: bytes) -> bool:
    """Whether a file that begins with these 12 bytes is a WAV file."""
    return start[:4] == b"RIFF" and start[8:12] == b"WAVE"


def read_header(file: BinaryIO) -> WavHeader | None:
    """The header of a WAV file; None where its samples are of another type, such as ADPCM. BadSample where it is
    damaged."""
    end = file.seek(0, os.SEEK_END)
    file.seek(12)
    form: tuple[int, int, int, int] | None = None
    for _ in range(MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            raise BadSample("a WAV file without samples" if form else "a WAV file without a header of its samples")
        name, size = struct.unpack("<4sI", head)
        start = file.tell()
        if name == b"fmt ":
            form = _read_form(file.read(min(size, 40)))
        elif name == b"data":
            if form is None:
                raise BadSample("a WAV file whose samples come before their header")
            return _describe(form, start, size, end)
        file.seek(start + size + size % 2)
    raise BadSample(f"a WAV file with more than {MAX_CHUNKS:,} chunks before its samples")


def _read_form(content: bytes) -> tuple[int, int, int, int]:
    """(type of samples, channels, rate, bits)"""
    if len(content) < 16:
        raise BadSample("a WAV file with a truncated header")
    code, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
    if code == EXTENSIBLE and len(content) >= 26:
        code = struct.unpack("<H", content[24:26])[0]  # the start of the GUID of the type
    return code, channels, rate, bits


def _describe(form: tuple[int, int, int, int], offset: int, size: int, end: int) -> WavHeader | None:
    code, channels, rate, bits = form
    if not channels or not rate:
        raise BadSample(f"a WAV file of {channels} channels and {rate} samples per second")
    if (code, bits) not in TYPES:
        return None
    frame, there = channels * bits // 8, end - offset
    if size in UNKNOWN_SIZES and there > 0:
        size = there
    elif size > there:
        raise BadSample(
            f"truncated: its header says {size // frame:,} samples, the file holds {max(0, there) // frame:,}"
        )
    if size < frame:
        raise BadSample("holds no samples")
    return WavHeader(rate, channels, bits, code, offset, size // frame)


def read_samples(file: BinaryIO, header: WavHeader, start: int, count: int) -> np.ndarray:
    """Samples start..start + count - 1, (count, channels) float32, integers scaled to -1..1."""
    file.seek(header.offset + start * header.frame)
    content = file.read(count * header.frame)
    if len(content) < count * header.frame:
        raise BadSample("truncated while it was read")
    if header.code == FLOATS:
        x: np.ndarray = np.frombuffer(content, f"<f{header.bits // 8}").astype(np.float32)
    elif header.bits == 24:
        whole = np.zeros((count * header.channels, 4), np.uint8)
        whole[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        x = whole.view("<i4")[:, 0].astype(np.float32) * np.float32(2.0**-31)
    elif header.bits == 8:
        x = (np.frombuffer(content, np.uint8).astype(np.float32) - 128) / 128
    else:
        x = np.frombuffer(content, f"<i{header.bits // 8}").astype(np.float32) * np.float32(2.0 ** (1 - header.bits))
    return x.reshape(count, header.channels)
