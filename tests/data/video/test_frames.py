"""Clips: generated ones, those of arrays, and those of folders of numbered pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data.preprocess import preprocessor_of
from sslcli.data.user_files.frames import read_clip_files
from sslcli.data.video import video_files
from sslcli.data.video.frames import axes_of, frames
from sslcli.data.video.moving import animate, moving, positions
from sslcli.data.video.preprocessor import FramesPreprocessor
from sslcli.errors import DataError, MachineError, RequestError


def recording(folder, numbers, color: int = 0, size=(10, 8), mode: str = "L", name="frame_{:03}.png"):
    """A folder of pictures whose pixels are 10 x number + color."""
    folder.mkdir(parents=True)
    for number in numbers:
        Image.new(mode, size, 10 * number + color if mode == "L" else (10 * number, color, 7)).save(
            folder / name.format(number)
        )


# Generated -----------------------------------------------------------------------------------------------------------


def test_pictures_move_at_a_constant_speed_and_bounce():
    at = positions(np.array([[0.9, 0.5]]), np.array([[0.1, 0.0]]), 6)[0]
    np.testing.assert_allclose(at[:, 0], [0.9, 1.0, 0.9, 0.8, 0.7, 0.6])
    np.testing.assert_allclose(at[:, 1], 0.5)
    back = positions(np.array([[0.05, 0.0]]), np.array([[-0.1, 0.0]]), 3)[0]
    np.testing.assert_allclose(back[:, 0], [0.05, 0.05, 0.15])
    picture = np.full((1, 4, 4), 200, np.uint8)
    clips = animate(picture, np.zeros((3, 2), int), 5, 16, np.random.default_rng(0))
    assert clips.shape == (3, 5, 16, 16)
    assert set(np.unique(clips)) == {0, 200}
    area = (clips > 0).sum(axis=(2, 3))
    assert ((area >= 16) & (area <= 32)).all()  # nothing is cut off at an edge, and pictures may overlap


def test_moving_is_reproducible_and_has_labels_of_one_object():
    first, again = (moving(samples=12, test_samples=6, frames=4, size=32, objects=1) for _ in range(2))
    assert torch.equal(first.train.x, again.train.x)
    assert first.fingerprint == again.fingerprint
    assert first.shape == (1, 4, 32, 32) == tuple(first.test.x.shape[1:])
    assert first.train.labels.shape == (12,)
    assert first.classes == tuple("0123456789")
    assert first.values.mean == (0.0,)
    two = moving(samples=12, test_samples=6, frames=4, size=32)
    assert two.train.labels is None
    assert two.classes == ()
    for wrong, words in (
        ({"of": "cats"}, "expected digits"),
        ({"frames": 1}, "at least 2"),
        ({"size": 2}, "at least 8"),
    ):
        with pytest.raises(RequestError, match=words):
            moving(**wrong)


# Arrays --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "layout", "channels"),
    [
        ((5, 4, 6, 6), "auto", 1),
        ((4, 5, 6, 6), "tnhw", 1),
        ((5, 4, 6, 6, 3), "auto", 3),
        ((5, 3, 4, 6, 6), "auto", 3),
        ((4, 5, 6, 6, 1), "tnhwc", 1),
    ],
)
def test_layouts_of_arrays(tmp_path, shape, layout, channels):
    x = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=x, y=np.array(["a", "b", "a", "b", "a"]))
    data = frames(str(tmp_path / "x.npz"), layout=layout, holdout=0.4)
    assert data.shape == (channels, 4, 6, 6)
    assert (len(data.train), len(data.test)) == (3, 2)
    assert data.classes == ("a", "b")
    every = torch.cat([data.train.x, data.test.x])
    plain = {
        (5, 4, 6, 6): lambda a: a[:, None],
        (4, 5, 6, 6): lambda a: a.transpose(1, 0, 2, 3)[:, None],
        (5, 4, 6, 6, 3): lambda a: a.transpose(0, 4, 1, 2, 3),
        (5, 3, 4, 6, 6): lambda a: a,
        (4, 5, 6, 6, 1): lambda a: a.transpose(1, 4, 0, 2, 3),
    }[shape](x)
    assert {clip.tobytes() for clip in plain} == {clip.contiguous().numpy().tobytes() for clip in every}


def test_arrays_that_are_no_clips(tmp_path):
    with pytest.raises(DataError, match="the other way round") as error:
        axes_of((20, 10000, 64, 64), "x", "auto")
    assert "dataset.layout=tnhw" in error.value.hint
    with pytest.raises(DataError, match="which axis has the channels"):
        axes_of((5, 3, 8, 8, 3), "x", "auto")
    with pytest.raises(DataError, match=r"expected clips"):
        axes_of((5, 8, 8), "x", "auto")
    with pytest.raises(DataError, match="holds no clip"):
        axes_of((5, 0, 8, 8), "x", "auto")
    with pytest.raises(DataError, match="not the 5 axes"):
        axes_of((5, 4, 8, 8), "x", "nthwc")
    np.savez(tmp_path / "x.npz", x=np.zeros((5, 4, 8, 8), np.float32))
    with pytest.raises(DataError, match="expected uint8 clips, got float32"):
        frames(str(tmp_path / "x.npz"))


def test_long_recordings_are_cut_into_clips_of_one_split(tmp_path):
    x = np.arange(6 * 11, dtype=np.uint8).reshape(6, 11, 1, 1).repeat(8, 2).repeat(8, 3)
    np.savez(tmp_path / "x.npz", x=x)
    data = frames(str(tmp_path / "x.npz"), length=4, stride=3, holdout=0.3)
    assert data.shape == (1, 4, 8, 8)
    assert len(data.train) + len(data.test) == 6 * 3
    starts = {clip[0, 0, 0, 0].item() for clip in torch.cat([data.train.x, data.test.x])}
    assert starts == {11 * i + s for i in range(6) for s in (0, 3, 6)}
    of = [{clip[0, 0, 0, 0].item() // 11 for clip in part.x} for part in (data.train, data.test)]
    assert not of[0] & of[1]
    with pytest.raises(DataError, match="has 12 frames: the longest has 11") as error:
        frames(str(tmp_path / "x.npz"), length=12)
    assert error.value.hint == "dataset.length=11"
    with pytest.raises(RequestError, match=r"dataset\.stride=0"):
        frames(str(tmp_path / "x.npz"), stride=0)


# Pictures ------------------------------------------------------------------------------------------------------------


def test_folders_of_pictures_with_classes_and_splits(tmp_path):
    for split, kinds in (("train", "aabb"), ("test", "ab")):
        for i, kind in enumerate(kinds):
            recording(tmp_path / split / kind / f"clip{i}", range(8, 12), color=i, name="f{}.png")  # f10 comes after f9
    data = frames(str(tmp_path))
    assert data.shape == (1, 4, 8, 10)
    assert data.classes == ("a", "b")
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    assert data.train.x[1, 0, :, 0, 0].tolist() == [81, 91, 101, 111]
    assert frames(str(tmp_path), label="none").classes == ()
    small = frames(str(tmp_path), image_size=4)
    assert small.shape == (1, 4, 4, 4)
    assert small.train.x[1, 0, :, 0, 0].tolist() == [81, 91, 101, 111]


def test_color_and_recordings_of_several_lengths(tmp_path):
    recording(tmp_path / "one", range(5), mode="RGB")
    recording(tmp_path / "two", range(3), mode="RGB", color=9)
    data = frames(str(tmp_path))
    assert data.shape == (3, 3, 8, 10)
    assert len(data.train) == 2
    assert data.train.x[1, :, 2, 0, 0].tolist() == [20, 9, 7]
    assert "clips of 3 frames, as the shortest recording has; the longest has 5 (dataset.length)" in data.notes
    longer = frames(str(tmp_path), length=4)
    assert len(longer.train) == 1
    assert any("1 recording shorter than 4 frames" in note for note in longer.notes)
    assert frames(str(tmp_path), channels=1).shape[0] == 1


def test_damaged_folders_are_refused(tmp_path):
    recording(tmp_path / "gap" / "a", [1, 2, 4])
    with pytest.raises(DataError, match=r"no frame between frame_002.png and frame_004.png") as error:
        frames(str(tmp_path / "gap"))
    assert "dataset.gaps=ignore" in error.value.hint
    data = frames(str(tmp_path / "gap"), gaps="ignore")
    assert data.shape[1] == 3
    assert any("1 number missing" in note for note in data.notes)
    recording(tmp_path / "twice" / "a", [1, 2])
    Image.new("L", (10, 8)).save(tmp_path / "twice" / "a" / "other_2.png")
    with pytest.raises(DataError, match="have the same number"):
        frames(str(tmp_path / "twice"))
    recording(tmp_path / "sizes" / "a", [1, 2])
    Image.new("L", (12, 8)).save(tmp_path / "sizes" / "a" / "frame_003.png")
    with pytest.raises(
        DataError, match=r"frames of different sizes: 10 x 8, 12 x 8.*from most is frame_003\.png"
    ) as error:
        frames(str(tmp_path / "sizes"))
    assert error.value.hint == "dataset.image_size=8"
    assert frames(str(tmp_path / "sizes"), image_size=8).shape == (1, 3, 8, 8)
    recording(tmp_path / "broken" / "a", [1, 2])
    (tmp_path / "broken" / "a" / "frame_002.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        frames(str(tmp_path / "broken"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no videos and no pictures"):
        frames(str(tmp_path / "empty"))


def test_animated_pictures_have_to_be_converted(tmp_path):
    (tmp_path / "film.GIF").write_bytes(b"GIF89a")
    with pytest.raises(RequestError, match="is an animated picture, which is not read") as error:
        frames(str(tmp_path / "film.GIF"))
    assert "ffmpeg" in error.value.hint


def test_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(video_files, "has_av", lambda: False)
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "film.MP4").write_bytes(b"0")
    own = preprocessor_of(moving(samples=4, test_samples=2, frames=3, size=16, objects=1))
    for path in (tmp_path / "films", tmp_path / "films" / "film.MP4"):
        for read in (frames, lambda path: read_clip_files([path], own, [])):
            with pytest.raises(MachineError, match="video files require PyAV, which is not installed") as error:
                read(str(path))
            assert "pip install 'sslcli[video]'" in error.value.hint
            assert "ffmpeg -i" in error.value.hint


def test_preprocessor_takes_clips_and_is_read_again(tmp_path):
    data = moving(samples=4, test_samples=2, frames=3, size=16, objects=1)
    own = preprocessor_of(data)
    assert FramesPreprocessor.from_json(own.to_json(), {}) == own
    x = data.train.x
    for given in (x, x.numpy(), x[:, 0].numpy(), [clip.numpy() for clip in x]):
        assert torch.equal(own.encode(given), x)
    assert (own.decode(x)[0] == x[0].permute(1, 2, 3, 0).numpy()).all()
    with pytest.raises(DataError, match="expected uint8 clips of shape"):
        own.encode(x.float())
    for wrong in ({"shape": [1, 2]}, {"shape": [1, 3, 16, 16], "values": {"kind": "tokens", "size": 3}}):
        with pytest.raises(ValueError, match=r"expected|values"):
            FramesPreprocessor.from_json(wrong, {})


def test_files_of_an_encoder(tmp_path):
    """Recordings below a folder and an array, as clips of its length and size; what is too short or damaged is listed."""
    own = preprocessor_of(moving(samples=4, test_samples=2, frames=3, size=16, objects=1))
    recording(tmp_path / "films" / "one", range(7))
    recording(tmp_path / "films" / "two", range(2))
    recording(tmp_path / "films" / "three", range(3), mode="RGB")
    np.savez(tmp_path / "x.npz", x=np.full((2, 3, 16, 16), 9, np.uint8))
    found = read_clip_files([str(tmp_path / "films"), str(tmp_path / "x.npz")], own, [])
    assert found.dataset.shape == (1, 3, 16, 16)
    assert found.dataset.values == own.values
    assert len(found.dataset.train) == len(found.ids) == 2 + 1 + 2
    assert len(set(found.ids)) == 5
    assert [path.rpartition("/")[2] for path in found.paths] == ["one", "one", "three", "x.npz", "x.npz"]
    assert list(found.unreadable) == [str(tmp_path / "films" / "two")]
    assert "has 3 frames: the longest has 2" in found.unreadable[str(tmp_path / "films" / "two")]
    (tmp_path / "film.doc").write_bytes(b"0")
    with pytest.raises(RequestError, match="holds no clips") as error:
        read_clip_files([str(tmp_path / "film.doc")], own, [])
    assert "folder of pictures" in error.value.hint
