"""The help of every command, and shell completion."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sslcli import __version__
from sslcli.cli import commands
from sslcli.cli.command_table import COMMANDS, ENTRIES
from sslcli.cli.key_docs import command_keys, shared_keys
from sslcli.config import registry


def test_help_and_version(cli):
    assert cli("--help").code == 0
    assert cli("--version").out == f"sslcli {__version__}\n"
    for name in COMMANDS:
        shown = cli(name, "--help")
        assert shown.code == 0
        assert f"Usage: sslcli {name}" in shown.out
        assert shown.err == ""


def test_commands_have_one_entry():
    assert [entry.name for entry in ENTRIES] == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda c: c.name)
def test_table_entry_is_complete(command):
    """An entry names a module, and only groups and keys that exist."""
    assert (Path(commands.__file__).parent / f"{command.name}.py").is_file()
    assert command.hydra == (registry.config_dir() / f"{command.name}.yaml").is_file()
    assert set(command.groups) <= set(registry.GROUPS)
    assert command.summary.endswith(".")
    assert len(command.summary) <= 72
    names = [k.name for k in (*command_keys(command), *(k for keys in shared_keys(command).values() for k in keys))]
    assert all(name in names or name in ("train", "device") for name in command.shared)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("argv", [[], *([name] for name in COMMANDS), ["eval", "labels"]], ids=" ".join)
def test_help_fits_width(cli, monkeypatch, argv, width):
    monkeypatch.setenv("COLUMNS", str(width))
    text = cli(*argv, "--help").out
    for line in text.splitlines():
        assert len(line) <= width or line.startswith("  sslcli "), line  # examples are to be copied
    if argv != ["doctor"]:
        assert "sslcli " in text.partition("Examples\n")[2] or argv == ["completion"]


def test_eval_help_has_no_training_keys(cli):
    text = cli("eval", "--help").out
    assert re.findall(r"\btrain\.(\w+)=", text) == ["devices"]
    assert "method " not in text.partition("Groups")[2].partition("Keys of")[0]
    for name, path in registry.evaluators().items():
        assert f"  {name} " in text, path


@pytest.mark.parametrize("name", sorted(registry.evaluators()))
def test_evaluator_help_documents_keys(cli, name):
    shown = cli("eval", name, "--help")
    assert shown.code == 0
    about = registry.describe(registry.choices("evaluator")[name], "evaluator")
    assert about["summary"] in " ".join(shown.out.split())
    assert "=null" not in shown.out.partition("Examples")[2].partition("\n\n")[0]
    terms = [line[2:] for line in shown.out.splitlines() if re.match(r"  \S", line)]
    for key, value in about.items():
        if key in ("_target_", *registry.FACT_KEYS[""], *registry.FACT_KEYS["evaluator"]):
            continue
        key = key if str(value).startswith("${") else f"evaluator.{key}"  # of the whole command
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

    assert completions("sslcli pret") == ["pretrain"]
    assert completions("sslcli eval pr") == ["probe"]
    assert completions("sslcli pretrain method=sims") == ["method=simsiam"]
    assert completions("sslcli pretrain train.ep") == ["train.epochs="]
    assert completions("sslcli pretrain method=mae method.mask") == ["method.mask_ratio="]
    assert completions("sslcli list met") == ["methods"]
    assert completions("sslcli pipeline res") == ["resume="]
    assert completions("sslcli eval knn res") == []
    assert completions("sslcli pretrain -m hydra/l") == ["hydra/launcher="]
    assert completions("sslcli pretrain -m hydra/launcher=j") == ["hydra/launcher=joblib"]
    assert completions("sslcli eval knn evaluator.temp") == ["evaluator.temperature="]
    assert completions("sslcli runs rep") == ["report"]
    assert completions("sslcli runs compare a b c") == ["cka="]
    assert completions("sslcli select by=learn") == ["by=learnability"]
    assert completions("sslcli export latest checkpoint=b") == ["checkpoint=best"]
    assert completions("sslcli data pack form") == ["format="]
    assert completions("sslcli data pack format=r") == ["format=raw"]
    assert completions("sslcli data inspect dataset=dig") == ["dataset=digits"]
    assert completions("sslcli completion f") == ["fish"]
    assert completions("sslcli nope x") == []
    for shell in ("bash", "zsh", "fish"):
        assert "sslcli completion query" in cli("completion", shell).out
