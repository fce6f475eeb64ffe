"""The generated reference has every command, group, choice and key, each key with a meaning; the others name what a run has."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from sslcli import errors
from sslcli.cli.command_table import COMMANDS
from sslcli.config import registry
from tests.document_blocks import DOCS


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:  # the class of a key is made while the module is executed
        patch.setitem(__import__("sys").modules, "generate", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def reference(generate) -> dict[str, str]:
    return generate.pages()


def test_reference_commands(reference):
    headings = re.findall(r"^## (\w+)$", reference["commands.md"], re.MULTILINE)
    assert sorted(headings) == sorted(COMMANDS)


@pytest.mark.parametrize("group", registry.GROUPS)
def test_reference_group(generate, reference, group):
    page = reference[f"configuration/{group}.md"]
    assert group in reference["configuration/index.md"]
    choices = registry.choices(group)
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == sorted(choices)
    for name, path in choices.items():
        for key in generate.choice_keys(group, path)[0]:
            assert f"`{key.name}`" in page, key
            assert key.meaning or generate.glossary(key.name), (
                f"{name}: {key.name} has no comment, and none in glossary.yaml"
            )


def test_reference_top_level_keys(generate, reference):
    for command in ("base", *generate.COMMANDS_WITH_KEYS):
        for key in generate.keys((registry.config_dir() / f"{command}.yaml").read_text(encoding="utf-8")):
            assert f"`{key.name}`" in reference["configuration/top_level.md"]
            assert key.meaning or generate.glossary(key.name), key


def test_reference_exit_codes(reference):
    codes = {c.code for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.SslError)}
    assert {int(c) for c in re.findall(r"^\| (\d+) \|", reference["exit_codes.md"], re.MULTILINE)} == codes | {0}


def test_generated_keys(generate):
    text = "# head\na: 1 # the first\nb: {c: [1, 2]}\n# above\nd:\n  e: null\n  f: ${x} # of f\n"
    found = [(k.name, k.default, k.meaning) for k in generate.keys(text)]
    assert found == [("a", "1", "the first"), ("b", "{c: [1, 2]}", ""), ("d.e", "null", ""), ("d.f", "${x}", "of f")]


def test_reference_metrics():
    """The metrics of the page of results are all defined."""
    table = (
        (DOCS / "results" / "evaluations" / "digits.md")
        .read_text(encoding="utf-8")
        .partition("## Metrics and baselines")[2]
    )
    metrics = set(re.findall(r"^\| [a-z]+[^|]* \| ([a-z][\w.@]*) \|", table, re.MULTILINE)) - {"metric", "s"}
    page = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    assert len(metrics) > 40
    for metric in metrics:
        name = re.sub(r"(?<=fgsm|.pgd)\d", "E", metric)
        name = re.sub(r"@\d+", "@k", name).rpartition(".")[2]
        assert f"`{name}`" in page or f".{name}`" in page, metric


def test_reference_run_folder(cli):
    from tests.conftest import SMOKE

    page = (DOCS / "reference" / "run_folder.md").read_text(encoding="utf-8")
    run = Path(cli("pretrain", *SMOKE).last)
    assert cli("eval", "knn", "evaluator.baselines=false").code == 0
    assert cli("data", "preview", f"out={run}/views.png").code == 0
    names = {p.name + "/" * p.is_dir() for p in run.iterdir()} - {"views.png", "run.lock"}
    missing = {name for name in names if f"`{name}" not in page}
    assert not missing
