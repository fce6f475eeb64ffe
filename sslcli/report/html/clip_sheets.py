"""Sheets of samples that play, which `views/preview/clip_sheet.py` writes. A file may come from an untrusted source: what is read
is bounded, no type is assumed, texts are escaped, and of the media those with a valid header are shown."""

from __future__ import annotations

import io
import struct
import wave
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcli.report.html import images
from sslcli.report.html.elements import capitalize
from sslcli.report.html.markup import Html, el
from sslcli.runs import Record
from sslcli.runs.files import parse, read_file
from sslcli.views.preview.base import Media
from sslcli.views.preview.clip_sheet import TABLE, media_of

MOST_BYTES = 24_000_000  # of the sheets of a page
LARGEST = 32_000_000  # bytes of a file
MOST_ROWS, MOST_CELLS = 100, 40
MOST_FRAMES, MOST_PIXELS = 1_000, 1_000_000  # of an animated picture, and of each of its frames
MARKS = ("right", "wrong")  # classes of the stylesheet


class ClipBudget:
    """How many bytes of clips a page has room for."""

    def __init__(self, most: int = MOST_BYTES):
        self.most = self.left = most

    def take(self, size: int) -> bool:
        """Whether there was room for so many bytes; they are then taken."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits

    def note(self) -> Html:
        text = f"The clips are left out: those of a page have {self.most / 1e6:,.0f} MB at most."
        return el("p", text, class_="note")


@dataclass(frozen=True)
class ClipSheet:
    """`html`: the samples, each with what plays it. `beside`: they stand beside the drawing of the sheet, not in its place."""

    html: Html
    beside: bool


def read_clip_sheet(path: Path, caption: str) -> ClipSheet | None:
    """The samples of a sheet; None for a file that is none."""
    files = _read(path)
    table = parse(files.get(TABLE, b""))
    rows, meanings = table.get("rows"), table.get("marks")
    if not isinstance(rows, list):
        return None
    meanings = meanings if isinstance(meanings, dict) else {}
    shown = [_row(row, i, meanings, files) for i, row in enumerate(rows[:MOST_ROWS], 1) if isinstance(row, dict)]
    left_out = table.get("left_out")
    more = (
        f" Of {left_out:,} samples only the drawing is shown: the clips of a sheet are limited."
        if left_out and isinstance(left_out, int)
        else ""
    )
    title = capitalize(caption)
    note = el("p", f"{title}.{more}", class_="note")
    html = el("div", *shown, note, class_="clips", role="group", aria_label=title)
    return ClipSheet(html, bool(table.get("strips")) and any(name.endswith(".gif") for name in files))


def _row(row: Record, i: int, meanings: Record, files: dict[str, bytes]) -> Html:
    cells = row.get("cells")
    cells = cells[:MOST_CELLS] if isinstance(cells, list) else []
    title, about = str(row.get("title", ""))[:200], str(row.get("about", ""))[:200]
    return el(
        "div",
        el("p", el("strong", title), f" {about}" if about else ""),
        el("div", *(_cell(cell, f"{i}-{j}", meanings, files) for j, cell in enumerate(cells, 1)), class_="clip-row"),
    )


def _cell(cell: Any, name: str, meanings: Record, files: dict[str, bytes]) -> Html | None:
    if not isinstance(cell, dict):
        return None
    text, mark = str(cell.get("text", ""))[:200], cell.get("mark")
    media, drawing = media_of(files, name), images.embedded(files.get(f"{name}.png", b""))
    if media is not None and not _is_valid(media):
        media = None
    known = mark if mark in MARKS else None
    words = [str(cell.get("label", ""))[:100], str(meanings.get(known, ""))[:100] if known else ""]
    caption = ", ".join(word for word in words if word)
    return el(
        "figure",
        None if drawing is None else el("img", src=drawing[0], alt=text, width=drawing[1][0], height=drawing[1][1]),
        None if media is None else Html(media.html(text)),
        el("p", "not readable", class_="preview") if media is None and drawing is None else None,
        el("figcaption", caption) if caption else None,
        class_=known,
    )


def _read(path: Path) -> dict[str, bytes]:
    """The files of an archive without compression, {} where it is damaged or too large."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_file(path.parent, path.name, LARGEST))) as archive:
            stored = [info for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED]
            if sum(info.file_size for info in stored) > LARGEST:  # entries may overlap
                return {}
            return {info.filename: archive.read(info) for info in stored}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return {}


def _is_valid(media: Media) -> bool:
    from PIL import Image

    try:
        if media.is_picture:
            width, height = struct.unpack("<HH", media.content[6:10])
            if not 0 < width * height <= MOST_PIXELS:
                return False
            with Image.open(io.BytesIO(media.content), formats=["GIF"]) as picture:
                return getattr(picture, "n_frames", 1) <= MOST_FRAMES
        with wave.open(io.BytesIO(media.content)) as sound:
            return sound.getnframes() > 0
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, wave.Error):
        return False
