"""What `sslcli pick` writes: a CSV file to fill in, or tasks for Label Studio."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from sslcli.data.files.csv_text import written
from sslcli.data.loading.evaluation import iterate_batches
from sslcli.pick.picks import COLUMNS, Picked
from sslcli.runs import Record
from sslcli.runs.files import replace_file
from sslcli.views import detailed, whole_previews
from sslcli.views.preview.base import Preview, to_png


def columns(picked: Picked) -> list[str]:
    return [picked.key, *COLUMNS[:-1]]


def rows(picked: Picked) -> list[list[str | int]]:
    """The rows of the CSV file; the label is empty, to be filled in: `labels=` reads the file."""
    return [[s.name, s.rank, s.stratum, s.reason, ""] for s in picked.samples]


def write_csv(picked: Picked, out: Path) -> None:
    replace_file(out.parent, out.name, written(columns(picked), rows(picked)))


def write_label_studio(picked: Picked, out: Path) -> None:
    """A JSON list of tasks for Label Studio. Their data are `file` (or `id`), `rank`, `stratum`, `reason`, and the sample itself as
    `image`, a drawing as a data URI, or as `text`, so that no file has to be served."""
    tasks = [_task(picked, i, preview) for i, preview in enumerate(read_previews(picked))]
    replace_file(out.parent, out.name, json.dumps(tasks, indent=1, ensure_ascii=False) + "\n")


def _task(picked: Picked, at: int, preview: Preview) -> Record:
    sample = picked.samples[at]
    about = {"file" if picked.key == "path" else "sample": sample.name, "rank": sample.rank}
    about |= {"stratum": sample.stratum, "reason": sample.reason}
    if not preview.graphic:
        return {"data": {"text": preview.text(), **about}}
    png = to_png(preview.image(*(max(side, 2 * cell) for side, cell in zip(preview.size, preview.cell, strict=True))))
    return {"data": {"image": f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}", **about}}


def read_previews(picked: Picked) -> Sequence[Preview]:
    """The picked samples as people see them, in order."""
    inputs = picked.inputs
    wanted = torch.tensor([s.index for s in picked.samples], dtype=torch.int64)
    shown: dict[int, Preview] = {}
    for ids, x in iterate_batches(inputs.source, detailed(inputs.source, inputs.dataset), batch_size=64, ids=wanted):
        shown |= zip(ids.tolist(), whole_previews(inputs.dataset, x, inputs.source, ids), strict=True)
    return [shown[s.index] for s in picked.samples]
