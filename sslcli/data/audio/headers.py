"""Headers of audio files: rates, channels, lengths and formats without decoding, and which files are unreadable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslcli.console import escape, plural
from sslcli.data.audio.reader import AudioFile
from sslcli.data.files.parallel import parallel_map
from sslcli.data.folders.contents import FileList
from sslcli.data.folders.headers import FileHeaders, fixed_sample, resident_budget
from sslcli.errors import BadSample, listing

COMPARED_SECONDS = 5  # in the middle of a file
CANCELLED = 1e-4  # -40 dB: the energy of the mean of the channels, as a fraction of the mean of their energies
ONE_CHANNEL = "save one of their channels alone"
SILENT = 1e-9  # of full scale, squared: energies below are those of 16-bit rounding


@dataclass(frozen=True)
class Header:
    rate: int
    channels: int
    length: int
    format: str

    @property
    def seconds(self) -> float:
        return self.length / self.rate


class Headers(FileHeaders[Header]):
    """Those of clips."""

    def seconds(self) -> list[float]:
        """The lengths of the clips, in order."""
        return sorted(header.seconds for header in self.good.values())

    def quantile(self, share: float) -> float:
        lengths = self.seconds()
        return lengths[min(len(lengths) - 1, int(share * len(lengths)))]

    def common_rate(self) -> int:
        """The rate of the most files; of several, the lowest."""
        counts = Counter(header.rate for header in self.good.values())
        return min(counts, key=lambda rate: (-counts[rate], rate))

    def bytes_at(self, rate: int) -> float:
        """An estimate of the memory of all clips as int16."""
        return 2 * rate * sum(self.seconds()) * self.total / max(1, len(self.good))

    def summary(self) -> dict[str, Any]:
        lengths = self.seconds()
        return {
            "rates": dict(Counter(h.rate for h in self.good.values()).most_common()),
            "channels": dict(Counter(h.channels for h in self.good.values()).most_common()),
            "formats": dict(Counter(h.format for h in self.good.values()).most_common()),
            "seconds": {"least": lengths[0], "median": self.quantile(0.5), "most": lengths[-1], "sum": sum(lengths)},
            "headers_read": len(self.good) + len(self.bad),
        }


def read_headers(groups: Sequence[FileList], all_of_them: bool) -> Headers:
    """Read the headers of a fixed sample of files; of all where the clips may fit into memory, or `all_of_them`."""
    paths = [p for files in groups for p in files.paths]
    headers = Headers(len(paths))
    headers.read(fixed_sample(paths), _header, "reading audio headers")
    fits = bool(headers.good) and headers.bytes_at(headers.common_rate()) <= 2 * resident_budget()
    if all_of_them or fits:
        headers.read(paths, _header, "reading audio headers")
    return headers


def _header(path: str) -> Header:
    with AudioFile(path) as file:
        return Header(file.rate, file.channels, file.length, file.format)


def describe_headers(headers: Headers, rate: int, channels: str, notes: list[str]) -> None:
    """Add notes on lengths, rates and channels, and on what is converted."""
    good = headers.good.values()
    sampled = "" if headers.complete else f" (of {len(good):,} sampled)"
    lengths = headers.seconds()
    if lengths[0] == lengths[-1]:
        notes.append(f"all {format_seconds(lengths[0])} long{sampled}")
    else:
        median = format_seconds(headers.quantile(0.5))
        notes.append(f"{format_seconds(lengths[0])} to {format_seconds(lengths[-1])} long, median {median}{sampled}")
    rates = Counter(h.rate for h in good)
    for other, n in sorted(rates.items()):
        if other > rate:
            notes.append(
                f"{plural(n, 'clip')}{sampled} of {other:,} samples per second resampled to {rate:,}: what is above "
                f"{rate / 2000:g} kHz is removed (dataset.rate={other} keeps it)"
            )
        elif other < rate:
            notes.append(
                f"{plural(n, 'clip')}{sampled} of {other:,} samples per second resampled to {rate:,}: there is nothing above "
                f"{other / 2000:g} kHz in them"
            )
    several = sum(h.channels > 1 for h in good)
    if several:
        how = "the first channel is read" if channels == "first" else "the mean of the channels is read"
        notes.append(f"{plural(several, 'clip')}{sampled} of several channels: {how}")


def find_cancelled(paths: Sequence[str]) -> list[str]:
    """Those of the files whose channels are in opposite phase, as where one of two microphones has swapped wires: the mean of their
    channels is at least 40 dB below the channels. Files that cannot be read are left out."""

    def cancels(i: int) -> bool:
        try:
            with AudioFile(paths[i]) as file:
                if file.channels == 1:
                    return False
                count = min(file.length, COMPARED_SECONDS * file.rate)
                x = file.read((file.length - count) // 2, count).astype(np.float64)
        except BadSample:
            return False
        energy = float(np.square(x).mean())
        return energy > SILENT and float(np.square(x.mean(axis=1)).mean()) < CANCELLED * energy

    found = parallel_map(cancels, len(paths), "comparing channels")
    return [path for path, yes in zip(paths, found, strict=True) if yes]


def cancelled_note(names: Sequence[str], remedy: str) -> str:
    """The warning of clips whose channels cancel. `remedy`: what reads them otherwise."""
    return (
        f"warning: the channels of {plural(len(names), 'clip')} are in opposite phase, so that their mean is nearly silent: "
        f"{listing(map(escape, sorted(names)), 5)}; {remedy}"
    )


def format_seconds(seconds: float) -> str:
    """`0.42 s`, `12 s`, `3:05 h`."""
    if seconds >= 3600:
        return f"{seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f} h"
    if seconds >= 600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
