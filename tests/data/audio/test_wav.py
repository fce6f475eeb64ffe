"""WAV files of all types, and damaged ones."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from sslcli.data.audio.reader import AudioFile, has_soundfile
from sslcli.errors import BadSample
from tests.data.audio.sounds import RATE, sine, wav_bytes

STEP = {"u8": 1 / 128, "i16": 2**-15, "i24": 2**-23, "i32": 2**-24, "f32": 1e-7, "f64": 1e-7}  # float32 holds 24 bits


def read(tmp_path, content: bytes, name: str = "a.wav"):
    (tmp_path / name).write_bytes(content)
    with AudioFile(str(tmp_path / name)) as file:
        return file.read(0, file.length), file


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("kind", STEP)
def test_samples_of_all_types(tmp_path, kind, extensible):
    x = np.stack([sine(), sine(hz=100, level=0.9)], axis=1)
    extra = struct.pack("<4sI", b"LIST", 3) + b"abc\0"  # chunks have an even length
    got, file = read(tmp_path, wav_bytes(x, 12_345, kind, extensible, extra=extra))
    assert (file.rate, file.channels, file.length) == (12_345, 2, len(x))
    assert got.dtype == np.float32
    assert np.abs(got - x).max() <= STEP[kind]
    with AudioFile(str(tmp_path / "a.wav")) as file:
        assert np.array_equal(file.read(100, 50), got[100:150])


def test_extreme_values(tmp_path):
    x = np.array([-1.0, 0.0, 1.0])
    for kind in ("u8", "i16", "i24", "i32"):
        got, _ = read(tmp_path, wav_bytes(x, kind=kind))
        assert got[0, 0] == -1
        assert 0.99 < got[2, 0] <= 1


def test_unknown_size_is_read_to_the_end(tmp_path):
    """What ffmpeg writes to a pipe."""
    for size in (0, 0xFFFFFFFF):
        assert len(read(tmp_path, wav_bytes(sine(), size=size))[0]) == len(sine())


WAVE = wav_bytes(sine())
BAD = {
    "no samples": (wav_bytes(np.zeros(0)), "holds no samples"),
    "rate 0": (wav_bytes(sine(), rate=0), "0 samples per second"),
    "no channels": (WAVE[:22] + b"\0\0" + WAVE[24:], "0 channels"),
    "header longer than the file": (wav_bytes(sine(), size=10**6), "its header says 500,000 samples, the file holds 2,400"),
    "cut off": (WAVE[:2000], "the file holds 978"),
    "header alone": (WAVE[:12], "without a header"),
    "half a header": (WAVE[:30], "truncated header"),
    "no data": (WAVE[:36], "without samples"),
    "data first": (WAVE[:12] + WAVE[36:], "before their header"),
    "NaN": (wav_bytes(np.array([0.0, np.nan]), kind="f32"), "samples that are no numbers"),
    "infinite": (wav_bytes(np.array([0.0, np.inf]), kind="f32"), "samples that are no numbers"),
    "floats of another scale": (wav_bytes(np.array([0.0, 20_000]), kind="f32"), "values up to 20000, expected -1 to 1"),
    "text": (b"hello, this is no audio at all", "is no audio"),
    "web page": (b"<!doctype html><html>", "a web page"),
    "zeros": (bytes(1000), "zero bytes"),
    "empty": (b"", "is no audio"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_damaged_files(tmp_path, name):
    content, expected = BAD[name]
    with pytest.raises(BadSample, match=expected):
        read(tmp_path, content)


def test_no_regular_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.wav")
    for path in ("pipe.wav", "absent.wav", "."):
        with pytest.raises(BadSample):
            AudioFile(str(tmp_path / path))


def test_mp3_named_wav_without_soundfile(tmp_path, monkeypatch):
    """What a file holds counts: soundfile reads it, or the reason says that it is missing."""
    monkeypatch.setattr("sslcli.data.audio.reader.has_soundfile", lambda: False)
    for content, name in (
        (b"\xff\xfb\x90\x00" + bytes(400), "MP3"),
        (b"ID3\x04" + bytes(400), "MP3"),
        (b"fLaC" + bytes(90), "FLAC"),
    ):
        with pytest.raises(BadSample, match=f"{name}, which requires soundfile: pip install"):
            read(tmp_path, content)
    with pytest.raises(BadSample, match=r"compressed.*requires soundfile"):
        read(tmp_path, WAVE[:20] + b"\x11\0" + WAVE[22:])  # IMA ADPCM


needs_soundfile = pytest.mark.skipif(not has_soundfile(), reason="soundfile is not installed")


@needs_soundfile
@pytest.mark.parametrize(("ending", "tolerance"), [("flac", 1e-4), ("ogg", 0.1), ("mp3", 0.1)])
def test_other_formats(tmp_path, ending, tolerance):
    import soundfile

    x = sine(1.0)
    soundfile.write(tmp_path / f"a.{ending}", x, RATE)
    for name in (f"a.{ending}", "b.wav"):  # also under another name
        (tmp_path / name).write_bytes((tmp_path / f"a.{ending}").read_bytes())
        with AudioFile(str(tmp_path / name)) as file:
            assert abs(file.length - len(x)) < 2500
            assert file.rate == RATE
            middle = file.read(3000, 1000)[:, 0]
            assert abs(np.sqrt((middle**2).mean()) - 0.5 / 2**0.5) < tolerance


@needs_soundfile
def test_damaged_other_formats(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.flac", sine(3.0) + 0.1 * np.random.default_rng(0).normal(size=24_000), RATE)
    content = (tmp_path / "a.flac").read_bytes()
    for part in (content[:30], content[: len(content) // 2], b"\xff\xfb\x90\x00" + bytes(400)):
        with pytest.raises(BadSample):
            read(tmp_path, part)
