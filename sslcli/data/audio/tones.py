"""Generated clips: tones, chirps, noise and the like, of different pitches, lengths and levels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sslcli.data.audio.build import AudioOptions
from sslcli.data.audio.clips import join_clips, to_int16
from sslcli.data.audio.headers import Header, Headers
from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.audio.statistics import band_statistics
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.split import split, split_hash
from sslcli.errors import RequestError

CLASSES = ("tone", "rising", "falling", "trill", "noise", "clicks")
RATE = 8000
SHORTEST, LONGEST = 0.25, 0.75  # seconds


def tones(
    name: str = "tones",
    samples: int = 600,
    rate: int = RATE,
    seconds: float = 0.63,
    bands: int = 32,
    holdout: float | str = 0.2,
    split_seed: int = 0,
    like: AudioPreprocessor | None = None,
) -> Dataset:
    """Clips of 0.25 to 0.75 seconds in six classes: a tone, one that rises or falls, a trill, a burst of noise, and
    clicks. Pitch, level and length are random, there is faint noise in all of them, and a fifth is held out.

    `samples`: the number of clips; `rate`, `seconds`, `bands`, `like`: as in `audio_folder`."""
    if samples < 2 * len(CLASSES):
        raise RequestError(
            f"dataset.samples: expected at least {2 * len(CLASSES)}, got {samples}", "dataset.samples=600"
        )
    clips, labels = generate(samples, rate)
    _, held_out = split(samples, holdout, split_seed, labels)
    inside = torch.ones(samples, dtype=torch.bool)
    inside[held_out] = False
    train, test = inside.nonzero()[:, 0], held_out
    whole = join_clips(clips)
    source = ArraySource(whole.select(train), labels[train])
    if like is None:
        headers = Headers(1, {"": Header(rate, 1, round(LONGEST * rate), "generated")})
        options = AudioOptions(rate=rate, seconds=seconds, bands=bands)
        mel = options.settings(headers)
        like = AudioPreprocessor(mel, options.frames(mel, headers), "mean", *band_statistics(source, mel))
    return Dataset(
        name,
        modality="audio",
        shape=like.shape,
        train=source,
        test=ArraySource(whole.select(test), labels[test]) if len(test) else None,
        classes=CLASSES,
        values=like.values,
        preprocessor=like,
        fingerprint=fingerprint(samples, [whole.flat.numpy().tobytes(), whole.offsets.numpy().tobytes()]),
        split=split_hash(held_out),
        details={"rate": rate},
    )


def generate(samples: int, rate: int) -> tuple[list[Tensor], Tensor]:
    """Clips (n,) int16 and their classes (samples,)."""
    draw = np.random.Generator(np.random.PCG64(0))
    labels = torch.arange(samples) % len(CLASSES)
    return [to_int16(clip(CLASSES[label], rate, draw)) for label in labels.tolist()], labels


def clip(kind: str, rate: int, draw: np.random.Generator, seconds: float | None = None) -> np.ndarray:
    """One clip (n,) of a class, in -1..1."""
    length = round((draw.uniform(SHORTEST, LONGEST) if seconds is None else seconds) * rate)
    time = np.arange(length) / rate
    ratio = np.exp2(draw.uniform(0.7, 1.5))  # of the last to the first pitch
    low = np.exp(draw.uniform(np.log(200), np.log(rate / 8)))
    pitch = {
        "rising": low * ratio ** (time / time[-1]),
        "falling": low * ratio ** (1 - time / time[-1]),
        "trill": low * np.where(np.sin(2 * np.pi * draw.uniform(8, 16) * time) > 0, 1.0, 2.0**0.25),
    }.get(kind, np.full(length, low))
    wave = np.sin(2 * np.pi * (np.cumsum(pitch) / rate + draw.uniform()))
    if kind == "noise":
        wave = draw.normal(size=length) * 0.5
    if kind == "clicks":
        every = round(rate / draw.uniform(12, 30))
        wave = np.where(np.arange(length) % every < rate // 500, draw.normal(size=length), 0.0)
    fade = np.minimum(1, np.minimum(time, time[::-1]) / 0.01)
    level = 10 ** (draw.uniform(-20, -3) / 20)
    out: np.ndarray = np.clip(level * fade * wave + 1e-3 * draw.normal(size=length), -1, 1)
    return out
