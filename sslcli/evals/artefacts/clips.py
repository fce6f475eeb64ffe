"""Samples with sound or motion, which reports play in place of their drawings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcli.views.preview.clip_sheet import has_clips, write_clip_sheet
from sslcli.views.preview.prose import Group, Mark


@dataclass
class ClipSheet:
    """The samples of a drawing, to a ZIP file."""

    groups: Sequence[Group] = field(repr=False)
    marks: Mapping[str, Mark]
    caption: str
    strips: bool = False

    def save(self, path: Path) -> None:
        write_clip_sheet(path, self.groups, self.marks, strips=self.strips)


def clip_sheet(
    groups: Sequence[Group], marks: Mapping[str, Mark], caption: str, strips: bool = False
) -> ClipSheet | None:
    """None where no sample has sound or motion."""
    samples = (entry.sample for group in groups for entry in group.entries)
    return ClipSheet(groups, marks, f"{caption}; with the clips", strips) if has_clips(samples) else None


def clips_of(artefacts: Mapping[str, Any]) -> dict[str, ClipSheet]:
    """The clips of drawings of samples: `samples.zip` of `samples.png`."""
    found = {file: drawing.clips() for file, drawing in artefacts.items() if hasattr(drawing, "clips")}
    return {f"{file.removesuffix('.png')}.zip": clips for file, clips in found.items() if clips is not None}
