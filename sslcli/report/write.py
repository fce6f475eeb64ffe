"""Write the report of a run or of a folder of runs."""

from __future__ import annotations

from pathlib import Path

from sslcli.errors import RequestError
from sslcli.report.run_page import NAME, write_run
from sslcli.report.sweep_page import render_sweep
from sslcli.runs.files import replace_file


def write_report(path: Path, out: Path | None = None) -> Path:
    """Writes the report of a run folder, or of a folder of runs, and returns the file. RequestError, StorageError."""
    if (path / "status.json").is_file():
        return write_run(path, out)
    if not any(path.glob("*/status.json")) and not (path / "jobs").is_dir():
        raise RequestError(f"{path} is neither a run nor a folder of runs", "sslcli runs lists the runs")
    out = out or path / NAME
    replace_file(out.parent, out.name, render_sweep(path, out))
    return out
