"""A source of image files on disk."""

from __future__ import annotations

import hashlib
import os
from array import array
from typing import Any

from torch import Tensor

from sslcli.data.files.string_table import StringTable
from sslcli.data.folders.contents import FileList
from sslcli.data.images import decode
from sslcli.data.images.encoded import Decoder, EncodedImages


class ImageFiles(EncodedImages):
    """The image files of one split."""

    names: StringTable

    def __init__(self, files: FileList, labels: Tensor | None, decoder: Decoder, max_bad_fraction: float = 0.01):
        # no lists: they would be copied into each worker, object by object
        self.paths, self.names, self.sizes = StringTable(files.paths), StringTable(files.names), array("q", files.sizes)
        self.labels, self.decoder, self.max_bad_fraction = labels, decoder, max_bad_fraction

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, index: int) -> str | bytes:
        """The path of a file, or its bytes, for `decode.load`. Raises BadImage."""
        return self.paths[index]

    def content(self, index: int) -> bytes:
        """The bytes of a file. Raises BadImage."""
        file = self.file(index)
        return decode.read_content(file) if isinstance(file, str) else file

    def decode(self, index: int) -> Any:
        return self.decoder(self.file(index))

    def digest(self, index: int) -> bytes:
        try:
            return hashlib.sha256(self.content(index)).digest()
        except decode.BadImage:
            return os.fsencode(self.names[index])
