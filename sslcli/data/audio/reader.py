"""Open a file of audio: WAV by own code, other formats by soundfile, the extra `[audio]`. What a file holds counts,
not its name."""

from __future__ import annotations

import os
import stat
from types import TracebackType
from typing import Any, Self

import numpy as np

from sslcli.data.audio import wav
from sslcli.data.folders.placeholders import detect_placeholder
from sslcli.errors import BadSample

ENDINGS = (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".w64", ".caf")
FORMATS = {
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"FORM": "AIFF",
    b".snd": "AU",
    b"RF64": "RF64",
    b"caff": "CAF",
}
INSTALL = "pip install 'sslcli[audio]', or convert the files to WAV"
MAX_CHANNELS = 64
LOUD = 8.0  # of full scale: floats beyond it are in other units


def is_audio_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower().rstrip() in ENDINGS


class AudioFile:
    """An open file. rate: samples per second; channels; length: samples of each channel; format: for messages, such
    as `16-bit WAV`.

    Raises BadSample for a file that cannot be read, also where its format requires a package that is not
    installed."""

    def __init__(self, path: str):
        self._wav: wav.WavHeader | None = None
        self._other: Any = None
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise BadSample("is no regular file")
            self._file = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise BadSample(error.strerror or str(error)) from None
        try:
            self._open()
        except BaseException:
            self._file.close()
            raise
        if not 0 < self.channels <= MAX_CHANNELS:
            raise BadSample(f"has {self.channels} channels")
        if not self.length:
            raise BadSample("holds no samples")

    def _open(self) -> None:
        start = self._file.read(12)
        if wav.is_wav(start):
            self._wav = wav.read_header(self._file)
        if self._wav is not None:
            self.rate, self.channels, self.length = self._wav.rate, self._wav.channels, self._wav.length
            kind = "float " if self._wav.code == wav.FLOATS else ""
            self.format = f"{self._wav.bits}-bit {kind}WAV"
            return
        name = format_name(start)
        if name is None:
            raise BadSample(detect_placeholder(self._file.name) or "is no audio")
        self._other = _open_other(self._file, name)
        self.rate, self.channels = self._other.samplerate, self._other.channels
        self.length, self.format = int(self._other.frames), name

    def read(self, start: int, count: int) -> np.ndarray:
        """Samples start..start + count - 1, (count, channels) float32; of integers in -1..1."""
        if self._wav is not None:
            x = wav.read_samples(self._file, self._wav, start, count)
        else:
            try:
                self._other.seek(start)
                x = self._other.read(count, dtype="float32", always_2d=True)
            except (RuntimeError, OSError) as error:
                raise BadSample(f"cannot be decoded: {error}") from None
            if len(x) < count:
                raise BadSample(f"truncated: {start + len(x):,} of {self.length:,} samples can be decoded")
        peak = float(np.abs(x).max(initial=0.0))
        if not peak <= LOUD:  # also NaN
            values = f"values up to {peak:g}, expected -1 to 1" if np.isfinite(peak) else "samples that are no numbers"
            raise BadSample(f"holds {values}")
        return x

    def close(self) -> None:
        if self._other is not None:
            self._other.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def has_soundfile() -> bool:
    try:
        import soundfile  # noqa: F401
    except (ImportError, OSError):  # OSError: without its library
        return False
    return True


def format_name(start: bytes) -> str | None:
    """The name of a format by the first bytes of a file; None where it is none of audio."""
    if wav.is_wav(start):
        return "WAV of another type (compressed)"
    if len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0:  # the sync word of a frame
        return "MP3"
    return next((name for magic, name in FORMATS.items() if start.startswith(magic)), None)


def _open_other(file: Any, name: str) -> Any:
    if not has_soundfile():
        raise BadSample(f"{name}, which requires soundfile: {INSTALL}")
    import soundfile

    file.seek(0)
    try:
        return soundfile.SoundFile(file)
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise BadSample(f"{name} that cannot be decoded: {str(error).rpartition(': ')[2]}") from None
