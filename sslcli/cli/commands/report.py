"""sslcli runs report [RUN|FOLDER] [out=FILE.html]: write the HTML report of a run, or of a folder of runs such as a sweep."""

from __future__ import annotations

from pathlib import Path

from sslcli import console
from sslcli.cli.arguments import read_options
from sslcli.cli.command_table import COMMANDS
from sslcli.errors import target


def main(arguments: list[str], overrides: list[str]) -> int:
    options = read_options(overrides, COMMANDS["runs"].options_of("report"), "runs report")
    out = target(options["out"], "out=report.html", (".html", ".htm")) if "out" in options else None
    path = find_folder(arguments[0] if arguments else "latest")

    from sslcli.report.write import write_report

    report = write_report(path, out)
    console.say(f"{report.stat().st_size / 1e6:.1f} MB, opens in any browser")
    if console.flag(console.JSON):
        console.out_json({"report": str(report)})
    else:
        console.out(report)
    return 0


def find_folder(name: str) -> Path:
    """A folder that contains runs, by its path or the name of a sweep; otherwise the folder of one run. RequestError."""
    from sslcli.runs.find import find
    from sslcli.runtime.folders import runs_root

    for folder in (Path(name).expanduser(), runs_root() / name, runs_root() / "sweep" / name):
        has_runs = any(folder.glob("*/status.json")) or any(folder.glob("jobs/*.json"))
        if has_runs and not (folder / "status.json").exists():
            return folder
    return find(name)
