"""Parsing of a command line."""

from __future__ import annotations

import pytest

from sslcli.cli.arguments import parse, quote_path
from sslcli.cli.command_table import COMMANDS
from sslcli.errors import RequestError
from tests.conftest import SMOKE


def test_parse_any_order():
    request = parse(["seed=1,2", "-m", "train.epochs=1", "--cfg", "job", "probe"], COMMANDS["eval"])
    assert request.multirun
    assert request.overrides == ["seed=1,2", "train.epochs=1"]
    assert request.flags == ["-m", "--cfg", "job"]
    assert request.positional == ["probe"]
    with pytest.raises(RequestError, match="requires a value"):
        parse(["--cfg"], COMMANDS["eval"])


def test_quote_path():
    assert quote_path("labels=a b, 5%.csv", multirun=False) == "labels='a b, 5%.csv'"
    assert quote_path("hydra.sweep.dir=runs/a=1, b", multirun=True) == "hydra.sweep.dir='runs/a=1, b'"
    assert quote_path("run=null", multirun=False) == "run='null'"
    assert quote_path("init=True", multirun=False) == "init='True'"
    for plain in ("init=null", "labels=1%", "labels=[1,2]", "run=a", "hydra.run.dir=runs/${now:%H}"):
        assert quote_path(plain, multirun=False) == plain
    assert quote_path("labels=a.csv,b.csv", multirun=True) == "labels=a.csv,b.csv"


def test_quote_text():
    text = "[MASK]'s capital, \\ is {x}: [MASK]."
    assert quote_path(f"text={text}", multirun=True) == "text='[MASK]\\'s capital, \\ is {x}: [MASK].'"
    assert quote_path('text=["[MASK] a.","b [MASK]"]', multirun=False) == 'text=["[MASK] a.","b [MASK]"]'
    assert quote_path("text=null", multirun=False) == "text=null"


def test_windows_line_ends(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCLI_RUNS", "there\r")
    assert cli("pretrain", *SMOKE, "seed=1\r", "\r").code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
