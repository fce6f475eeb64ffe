"""The page of a run."""

from __future__ import annotations

from pathlib import Path

from sslcli.report.html.clip_sheets import ClipBudget
from sslcli.report.html.page import page
from sslcli.report.run_commands import commands_section, missing_section
from sslcli.report.run_contents import read_run
from sslcli.report.run_protocol import environment_section, protocol_section
from sslcli.report.run_sections import (
    baseline_section,
    evaluation_sections,
    header,
    heading,
    health,
    map_section,
    method_images,
    summaries,
    training,
    views,
)
from sslcli.runs.files import replace_file
from sslcli.runs.find import short_name

NAME = "report.html"


def render_run(path: Path) -> str:
    """The page of a run. What needs the encoder is left out where there is none."""
    run, name = read_run(path), short_name(path)
    atlas = None
    if run.trained and run.config:
        from sslcli.report.model_figures import compute  # imports torch

        atlas = compute(run)
    budget = ClipBudget()  # of the page
    sections = [
        baseline_section(run),
        protocol_section(run, atlas),
        training(run),
        health(run),
        views(run, atlas),
        map_section(atlas),
        method_images(run, budget),
        evaluation_sections(run, budget),
        summaries(run),
        missing_section(run, atlas, name),
        commands_section(run, name),
        environment_section(run),
    ]
    return page(f"{heading(run)[0]}: {path.name}", sections, header(run, name))


def write_run(path: Path, out: Path | None = None) -> Path:
    """Writes the report of a run folder (default: report.html in it) and returns the file. StorageError."""
    out = out or path / NAME
    replace_file(out.parent, out.name, render_run(path))
    return out
