"""Clips: sources of audio files, decoded to one channel of int16 samples at one rate, and parts of long
recordings."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslcli.data.audio.reader import AudioFile
from sslcli.data.audio.resample import resample, resampled_length
from sslcli.data.dataset import Source
from sslcli.data.files.parallel import parallel_map
from sslcli.data.files.string_table import StringTable
from sslcli.data.folders.contents import FileList
from sslcli.data.storage import Ragged, Storage
from sslcli.errors import BadSample

FULL_SCALE = 32768  # of int16
BLOCK_SECONDS = 60  # of a recording that are decoded at once


@dataclass(frozen=True)
class Decoder:
    """How files become clips. rate: samples per second. channels: `mean` of all, or the `first`.

    Channels in opposite phase cancel in the mean. Such files are reported (`headers.find_cancelled`) and read as they are: choosing
    another channel for them alone would depend on the part of a recording that is read, and would give clips that exported
    preprocessors and runs of earlier versions read otherwise."""

    rate: int
    channels: str = "mean"

    def length(self, file: AudioFile) -> int:
        return resampled_length(file.length, file.rate, self.rate)

    def part(self, file: AudioFile, start: int, count: int) -> Tensor:
        """Samples start..start + count - 1 at the rate, (count,) int16. BadSample."""

        def read(first: int, samples: int) -> np.ndarray:
            x = file.read(first, samples)
            return x[:, 0] if self.channels == "first" or x.shape[1] == 1 else x.mean(axis=1)

        return to_int16(resample(read, file.length, file.rate, self.rate, start, count))

    def blocks(self, file: AudioFile) -> Iterator[Tensor]:
        length = self.length(file)
        size = BLOCK_SECONDS * self.rate
        for start in range(0, length, size):
            yield self.part(file, start, min(size, length - start))

    def whole(self, path: str) -> Tensor:
        """All samples of a file, (n,) int16. BadSample."""
        with AudioFile(path) as file:
            return torch.cat(list(self.blocks(file)))


def to_int16(x: np.ndarray) -> Tensor:
    """Samples in -1..1, beyond which they are clipped."""
    return torch.from_numpy(np.clip(np.rint(x * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16))


class LongClip:
    """A recording in a file, of which parts are decoded when they are asked for."""

    def __init__(self, path: str, length: int, decoder: Decoder):
        self.path, self.length, self.decoder = path, length, decoder

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> Tensor:
        start, stop, step = part.indices(self.length)
        assert step == 1, part
        with AudioFile(self.path) as file:
            return self.decoder.part(file, start, max(0, stop - start))


Clip = Tensor | LongClip  # (n,) int16, or a recording of n samples


def cut(clip: Clip, start: int, count: int) -> Tensor:
    """Samples start..start + count - 1 of a clip, (count,) int16; `start` may be negative. Beyond its ends there is
    silence."""
    out = torch.zeros(count, dtype=torch.int16)
    low, high = max(0, start), min(len(clip), start + count)
    if high > low:
        out[low - start : high - start] = clip[low:high]
    return out


class AudioFiles(Source):
    """The audio files of one split. Long ones are read in parts, unless all are in memory."""

    names: StringTable

    def __init__(self, files: FileList, labels: Tensor | None, decoder: Decoder, max_bad_fraction: float = 0.01):
        self.paths, self.names, self.sizes = StringTable(files.paths), StringTable(files.names), array("q", files.sizes)
        self.labels, self.decoder, self.max_bad_fraction = labels, decoder, max_bad_fraction
        self._all: Storage | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def resident(self) -> Storage | None:
        return self._all

    def set_resident(self, x: Storage) -> None:
        self._all = x

    def read(self, index: int) -> Clip:
        if self._all is not None:
            return self._all[index]
        path, decoder = self.paths[index], self.decoder
        with AudioFile(path) as file:
            length = decoder.length(file)
            if length > BLOCK_SECONDS * decoder.rate:
                return LongClip(path, length, decoder)
            return decoder.part(file, 0, length)

    def checked(self, index: int) -> Clip:
        with AudioFile(self.paths[index]) as file:
            for _ in self.decoder.blocks(file):
                pass
        return self.read(index)

    def decode_all(self) -> None:
        """Decode all files into memory. Unreadable ones are empty there, and listed in `bad`."""

        def one(i: int) -> Tensor | str:
            try:
                return self.decoder.whole(self.paths[i])
            except BadSample as error:
                return error.message

        clips: list[Tensor | str] = parallel_map(one, len(self), "decoding audio")
        self.bad = {i: clip for i, clip in enumerate(clips) if isinstance(clip, str)}
        self._all = join_clips([torch.zeros(0, dtype=torch.int16) if isinstance(c, str) else c for c in clips])


def join_clips(clips: list[Tensor]) -> Ragged:
    """Clips (n,) int16, each of its own length, as one storage."""
    ends = torch.tensor([0, *map(len, clips)], dtype=torch.int64).cumsum(0)
    return Ragged(torch.cat(clips) if clips else torch.zeros(0, dtype=torch.int16), ends, fill=0)
