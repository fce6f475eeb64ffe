"""The help of every command, and shell completion."""

from __future__ import annotations

import re

import pytest

from sslcli import __version__
from sslcli.cli.command_table import COMMANDS
from sslcli.config import registry


def test_help_and_version(cli):
    assert cli("--help").code == 0
    assert cli("--version").out == f"sslcli {__version__}\n"
    for name in COMMANDS:
        shown = cli(name, "--help")
        assert shown.code == 0
        assert f"Usage: sslcli {name}" in shown.out
        assert shown.err == ""


@pytest.mark.parametrize("name", sorted(set(registry.choices("evaluator")) - {"online"}))
def test_evaluator_help_documents_keys(cli, name):
    shown = cli("eval", name, "--help")
    assert shown.code == 0
    about = registry.describe(registry.choices("evaluator")[name], "evaluator")
    assert about["summary"] in " ".join(shown.out.split())
    terms = [line[2:] for line in shown.out.splitlines() if re.match(r"  \S", line)]
    for key, value in about.items():
        if key in ("_target_", *registry.FACT_KEYS[""], *registry.FACT_KEYS["evaluator"]):
            continue
        key = key if str(value) in ("${labels}", "${seeds}") else f"evaluator.{key}"
        (line,) = [line for line in terms if line.startswith(f"{key}=")]
        assert len(line.split()) > 2, line  # a default and a meaning


def test_evaluator_help_unknown_name(cli):
    result = cli("eval", "prob", "--help")
    assert result.code == 2
    assert "did you mean `probe`" in result.err


def test_help_before_command(cli):
    assert cli("help", "eval", "knn").out == cli("eval", "knn", "--help").out


def test_completion(cli):
    from sslcli.cli.commands.completion import completions

    assert completions("sslcli pre") == ["pretrain"]
    assert completions("sslcli eval pr") == ["probe"]
    assert completions("sslcli pretrain method=sims") == ["method=simsiam"]
    assert completions("sslcli pretrain train.ep") == ["train.epochs="]
    assert completions("sslcli pretrain method=mae method.mask") == ["method.mask_ratio="]
    assert completions("sslcli list met") == ["methods"]
    assert completions("sslcli pipeline res") == ["resume="]
    assert completions("sslcli eval knn res") == []
    assert completions("sslcli pretrain -m hydra/l") == ["hydra/launcher="]
    assert completions("sslcli pretrain -m hydra/launcher=j") == ["hydra/launcher=joblib"]
    for shell in ("bash", "zsh", "fish"):
        assert "sslcli completion query" in cli("completion", shell).out
