"""Array files of clips, videos, and folders of videos or of pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sslcli.console import escape
from sslcli.data.dataset import Dataset
from sslcli.data.user_files.samples import FilePart, UserFiles, join, read_each, without_split
from sslcli.data.video.frames import frames
from sslcli.data.video.preprocessor import FramesPreprocessor
from sslcli.data.video.recordings import find_recordings
from sslcli.data.video.video_files import is_video_name
from sslcli.errors import RequestError

ARRAYS = (".npz", ".npy", ".pt")
EXPECTED = "videos (.mp4), a folder of pictures for each recording, or an array of clips (.npz, .npy, .pt)"


def read_clip_files(paths: Sequence[str], preprocessor: FramesPreprocessor, notes: list[str]) -> UserFiles:
    """All clips are in memory. Recordings that are longer than the encoder takes are cut into clips of its length; frames
    are resized where it takes square ones, and those of videos are chosen at its rate. RequestError for other files, MachineError
    for videos without PyAV."""
    places: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            places += [os.path.join(path, *found.folder) for found in find_recordings(path, True, notes)]
        elif is_video_name(path) or os.path.splitext(path)[1].lower() in ARRAYS:
            places.append(path)
        else:
            raise RequestError(f"{escape(path)} holds no clips, which this encoder takes", f"expected {EXPECTED}")
    return join(*read_each(places, lambda path: FilePart(path, _read(path, preprocessor, notes)), notes))


def _read(path: str, preprocessor: FramesPreprocessor, notes: list[str]) -> Dataset:
    channels, length, height, width = preprocessor.shape
    is_array = os.path.splitext(path)[1].lower() in ARRAYS and not os.path.isdir(path)
    side = height if height == width and not is_array else None
    fps = preprocessor.fps if is_video_name(path) and not os.path.isdir(path) else None
    found = frames(
        path, length=length, image_size=side, fps=fps, channels=channels if side else "auto", label="auto", holdout=0
    )
    return preprocessor.adapt(without_split(found), notes)
