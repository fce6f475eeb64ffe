"""Sheets of samples with sound or motion, for reports: a ZIP file with `sheet.json`, and of each sample what plays it (`1-2.wav`,
`1-2.gif`) and, unless that is an animated picture, a drawing (`1-2.png`)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sslcli.runs import Record
from sslcli.runs.files import replacing
from sslcli.views.preview.base import Media, Preview, align, to_png
from sslcli.views.preview.prose import Group, Mark

TABLE = "sheet.json"
ENDINGS = {"audio/wav": "wav", "image/gif": "gif"}
MOST_BYTES = 8_000_000  # of what plays in a sheet
WIDEST, TALLEST = 480, 96  # pixels of a drawing


def has_clips(samples: Iterable[Preview]) -> bool:
    """Whether a sample has sound or motion."""
    return any(sample.media() is not None for sample in samples)


def write_clip_sheet(
    path: Path,
    groups: Sequence[Group],
    marks: Mapping[str, Mark],
    most: int = MOST_BYTES,
    strips: bool = False,
) -> None:
    """Writes the samples of each group. Those whose media would make the file larger than `most` bytes have a drawing alone, and
    `left_out` of the table counts them. `strips`: a report shows strips of frames as well as animated pictures. StorageError."""
    files: dict[str, bytes] = {}
    rows: list[Record] = []
    used = left_out = 0
    for i, group in enumerate(groups, 1):
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
    meanings = {name: mark.meaning for name, mark in marks.items()}
    table = json.dumps({"rows": rows, "marks": meanings, "left_out": left_out, "strips": strips}, indent=1)
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in {TABLE: table.encode(), **files}.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of 1980: equal bytes for equal samples


def media_of(files: Mapping[str, bytes], name: str) -> Media | None:
    """What plays the sample `name`, such as `1-2`, among the files of a sheet."""
    return next((Media(k, files[f"{name}.{end}"]) for k, end in ENDINGS.items() if f"{name}.{end}" in files), None)


def _drawing(sample: Preview) -> bytes:
    width, height = sample.size
    scale = min(1.0, WIDEST / width, TALLEST / height)
    return to_png(sample.image(max(1, round(scale * width)), max(1, round(scale * height))))
