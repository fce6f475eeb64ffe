"""Folders and lists of audio files: splits, labels, groups, rates, and what is said about them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sslcli.backbones.temporal.gru import GRU
from sslcli.data.audio.audio_folder import audio_folder
from sslcli.data.audio.clips import LongClip, cut
from sslcli.data.audio.mel import LogMel
from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.audio.statistics import wave
from sslcli.data.audio.tones import CLASSES, tones
from sslcli.data.dataset import Dataset
from sslcli.data.user_files.audio import read_audio_files
from sslcli.errors import DataError, RequestError
from sslcli.nn.values import Continuous
from sslcli.rng import Draw
from sslcli.views.clips.view import AudioView
from tests.data.audio.sounds import RATE, sine, wav_bytes, write, write_folder


def said(data: Dataset) -> str:
    return "\n".join(data.notes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "clips", rates=(8000, 8000, 16_000, 4000), channels=(1, 2))


def test_class_folders(folder):
    data = audio_folder(str(folder))
    assert (data.modality, data.classes) == ("audio", ("high", "low"))
    assert (len(data.train), len(data.test)) == (19, 5)
    assert data.shape[:2] == (1, 64)
    assert data.shape[2] % 16 == 0
    storage = data.train.resident
    assert storage is not None
    assert storage.flat.dtype == torch.int16
    assert {0.2 <= n / RATE <= 0.51 for n in storage.lengths.tolist()} == {True}
    text = said(data)
    assert "6 clips of 16,000" in text
    assert "(dataset.rate=16000 keeps it)" in text
    assert "6 clips of 4,000" in text
    assert "nothing above 2 kHz" in text
    assert "12 clips of several channels: the mean" in text
    assert "class folders: 24 clips of 2 classes" in text
    assert "held out: 5 clips of 24" in text
    assert "image" not in text
    assert data.details["rates"] == {8000: 12, 16000: 6, 4000: 6}


def test_frames_after_a_clip_are_no_frames_of_a_recurrent_network(folder):
    """In a clean view, the silence that fills a clip up is padding to a network over frames, and features do not depend on it."""
    features = []
    for seconds in (1.0, 2.0):
        data = audio_folder(str(folder), holdout=0, seconds=seconds)
        known = data.preprocessor
        assert isinstance(known, AudioPreprocessor)
        torch.manual_seed(0)
        network = GRU(data.shape, width=8, stride=1, pool="both").eval()
        network.set_values(data.values)
        view = AudioView([], data)
        clips = [data.train.read(i) for i in range(6)]
        x = view.finish(view.frame(clips, Draw(0, 0, torch.arange(6))), Draw(0, 0, torch.arange(6)))
        reach = known.mel.n_fft // 2  # of the window of a frame, beyond its middle
        for clip, there in zip(clips, network.present(x), strict=True):
            assert abs(int(there.sum()) - (1 + (len(clip) + reach) // known.mel.hop)) <= 1
        features.append(network(x))
    torch.testing.assert_close(*features)


def test_preprocessors_of_earlier_runs_keep_silence_as_content(folder):
    """A run without the key `pads` resumes with the values and the preprocessor that it had."""
    now = audio_folder(str(folder)).preprocessor
    assert isinstance(now, AudioPreprocessor)
    content = {key: value for key, value in now.to_json().items() if key != "pads"}
    earlier = AudioPreprocessor.from_json(content, {})
    assert earlier.to_json() == content
    assert earlier.values == Continuous((0.0,), (1.0,))
    assert audio_folder(str(folder), like=earlier).values == earlier.values
    assert AudioPreprocessor.from_json(now.to_json(), {}) == now
    assert len(now.values.silence) == now.mel.bands
    assert now.differences(earlier) == ["pads was True, is False"]
    with pytest.raises(ValueError, match="pads"):
        AudioPreprocessor.from_json(content | {"pads": 1}, {})


def test_bands_are_normalized_without_padding(folder):
    data = audio_folder(str(folder), holdout=0, seconds=2.0)
    known = data.preprocessor
    assert isinstance(known, AudioPreprocessor)
    log_mel = LogMel(known.mel)
    frames = torch.cat([log_mel(wave(data.train.read(i))[None])[0] for i in range(len(data.train))], dim=1)
    assert torch.allclose(frames.mean(dim=1), torch.tensor(known.mean), atol=1e-4)
    assert torch.allclose(frames.std(dim=1, correction=0), torch.tensor(known.std), atol=1e-4)


def test_streamed_clips_equal_resident_ones(folder):
    one, two = audio_folder(str(folder)), audio_folder(str(folder), resident=False)
    assert two.train.resident is None
    for i in range(len(one.train)):
        assert torch.equal(one.train.read(i), two.train.read(i))
    assert (one.fingerprint, one.preprocessor) == (two.fingerprint, two.preprocessor)


def test_channels(tmp_path):
    left, right = sine(hz=300), sine(hz=900)
    write(tmp_path / "a.wav", np.stack([left, right], axis=1))
    first = audio_folder(str(tmp_path), channels="first").train.read(0)
    mean = audio_folder(str(tmp_path)).train.read(0)
    assert np.allclose(first.numpy() / 32768, left, atol=1e-4)
    assert np.allclose(mean.numpy() / 32768, (left + right) / 2, atol=1e-4)


def test_labels_and_groups_from_names(tmp_path):
    for label in "01":
        for speaker in ("ann", "bob", "eve"):
            for take in range(4):
                write(tmp_path / f"{label}_{speaker}_{take}.wav", sine(0.2))
    given = {"name_pattern": "{label}_{group}_{take}"}
    data = audio_folder(str(tmp_path), **given)
    assert data.classes == ("0", "1")
    assert "3 groups: ann, bob, eve" in said(data)
    assert "by group" in said(data)
    assert not set(data.train.groups.tolist()) & set(data.test.groups.tolist())
    data = audio_folder(str(tmp_path), test="*_bob_*", **given)
    assert {name.split("_")[1] for name in data.test.names} == {"bob"}
    assert len(data.test) == 8
    assert "test: 8 clips by dataset.test=*_bob_*" in said(data)
    assert data.fingerprint != audio_folder(str(tmp_path), test="*_ann_*", **given).fingerprint
    with pytest.raises(RequestError, match="matches no file"):
        audio_folder(str(tmp_path), test="*_joe_*", **given)
    with pytest.raises(RequestError, match="needs the field"):
        audio_folder(str(tmp_path), name_pattern="{speaker}_*")
    with pytest.raises(DataError, match="24 names of 24 do not match"):
        audio_folder(str(tmp_path), name_pattern="{label}-{take}")


def test_list_with_labels_and_speakers(folder):
    files = sorted(folder.rglob("*.wav"))
    rows = [f"{p.relative_to(folder)},{'ab'[i % 2]},speaker {i % 3}" for i, p in enumerate(files)]
    (folder / "list.csv").write_text("path,label,speaker\n" + "\n".join(rows) + "\n")
    data = audio_folder(str(folder / "list.csv"))
    assert data.classes == ("a", "b")
    assert "3 groups" in said(data)
    assert not set(data.train.groups.tolist()) & set(data.test.groups.tolist())


def test_test_folder_and_list(folder, tmp_path):
    write_folder(tmp_path / "other", 6)
    data = audio_folder(str(folder), test=str(tmp_path / "other"))
    assert (len(data.train), len(data.test)) == (24, 6)
    (folder / "held.txt").write_text("low/000.wav\nhigh/001.wav\n")
    data = audio_folder(str(folder), test="held.txt")
    assert (len(data.train), len(data.test)) == (22, 2)
    assert set(data.test.names) == {"low/000.wav", "high/001.wav"}


def test_groups_by_folder(folder):
    data = audio_folder(str(folder), label="none", group="parent", holdout=0.5)
    assert len({n.split("/")[0] for n in data.train.names}) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rate": 0}, "dataset.rate"),
        ({"seconds": 0.0}, "dataset.seconds"),
        ({"seconds": 1e9}, "frames"),
        ({"channels": "left"}, "dataset.channels"),
        ({"bands": 2}, "dataset.bands"),
        ({"hop": 9000}, "dataset.hop"),
        ({"f_max": 9000.0}, "dataset.f_max"),
        ({"mel": "bark"}, "dataset.mel"),
        ({"norm": "l1"}, "dataset.norm"),
        ({"log_epsilon": 0.0}, "dataset.log_epsilon"),
        ({"loudness": "loud"}, "dataset.loudness"),
        ({"group": "speaker"}, "dataset.group"),
        ({"label": "genre"}, "dataset.label"),
        ({"resident": "maybe"}, "dataset.resident"),
    ],
)
def test_options_refuse(folder, given, expected):
    with pytest.raises(RequestError, match=expected):
        audio_folder(str(folder), **given)


def test_views_of_equal_loudness(folder):
    """A clip at a tenth of its level has the same view; by default another one. Band statistics are those of the scaled clips."""
    equal, kept = (audio_folder(str(folder), loudness=loudness) for loudness in ("equal", "keep"))
    clip = kept.preprocessor.encode([np.sin(np.arange(3000) / 5)])[0]
    for data, same in ((equal, True), (kept, False)):
        views = [AudioView([], data).resident(c[None], Draw(0, 0, torch.arange(1))) for c in (clip, clip // 10)]
        loud = views[0] > views[0].median()
        assert torch.allclose(views[0][loud], views[1][loud], atol=0.02) == same
    assert equal.preprocessor.mean != kept.preprocessor.mean
    assert kept.preprocessor.differences(equal.preprocessor) == ["loudness was keep, is equal"]


def test_bands_without_a_frequency_are_said(folder):
    assert "bands of 64 hold no frequency of a window of 64 samples" in said(
        audio_folder(str(folder), n_fft=64, hop=32)
    )


def test_no_audio(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1")
    with pytest.raises(DataError, match=r"no audio file .* it contains 1 \.jpg"):
        audio_folder(str(tmp_path))
    with pytest.raises(RequestError, match="is a file"):
        audio_folder(str(write(tmp_path / "b.wav", sine())))
    with pytest.raises(RequestError, match="does not exist"):
        audio_folder(str(tmp_path / "absent"))


def test_unreadable_files_are_counted(folder):
    (folder / "low" / "broken.wav").write_bytes(b"RIFF")
    (folder / "low" / "empty.wav").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 26 samples cannot be read"):
        audio_folder(str(folder))
    data = audio_folder(str(folder), max_bad_fraction=0.1)
    assert "broken.wav (is no audio)" in said(data)
    assert data.details["bad"].keys() == {"low/broken.wav", "low/empty.wav"}


def test_recording_of_three_hours_is_read_in_parts(tmp_path):
    """A sparse file of 3 hours, of which views and statistics read seconds."""
    path = write(tmp_path / "long.wav", sine(1.0))
    frames = 3 * 3600 * RATE
    with path.open("r+b") as file:
        file.truncate(44 + 2 * frames)
        file.seek(4)
        file.write((36 + 2 * frames).to_bytes(4, "little"))
        file.seek(40)
        file.write((2 * frames).to_bytes(4, "little"))
    write(tmp_path / "short.wav", sine(0.5))
    data = audio_folder(str(tmp_path), resident=False, seconds=1.0)
    assert "0.5 s to 3:00 h long" in said(data)
    clips = {len(data.train.read(i)): data.train.read(i) for i in range(2)}
    assert isinstance(clips[frames], LongClip)
    assert np.allclose(cut(clips[frames], -10, 8010)[10:].numpy() / 32768, sine(1.0), atol=1e-4)
    assert not cut(clips[frames], frames - 100, 300).any()


def test_like_uses_the_settings_of_the_run(folder):
    run = audio_folder(str(folder), rate=6000, bands=20, seconds=0.3).preprocessor
    data = audio_folder(str(folder), like=run)
    assert data.preprocessor == run
    assert data.shape == run.shape


def test_preprocessor_round_trip(folder):
    known = audio_folder(str(folder)).preprocessor
    content = json.loads(known.files()["preprocessor.json"])
    assert AudioPreprocessor.from_json(content, {}) == known
    for change in (
        {"frames": 0},
        {"channels": "left"},
        {"mean": [0.0]},
        {"std": [0.0] * 64},
        {"mean": [float("inf")] * 64},
        {"mel": None},
    ):
        with pytest.raises(ValueError):
            AudioPreprocessor.from_json({**content, **change}, {})
    other = replace(known, frames=32)
    assert known.differences(other) == [f"frames was {known.frames}, is 32"]
    assert known.differences(known) == []


def test_preprocessor_encodes_files_and_waves(folder):
    known = audio_folder(str(folder)).preprocessor
    path = sorted(folder.rglob("*.wav"))[0]
    x = sine(0.3)
    clips = known.encode([str(path), x, x.astype(np.float32), (x * 32768).astype(np.int16), np.stack([x, x], axis=1)])
    assert len(clips[0]) > 1000
    for clip in clips[1:]:
        assert (clip - clips[1]).abs().max() <= 1
    assert np.allclose(known.decode(clips)[1], x, atol=1e-4)
    for wrong in ([np.zeros((2, 2, 2))], [np.zeros(0)], [np.array(["a"])], [np.array([np.nan])], ["absent.wav"]):
        with pytest.raises(DataError):
            known.encode(wrong)


def test_tones():
    data = tones(samples=60)
    assert data.classes == CLASSES
    assert (len(data.train), len(data.test)) == (48, 12)
    assert data.shape == (1, 32, 64)
    assert data.fingerprint == tones(samples=60).fingerprint


def test_channels_in_opposite_phase_are_reported(tmp_path):
    """Only where they cancel: a residual below -40 dB, and a signal at all."""
    rng = np.random.default_rng(0)
    left = 0.3 * rng.standard_normal(4000)
    pairs = {
        "swapped": np.stack([left, -left], 1),
        "nearly": np.stack([left, -0.985 * left], 1),  # the mean is at -42 dB
        "partly": np.stack([left, -0.9 * left], 1),  # at -26 dB
        "noise": 0.3 * rng.standard_normal((4000, 2)),
        "silent": np.zeros((4000, 2)),
        "one side": np.stack([left, 0 * left], 1),
        "mono": left,
    }
    for name, x in pairs.items():
        (tmp_path / f"{name}.wav").write_bytes(wav_bytes(x, kind="f32"))
    (warning,) = [note for note in audio_folder(str(tmp_path)).notes if "opposite phase" in note]
    assert warning.startswith("warning: the channels of 2 clips are in opposite phase")
    assert "nearly.wav, swapped.wav; dataset.channels=first" in warning
    first = audio_folder(str(tmp_path), channels="first")
    assert not any("opposite phase" in note for note in first.notes)
    streamed = audio_folder(str(tmp_path), resident=False)
    assert any("opposite phase" in note for note in streamed.notes)
    again = audio_folder(str(tmp_path), like=streamed.preprocessor)
    assert any("save one of their channels alone" in note for note in again.notes)
    notes: list[str] = []
    read_audio_files([str(tmp_path / "swapped.wav"), str(tmp_path / "noise.wav")], streamed.preprocessor, notes)
    assert [note for note in notes if "opposite phase" in note and "of 1 clip " in note and "swapped.wav" in note]
