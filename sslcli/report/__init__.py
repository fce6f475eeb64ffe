"""`report.html`: what a run, or a sweep, came to, as one file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

from sslcli.errors import RequestError

NAME = "report.html"


def write(path: Path, out: Path | None = None) -> Path:
    """Writes the report of a run folder, or of a folder of runs; returns the file. RequestError, StorageError."""
    from sslcli.runs.files import replace_file

    if (path / "status.json").is_file():
        text = of_run(path)
    elif any(path.glob("*/status.json")) or (path / "jobs").is_dir():
        from sslcli.report.sweep import of_sweep

        text = of_sweep(path, out or path / NAME)
    else:
        raise RequestError(f"{path} is neither a run nor a folder of runs", "sslcli runs lists the runs")
    out = out or path / NAME
    replace_file(out.parent, out.name, text)
    return out


def of_run(path: Path) -> str:
    """The page of a run. What needs the encoder is left out where there is none."""
    from sslcli.report import sections
    from sslcli.report.gather import gather
    from sslcli.report.page import page

    run, name = gather(path), typed(path)
    atlas = None
    if run.trained and run.config:
        from sslcli.report.atlas import compute

        atlas = compute(run)
    found = [
        sections.beside(run),
        sections.protocol(run, atlas),
        sections.training(run),
        sections.health(run),
        sections.views(run, atlas),
        sections.the_map(atlas),
        sections.own_pictures(run),
        sections.measured(run),
        sections.missing(run, atlas, name),
        sections.made_by(run, name),
        sections.environment(run),
    ]
    return page(f"{sections.heading(run)[0]}: {path.name}", found, sections.top(run, name))


def typed(path: Path) -> str:
    """What to type for a folder: its name below the runs folder, else its path."""
    from sslcli.runtime.folders import runs_root

    whole, root = path.absolute(), runs_root().absolute()
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else str(path)
