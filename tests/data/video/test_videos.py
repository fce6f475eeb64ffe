"""Video files: decoded as they were written, cut, chosen by time, turned upright, and refused with a reason."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data.preprocess import preprocessor_of
from sslcli.data.user_files.frames import read_clip_files
from sslcli.data.video import videos
from sslcli.data.video.frames import frames
from sslcli.data.video.preprocessor import FramesPreprocessor
from sslcli.data.video.video_files import read_frames, read_header
from sslcli.errors import BadSample, DataError, MachineError, RequestError
from tests.data.video.films import moving_square, write_sound, write_video

av = pytest.importorskip("av", reason="PyAV is not installed")


def folder_of_videos(root, count: int = 3, **options):
    for kind, step in (("fast", 3), ("slow", 1)):
        for i in range(count):
            write_video(root / kind / f"{i}.mkv", moving_square(start=2 * i, step=step, **options))
    return root


# Contents ------------------------------------------------------------------------------------------------------------


def test_videos_without_loss_are_decoded_exactly(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (7, 20, 30, 3), dtype=np.uint8)
    path = write_video(tmp_path / "x.mkv", x)
    assert np.array_equal(np.stack(list(read_frames(str(path)))), x)
    header = read_header(str(path))
    assert (header.width, header.height, header.rate) == (30, 20, 25)
    data = frames(str(path))
    assert data.shape == (3, 7, 20, 30)
    assert torch.equal(data.train.x[0], torch.from_numpy(x).permute(3, 0, 1, 2))


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("b.MOV", "mpeg4", "yuv420p"),
        ("c.webm", "libvpx-vp9", "yuv420p"),
        ("d.avi", "mjpeg", "yuvj444p"),
        ("e.mpg", "mpeg2video", "yuv420p"),
    ],
)
def test_formats_with_loss_are_close(tmp_path, name, codec, pixels):
    x = np.repeat(np.linspace(30, 220, 12).astype(np.uint8), 48 * 64 * 3).reshape(12, 48, 64, 3)
    path = write_video(tmp_path / name, x, codec, pixels)
    found = np.stack(list(read_frames(str(path))))
    assert found.shape == x.shape
    assert np.abs(found.astype(int) - x).mean() < 8
    assert frames(str(path), image_size=16).shape == (1, 12, 16, 16)


def test_videos_and_pictures_of_the_same_frames_are_equal_clips(tmp_path):
    for kind in "ab":
        for i in range(2):
            x = moving_square(5, red=40 * i)
            write_video(tmp_path / "videos" / kind / f"{i}.avi", x)
            for t, frame in enumerate(x):
                place = tmp_path / "pictures" / kind / str(i)
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(frame).save(place / f"{t}.png")
    for options in ({}, {"image_size": 12}, {"image_size": 12, "channels": 1}, {"length": 2, "stride": 1}):
        one, other = (frames(str(tmp_path / name), **options) for name in ("videos", "pictures"))
        assert (one.shape, one.classes, one.values) == (other.shape, other.classes, other.values)
        assert torch.equal(one.train.x, other.train.x)
        assert torch.equal(one.train.labels, other.train.labels)


def test_folders_of_videos_have_classes_and_splits(tmp_path):
    folder_of_videos(tmp_path / "train")
    folder_of_videos(tmp_path / "test", 1)
    (tmp_path / "train" / "fast" / "cover.jpg").write_bytes(b"not read")
    data = frames(str(tmp_path), length=6, image_size=16)
    assert data.shape == (3, 6, 16, 16)
    assert data.classes == ("fast", "slow")
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert any("1 picture not read, since there are videos" in note for note in data.notes)


def test_gray_videos_have_one_channel(tmp_path):
    gray = np.repeat(moving_square()[..., :1], 3, axis=3)
    write_video(tmp_path / "gray" / "a.mp4", gray, "libx264", "yuv420p")
    assert frames(str(tmp_path / "gray")).shape[0] == 1
    assert frames(str(tmp_path / "gray"), channels=3).shape[0] == 3
    late = gray.copy()
    late[-1] = (200, 0, 0)
    write_video(tmp_path / "late" / "a.mkv", late)  # only the last frame has a color
    assert frames(str(tmp_path / "late")).shape[0] == 3


def test_luma_is_that_of_pillow():
    x = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    found = videos.to_gray(torch.from_numpy(x).permute(0, 3, 1, 2))[:, 0].numpy()
    assert np.array_equal(found, np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in x]))


# Time ----------------------------------------------------------------------------------------------------------------


def brightness(path, fps: float | None) -> list[int]:
    """Which frame each is, by its brightness."""
    return [int(frame[0, 0, 0]) // 8 for frame in read_frames(str(path), fps)]


def counted(frames: int) -> np.ndarray:
    return np.repeat(8 * np.arange(frames, dtype=np.uint8), 16 * 16 * 3).reshape(frames, 16, 16, 3)


@pytest.mark.parametrize("name", ["x.mkv", "x.avi"])  # times in milliseconds, and in frames
def test_frames_are_chosen_by_time(tmp_path, name):
    path = write_video(tmp_path / name, counted(30), rate=30)
    assert brightness(path, None) == brightness(path, 30) == list(range(30))
    assert brightness(path, 10) == list(range(0, 30, 3))
    assert brightness(path, 7.5) == list(range(0, 30, 4))
    assert brightness(path, 60) == [i for i in range(29) for _ in range(2)] + [29]


def test_frames_of_uneven_times_are_shown_until_the_next(tmp_path):
    path = write_video(tmp_path / "x.mkv", counted(5), rate=10, times=[3, 4, 9, 10, 15])
    assert brightness(path, 10) == [0, 1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 4]
    assert brightness(path, 5) == [0, 1, 1, 2, 3, 3, 4]


def test_long_gaps_are_refused(tmp_path):
    path = write_video(tmp_path / "x.mkv", counted(3), rate=10, times=[0, 1, 7_000])
    assert brightness(path, None) == [0, 1, 2]
    with pytest.raises(BadSample, match="more than 600 seconds between two frames"):
        brightness(path, 10)


def test_rates_that_differ_are_reported(tmp_path):
    write_video(tmp_path / "v" / "a.mkv", counted(24), rate=24)
    write_video(tmp_path / "v" / "b.mkv", counted(30), rate=30)
    data = frames(str(tmp_path / "v"))
    assert any("24 to 30 frames per second (dataset.fps)" in note for note in data.notes)
    assert data.shape[1] == 24
    chosen = frames(str(tmp_path / "v"), fps=6)
    assert chosen.shape[1] == 6
    assert not any("frames per second" in note for note in chosen.notes)
    for wrong in (0, -1, True, "6", 1e9, float("nan")):
        with pytest.raises(RequestError, match=r"dataset\.fps="):
            frames(str(tmp_path / "v"), fps=wrong)


def test_rate_is_of_video_files(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3, 8, 8), np.uint8))
    (tmp_path / "p").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "p" / "1.png")
    for path in ("x.npz", "p"):
        with pytest.raises(RequestError, match=r"dataset\.fps is of video files"):
            frames(str(tmp_path / path), fps=5)


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_videos_of_a_turned_camera_are_upright(tmp_path, matrix, turns):
    """The matrix in the header of a track says how a player turns it: (0, 1, -1, 0) is a quarter clockwise."""
    x = moving_square(4, size=(16, 32))
    path = write_video(tmp_path / "x.mp4", x, "libx264", "yuv444p")
    plain = np.stack(list(read_frames(str(path))))
    content = path.read_bytes()
    unity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    a, b, c, d = (n * (1 << 16) for n in matrix)
    at = content.index(unity, content.index(b"tkhd"))
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:at] + turned + content[at + 36 :])
    assert np.array_equal(np.stack(list(read_frames(str(path)))), np.rot90(plain, turns, axes=(1, 2)))


# Errors --------------------------------------------------------------------------------------------------------------


def test_files_that_are_no_videos_are_refused(tmp_path):
    (tmp_path / "text.mp4").write_bytes(b"hello " * 100)
    whole = write_video(tmp_path / "whole.mp4", moving_square(), "libx264", "yuv420p").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    write_sound(tmp_path / "sound.mkv")
    write_video(tmp_path / "one.mkv", moving_square(1))
    short = write_video(
        tmp_path / "short.avi", np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    )
    short.write_bytes(short.read_bytes()[:30_000])
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/whole.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile {tmp_path}/whole.mp4\n")
    for name, reason in {
        "text.mp4": "is no video that can be read",
        "cut.mp4": "is no video that can be read",
        "sound.mkv": "has no video stream",
        "one.mkv": "holds 1 frame: expected at least 2",
        "short.avi": "is truncated: .* of 20 frames|cannot be decoded",
        "list.mp4": "is no video that can be read",
        "concat.mp4": "is no video that can be read",
    }.items():
        with pytest.raises(DataError, match=f"{name} ({reason})") as error:
            frames(str(tmp_path / name))
        assert error.value.hint
    with pytest.raises(DataError, match=r"holds 1 frame at 1 frames per second \(dataset\.fps\)"):
        frames(str(tmp_path / "whole.mp4"), fps=1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="1 video of zero bytes"):
        frames(str(tmp_path / "empty"))


def test_sizes_that_differ_require_one(tmp_path):
    write_video(tmp_path / "a.mkv", moving_square())
    write_video(tmp_path / "b.mkv", moving_square(size=(16, 16)))
    with pytest.raises(DataError, match="frames of different sizes: 16 x 16, 32 x 24") as error:
        frames(str(tmp_path))
    assert "dataset.image_size" in error.value.hint
    assert frames(str(tmp_path), image_size=16).shape == (3, 12, 16, 16)


def test_frames_beyond_the_memory_are_refused(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", moving_square(), "libx264", "yuv420p")
    monkeypatch.setattr(videos, "PHYSICAL_MEMORY", 5_000)
    with pytest.raises(MachineError, match="more than the memory") as error:
        frames(str(tmp_path / "a.mp4"))
    assert "dataset.image_size" in error.value.hint
    assert frames(str(tmp_path / "a.mp4"), image_size=8).shape == (3, 12, 8, 8)
    assert frames(str(tmp_path / "a.mp4"), image_size=16, fps=12).shape == (3, 6, 16, 16)


# Files of an encoder -------------------------------------------------------------------------------------------------


def test_videos_of_an_encoder_are_read_at_its_rate(tmp_path):
    for i in range(2):
        write_video(tmp_path / "train" / f"{i}.mkv", moving_square(start=i))
    own = preprocessor_of(frames(str(tmp_path / "train"), length=3, fps=12.5, image_size=16))
    assert own.fps == 12.5
    assert FramesPreprocessor.from_json(own.to_json(), {}) == own
    new = tmp_path / "new"
    write_video(new / "same.mkv", moving_square(), rate=25)
    write_video(new / "slower.mkv", moving_square()[::2], rate=12)
    (new / "broken.mkv").write_bytes(b"nothing")
    found = read_clip_files([str(new), str(tmp_path / "train" / "0.mkv")], own, [])
    names = [path.rpartition("/")[2] for path in found.paths]
    assert names == ["same.mkv"] * 2 + ["slower.mkv"] * 2 + ["0.mkv"] * 2
    assert "is no video" in found.unreadable[str(new / "broken.mkv")]
    x = found.dataset.train.x
    assert torch.equal(x[:2], x[4:])
    for wrong in (0, -3, "5", True, [1]):
        with pytest.raises(ValueError, match="expected frames per second"):
            FramesPreprocessor.from_json({**own.to_json(), "fps": wrong}, {})
