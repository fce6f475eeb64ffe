"""Waves and WAV files of all types, for tests."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

RATE = 8000


def sine(seconds: float = 0.3, rate: int = RATE, hz: float = 440.0, level: float = 0.5) -> np.ndarray:
    """(n,) float64"""
    return level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def encode(x: np.ndarray, kind: str) -> bytes:
    """Samples in -1..1 as u8, i16, i24, i32, f32 or f64, little-endian."""
    if kind[0] == "f":
        return x.astype(f"<f{int(kind[1:]) // 8}").tobytes()
    if kind == "u8":
        return np.clip(np.rint(x * 128) + 128, 0, 255).astype(np.uint8).tobytes()
    bits = int(kind[1:])
    whole = np.clip(np.rint(x * 2.0 ** (bits - 1)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int64)
    return whole.astype("<i8").view(np.uint8).reshape(-1, 8)[:, : bits // 8].tobytes()


def wav_bytes(
    x: np.ndarray,
    rate: int = RATE,
    kind: str = "i16",
    extensible: bool = False,
    size: int | None = None,
    extra: bytes = b"",
) -> bytes:
    """A WAV file of samples (n,) or (n, channels). size: the bytes of samples by the header. extra: chunks before them."""
    channels = 1 if x.ndim == 1 else x.shape[1]
    content, bits, code = encode(x.reshape(-1), kind), int(kind[1:]), 3 if kind[0] == "f" else 1
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else code, channels, rate, rate * frame, frame, bits)
    if extensible:
        form += struct.pack("<HHIH", 22, bits, 0, code) + bytes.fromhex("000000001000800000aa00389b71")
    data = struct.pack("<4sI", b"data", len(content) if size is None else size) + content
    chunks = struct.pack("<4sI", b"fmt ", len(form)) + form + extra + data
    return struct.pack("<4sI", b"RIFF", 4 + len(chunks)) + b"WAVE" + chunks


def write(path: Path, x: np.ndarray, rate: int = RATE, kind: str = "i16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav_bytes(x, rate, kind))
    return path


def write_folder(
    folder: Path, clips: int = 24, rates: tuple[int, ...] = (RATE,), channels: tuple[int, ...] = (1,)
) -> Path:
    """Class folders low/ and high/ with clips of 0.2 to 0.5 s."""
    draw = np.random.default_rng(0)
    for i in range(clips):
        rate, count = rates[i % len(rates)], channels[i % len(channels)]
        x = sine(0.2 + 0.3 * draw.uniform(), rate, (300, 1200)[i % 2] * draw.uniform(0.9, 1.1))
        x = x + 0.01 * draw.normal(size=len(x))
        write(folder / ("low", "high")[i % 2] / f"{i:03}.wav", x if count == 1 else np.stack([x] * count, axis=1), rate)
    return folder
