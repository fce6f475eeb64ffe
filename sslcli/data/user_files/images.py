"""Image files, folders of them, lists of them (.txt, .csv), and arrays of images (.npz, .npy, .pt)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from sslcli.console import escape
from sslcli.data.dataset import Dataset
from sslcli.data.images import decode
from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.data.sources.arrays import arrays
from sslcli.data.sources.image_files import ImageFiles
from sslcli.data.user_files.file_samples import FileKind, find_samples
from sslcli.data.user_files.samples import FilePart, UserFiles, join, read_each, without_split
from sslcli.errors import RequestError

ARRAYS = (".npz", ".npy", ".pt")
EXPECTED = "images, a folder of them, a list of them (.txt, .csv), or an array of images (.npz)"
IMAGES = FileKind(decode.is_image_name, "image", "image", EXPECTED)


def read_image_files(paths: Sequence[str], preprocessor: ImagePreprocessor, notes: list[str]) -> UserFiles:
    """Images are decoded when they are asked for; arrays are in memory. RequestError where both are given, or other files."""
    if in_arrays := [path for path in paths if _ending(path) in ARRAYS]:
        if other := next((path for path in paths if path not in in_arrays), None):
            raise RequestError(
                f"{escape(in_arrays[0])} holds many images, {escape(other)} does not: they are read in different ways",
                "one command for each",
            )
        return join(*read_each(in_arrays, lambda path: FilePart(path, _read_array(path, preprocessor, notes)), notes))
    found = find_samples(paths, IMAGES, notes)
    source = ImageFiles(found.files, found.labels, preprocessor.decoder, 1.0)
    dataset = Dataset(
        "files",
        preprocessor.kind,
        preprocessor.shape,
        source,
        None,
        found.classes,
        values=preprocessor.values,
        fingerprint=found.fingerprint,
    )
    return UserFiles(dataset, source.names, source.paths, found.unreadable)


def _read_array(path: str, preprocessor: ImagePreprocessor, notes: list[str]) -> Dataset:
    value_range = preprocessor.range if isinstance(preprocessor.range, list) else "auto"
    dataset = arrays(path, image_size=preprocessor.shape[-1], range=value_range, holdout=0)
    return preprocessor.adapt(without_split(dataset), notes)


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()
