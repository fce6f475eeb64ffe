"""sslcli runs report [RUN | SWEEP FOLDER] [out=FILE]: one page of what a run, or a sweep, came to."""

from __future__ import annotations

from pathlib import Path

from sslcli import console
from sslcli.errors import RequestError, nearest, target


def main(words: list[str], overrides: list[str]) -> int:
    if len(words) > 1:
        raise RequestError(
            f"runs report of one run, or of one folder of runs, not of {len(words)}", "sslcli runs report latest"
        )
    out = given_target(overrides)
    path = subject(words[0] if words else "latest")

    from sslcli.report.write import write_report

    written = write_report(path, out)
    size = written.stat().st_size / 1e6
    console.say(f"{size:.1f} MB, opens in any browser")
    if console.flag(console.JSON):
        console.out_json({"report": str(written)})
    else:
        console.out(written)
    return 0


def subject(spec: str) -> Path:
    """A run as everywhere, or a folder with runs in it: a path, or the name of a sweep."""
    from sslcli.runs.find import find
    from sslcli.runtime.folders import runs_root

    for folder in (Path(spec).expanduser(), runs_root() / spec, runs_root() / "sweep" / spec):
        several = any(folder.glob("*/status.json")) or any(folder.glob("jobs/*.json"))
        if several and not (folder / "status.json").exists():
            return folder
    return find(spec)


def given_target(overrides: list[str]) -> Path | None:
    out = None
    for override in overrides:
        key, _, value = override.partition("=")
        if key != "out":
            close = "out" if nearest(key, ["out"]) else None
            raise RequestError(f"runs report takes no {override}", "did you mean out=FILE?" if close else "out=FILE")
        out = target(value, "out=report.html", (".html", ".htm"))
    return out
