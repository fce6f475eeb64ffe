"""Audio files, folders of them, and lists of them (.txt, .csv)."""

from __future__ import annotations

from collections.abc import Sequence

from sslcli.data.audio.clips import AudioFiles
from sslcli.data.audio.headers import ONE_CHANNEL, cancelled_note, find_cancelled
from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.audio.reader import is_audio_name
from sslcli.data.dataset import Dataset
from sslcli.data.folders.headers import fixed_sample
from sslcli.data.user_files.file_samples import FileKind, find_samples
from sslcli.data.user_files.samples import UserFiles

AUDIO = FileKind(is_audio_name, "clip", "audio", "audio files, a folder of them, or a list of them (.txt, .csv)")


def read_audio_files(paths: Sequence[str], preprocessor: AudioPreprocessor, notes: list[str]) -> UserFiles:
    """Clips are decoded when they are asked for. RequestError for other files."""
    found = find_samples(paths, AUDIO, notes)
    if preprocessor.channels == "mean":
        named = dict(zip(found.files.paths, found.files.names, strict=True))
        cancelled = [named[path] for path in find_cancelled(fixed_sample(found.files.paths))]
        notes += [cancelled_note(cancelled, ONE_CHANNEL)] if cancelled else []
    source = AudioFiles(found.files, found.labels, preprocessor.decoder, 1.0)
    dataset = Dataset(
        "files",
        preprocessor.kind,
        preprocessor.shape,
        source,
        None,
        found.classes,
        values=preprocessor.values,
        preprocessor=preprocessor,
        fingerprint=found.fingerprint,
    )
    return UserFiles(dataset, source.names, source.paths, found.unreadable)
