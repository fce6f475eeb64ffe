"""Audio files, folders of them, and lists of them (.txt, .csv)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sslcli.console import escape
from sslcli.data.audio.clips import AudioFiles
from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.audio.reader import is_audio_name
from sslcli.data.dataset import Dataset
from sslcli.data.files.list_file import read_list
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.contents import FileList
from sslcli.data.folders.nouns import reword
from sslcli.data.sources.image_splits import encode_classes
from sslcli.data.user_files.samples import UserFiles, list_files, none_readable
from sslcli.errors import RequestError

LISTS = (".txt", ".csv", ".tsv")
EXPECTED = "audio files, a folder of them, or a list of them (.txt, .csv)"


def read_audio_files(paths: Sequence[str], preprocessor: AudioPreprocessor, notes: list[str]) -> UserFiles:
    """Clips are decoded when they are asked for. RequestError for other files."""
    files, unreadable, known = FileList(), dict[str, str](), set[str]()
    for path in paths:
        for one, size, label in _list(path, unreadable, notes):
            if one not in known:
                known.add(one)
                files.add(one, one, size, label)
    if not files:
        raise none_readable(unreadable)
    classes = tuple(sorted({label for label in files.classes if label is not None}))
    source = AudioFiles(files, encode_classes(files, classes) if classes else None, preprocessor.decoder, 1.0)
    rows = (part for name, size in zip(files.names, files.sizes, strict=True) for part in (name, str(size)))
    dataset = Dataset(
        "files",
        preprocessor.kind,
        preprocessor.shape,
        source,
        None,
        classes,
        values=preprocessor.values,
        preprocessor=preprocessor,
        fingerprint=fingerprint(len(files), (text.encode("utf-8", "surrogateescape") for text in rows)),
    )
    return UserFiles(dataset, source.names, source.paths, unreadable)


def _list(path: str, unreadable: dict[str, str], notes: list[str]) -> list[tuple[str, int, str | None]]:
    """(path, bytes, class) of a file, of those below a folder, or of those that a list names."""
    if os.path.isdir(path):
        return [(one, size, None) for one, size in list_files(path, is_audio_name, "audio", unreadable)]
    if path.lower().endswith(LISTS):
        found: list[str] = []
        contents = read_list(path, "auto", found)
        notes += [reword(note, "clip") for note in found]
        unreadable |= contents.missing
        rows = (zip(part.paths, part.sizes, part.classes, strict=True) for part in contents.parts.values())
        return [row for part in rows for row in part]
    if not is_audio_name(path):
        raise RequestError(f"{escape(path)} is no audio, which this encoder takes", f"expected {EXPECTED}")
    try:
        return [(path, os.stat(path).st_size, None)]
    except OSError as error:
        unreadable[path] = error.strerror or str(error)
        return []
