"""sslcli runs report [RUN|FOLDER] [out=FILE.html]: write the HTML report of a run, or of a folder of runs such as a sweep."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path

from sslcli import console
from sslcli.cli.arguments import read_options
from sslcli.cli.command_table import COMMANDS
from sslcli.errors import RequestError, command, listing, target


def main(arguments: list[str], overrides: list[str]) -> int:
    options = read_options(overrides, COMMANDS["runs"].options_of("report"), "runs report")
    out = target(options["out"], "out=report.html", (".html", ".htm")) if "out" in options else None
    path = find_folder(arguments[0] if arguments else "latest")

    from sslcli.report.write import write_report

    report = write_report(path, out)
    console.say(f"{console.human_bytes(report.stat().st_size)}, opens in any browser")
    if console.flag(console.JSON):
        console.out_json({"report": str(report)})
    else:
        console.out(report)
    return 0


def find_folder(name: str) -> Path:
    """A folder that contains runs, by its path or by the beginning of the name of a sweep; otherwise the folder of one run.
    RequestError."""
    from sslcli.runs.find import find
    from sslcli.runtime.folders import runs_root

    places = (Path(name).expanduser(), runs_root() / name, runs_root() / "sweep" / name)
    for folder in places:
        if _has_runs(folder):
            return folder
    sweeps = _sweeps(places, name)
    if len(sweeps) == 1:
        return sweeps[0]
    if sweeps:
        raise RequestError(
            f"`{name}` fits {len(sweeps)} folders of runs: {listing(map(str, sweeps), 5)}",
            f"a report is of one of them: {command('runs', 'report', sweeps[-1])}",
        )
    return find(name)


def _has_runs(folder: Path) -> bool:
    """Whether a folder that is no run contains runs, or jobs of a sweep."""
    has_runs = any(folder.glob("*/status.json")) or any(folder.glob("jobs/*.json"))
    return has_runs and not (folder / "status.json").exists()


def _sweeps(places: Iterable[Path], name: str) -> list[Path]:
    """The folders of runs in or above `places`, such as jobs/ and multirun.yaml of a sweep, and the sweeps whose names begin with
    `name`, oldest first."""
    from sslcli.runtime.folders import runs_root

    for place in places:
        if place.exists() and not (place / "status.json").exists():
            if inside := sorted(folder for folder in place.glob("*/") if _has_runs(folder)):
                return inside
            if _has_runs(place.parent) and place.name in ("jobs", "multirun.yaml", "report.html"):
                return [place.parent]
    if not name or "/" in name or any(_runs(name)):
        return []
    named = (runs_root() / "sweep").glob(f"{glob.escape(name)}*/")
    return sorted(folder for folder in named if _has_runs(folder))


def _runs(name: str) -> Iterator[Path]:
    """Runs outside sweeps whose names begin with `name`, which it means first."""
    from sslcli.runtime.folders import runs_root

    return runs_root().glob(f"{glob.escape(name)}*/status.json")
