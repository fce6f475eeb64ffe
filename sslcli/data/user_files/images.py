"""Image files, folders of them, lists of them (.txt, .csv), and arrays of images (.npz, .npy, .pt)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sslcli.console import escape
from sslcli.data.dataset import Dataset
from sslcli.data.files.list_file import read_list
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.contents import FileList
from sslcli.data.images import decode
from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.data.sources.arrays import arrays
from sslcli.data.sources.image_files import ImageFiles
from sslcli.data.sources.image_splits import encode_classes
from sslcli.data.user_files.samples import (
    FilePart,
    UserFiles,
    join,
    list_files,
    none_readable,
    read_each,
    without_split,
)
from sslcli.errors import RequestError

ARRAYS = (".npz", ".npy", ".pt")
LISTS = (".txt", ".csv", ".tsv")
EXPECTED = "images, a folder of them, a list of them (.txt, .csv), or an array of images (.npz)"


def read_image_files(paths: Sequence[str], preprocessor: ImagePreprocessor, notes: list[str]) -> UserFiles:
    """Images are decoded when they are asked for; arrays are in memory. RequestError where both are given, or other files."""
    if in_arrays := [path for path in paths if _ending(path) in ARRAYS]:
        if other := next((path for path in paths if path not in in_arrays), None):
            raise RequestError(
                f"{escape(in_arrays[0])} holds many images, {escape(other)} does not: they are read in different ways",
                "one command for each",
            )
        return join(*read_each(in_arrays, lambda path: FilePart(path, _read_array(path, preprocessor, notes))))
    files, unreadable, known = FileList(), dict[str, str](), set[str]()
    for path in paths:
        for one, size, label in _list_images(path, unreadable, notes):
            if one not in known:
                known.add(one)
                files.add(one, one, size, label)
    if not files:
        raise none_readable(unreadable)
    classes = tuple(sorted({label for label in files.classes if label is not None}))
    source = ImageFiles(files, encode_classes(files, classes) if classes else None, preprocessor.decoder, 1.0)
    sizes = (part for name, size in zip(files.names, files.sizes, strict=True) for part in (name, str(size)))
    dataset = Dataset(
        "files",
        preprocessor.kind,
        preprocessor.shape,
        source,
        None,
        classes,
        values=preprocessor.values,
        fingerprint=fingerprint(len(files), (text.encode("utf-8", "surrogateescape") for text in sizes)),
    )
    return UserFiles(dataset, source.names, source.paths, unreadable)


def _read_array(path: str, preprocessor: ImagePreprocessor, notes: list[str]) -> Dataset:
    value_range = preprocessor.range if isinstance(preprocessor.range, list) else "auto"
    dataset = arrays(path, image_size=preprocessor.shape[-1], range=value_range, holdout=0)
    return preprocessor.adapt(without_split(dataset), notes)


def _list_images(path: str, unreadable: dict[str, str], notes: list[str]) -> list[tuple[str, int, str | None]]:
    """(path, bytes, class) of an image, of those below a folder, or of those that a list names."""
    if os.path.isdir(path):
        return [(one, size, None) for one, size in list_files(path, decode.is_image_name, "images", unreadable)]
    if _ending(path) in LISTS:
        contents = read_list(path, "auto", notes)
        unreadable |= contents.missing
        rows = (zip(part.paths, part.sizes, part.classes, strict=True) for part in contents.parts.values())
        return [row for part in rows for row in part]
    if not decode.is_image_name(path):
        raise RequestError(f"{escape(path)} is no image, which this encoder takes", f"expected {EXPECTED}")
    try:
        return [(path, os.stat(path).st_size, None)]
    except OSError as error:
        unreadable[path] = error.strerror or str(error)
        return []


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()
