"""Sheets of samples with sound or motion, for reports: a ZIP file with `sheet.json`, and of each sample what plays it (`1-2.wav`,
`1-2.gif`) and, unless that is an animated picture, a drawing (`1-2.png`)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sslcli.runs import Record
from sslcli.runs.files import replacing
from sslcli.views.preview.base import Media, Preview, align, to_png
from sslcli.views.preview.prose import Group, Mark

TABLE = "sheet.json"
ENDINGS = {"audio/wav": "wav", "image/gif": "gif"}
MOST_BYTES = 8_000_000  # of what plays in a sheet
WIDEST, TALLEST = 480, 96  # pixels of a drawing


@dataclass
class ClipSheet:
    """The samples of a drawing, some of which have sound or motion. `strips`: a report shows strips of frames as well as animated
    pictures."""

    groups: Sequence[Group] = field(repr=False)
    marks: Mapping[str, Mark]
    caption: str
    strips: bool = False

    def save(self, path: Path, most: int = MOST_BYTES) -> None:
        """Writes the samples of each group. Those whose media would make the file larger than `most` bytes have a drawing alone,
        and `left_out` of the table counts them. StorageError."""
        files: dict[str, bytes] = {}
        rows: list[Record] = []
        used = left_out = 0
        for i, group in enumerate(self.groups, 1):
            samples = align([entry.sample for entry in group.entries])
            cells = []
            for j, (entry, sample) in enumerate(zip(group.entries, samples, strict=True), 1):
                media = sample.media()
                if media is not None and used + len(media.content) > most:
                    media, left_out = None, left_out + 1
                if media is not None:
                    used += len(media.content)
                    files[f"{i}-{j}.{ENDINGS[media.kind]}"] = media.content
                if media is None or not media.is_picture:
                    files[f"{i}-{j}.png"] = _drawing(sample)
                cells.append({"label": entry.label, "text": sample.text(), "mark": entry.mark})
            rows.append({"title": group.title, "about": group.about, "cells": cells})
        meanings = {name: mark.meaning for name, mark in self.marks.items()}
        table = {"rows": rows, "marks": meanings, "left_out": left_out, "strips": self.strips}
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, content in {TABLE: json.dumps(table, indent=1).encode(), **files}.items():
                archive.writestr(zipfile.ZipInfo(name), content)  # of 1980: equal bytes for equal samples


def clip_sheet(
    groups: Sequence[Group], marks: Mapping[str, Mark], caption: str, strips: bool = False
) -> ClipSheet | None:
    """None where no sample has sound or motion."""
    playable = any(entry.sample.media() is not None for group in groups for entry in group.entries)
    return ClipSheet(groups, marks, f"{caption}; with the clips", strips) if playable else None


def media_of(files: Mapping[str, bytes], name: str) -> Media | None:
    """What plays the sample `name`, such as `1-2`, among the files of a sheet."""
    return next((Media(k, files[f"{name}.{end}"]) for k, end in ENDINGS.items() if f"{name}.{end}" in files), None)


def _drawing(sample: Preview) -> bytes:
    width, height = sample.size
    scale = min(1.0, WIDEST / width, TALLEST / height)
    return to_png(sample.image(max(1, round(scale * width)), max(1, round(scale * height))))
