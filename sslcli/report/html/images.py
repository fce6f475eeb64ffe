"""Images as data URIs. PIL decodes them first, so that a corrupt file is left out."""

from __future__ import annotations

import base64
import io
import struct
from pathlib import Path
from typing import Any

from sslcli.runs.files import read_file

HEAVY = 250_000  # bytes of a PNG, above which it is worth trying a JPEG
MOST_PIXELS = 60_000_000
SIGNATURE = b"\x89PNG\r\n\x1a\n"


Embedded = tuple[str, tuple[int, int]]  # a data URI, and (width, height) in pixels


def encode(image: Any, kind: str) -> bytes:
    """PNG or JPEG, equal bytes for equal images."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"optimize": True} if kind == "PNG" else {"quality": 85}))
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    kind = "png" if content.startswith(SIGNATURE) else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def embedded(content: bytes, heavy: int = HEAVY) -> Embedded | None:
    """A PNG as a data URI; one of more than `heavy` bytes (photographs) as JPEG where that is half as large. None where it is not a
    valid PNG."""
    from PIL import Image

    if not content.startswith(SIGNATURE) or len(content) < 24:
        return None
    size = struct.unpack(">II", content[16:24])
    if not 0 < size[0] * size[1] <= MOST_PIXELS:
        return None
    try:
        image = Image.open(io.BytesIO(content), formats=["PNG"])
        image.load()
    except (OSError, ValueError, SyntaxError):  # raised by PIL for a corrupt PNG
        return None
    if len(content) > heavy:
        lighter = encode(image.convert("RGB"), "JPEG")
        content = lighter if len(lighter) < len(content) / 2 else content
    return data_uri(content), size


def read(path: Path) -> Embedded | None:
    try:
        return embedded(read_file(path.parent, path.name))
    except OSError:
        return None
