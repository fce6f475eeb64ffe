"""What people see: nothing from a file name reaches a terminal as a command, and our colour does."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from sslcli import console


def test_times_and_counts():
    assert [console.human_time(s) for s in (5, 75, 4000, 90_000)] == ["5s", "1m15s", "1h06m", "1d01h"]
    assert [console.human_count(n) for n in (999, 12_345, 1_234_567)] == ["999", "12.3k", "1.23M"]


def test_control_characters_are_shown_not_obeyed(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console.rows([("data", "a\x1b[31mred\x07")])
    shown = capsys.readouterr().err
    assert "\\x1b[31mred\\x07" in shown
    assert shown.startswith("\x1b[36mdata\x1b[0m")
    monkeypatch.setenv("NO_COLOR", "1")
    console.warn("plain")
    assert capsys.readouterr().err == "warning: plain\n"


def test_a_table_lines_up():
    lines = console.table(["run", "step"], [["a", "1,000"], ["long", "7"]], numbers=[1])
    assert lines == ["run    step", "a     1,000", "long      7"]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, 120])
def test_the_live_display_fits_the_terminal(tmp_path, columns):
    """On a real pseudo-terminal: a bar with numbers, colour, and no line longer than the screen."""
    leader, follower = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    words = [
        "pretrain",
        "experiment=smoke",
        "train.steps=60",
        "device.threads=1",
        "backbone.width=8",
        "logger.log_every=5",
    ]
    child = subprocess.Popen(
        [sys.executable, "-m", "sslcli", *words], stderr=follower, stdout=subprocess.DEVNULL, cwd=tmp_path, env=env
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    assert child.wait() == 0
    text = seen.decode()
    assert "\\x1b" not in text  # our own colour is not escaped
    assert "\x1b[36mwhat" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    live = [line for line in re.split(r"[\r\n]+", plain) if "━" in line]
    assert live
    assert max(map(len, live)) <= columns
    assert any("loss" in line for line in live)
    assert not any("…" in line for line in live)
