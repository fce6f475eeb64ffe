"""Documents run: commands compose, the page on methods trains, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks import recipe_headers
from sslcli.cli.arguments import parse
from sslcli.cli.command_table import COMMANDS
from sslcli.config import compose, registry

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in fenced(page.read_text(encoding="utf-8"), "sh"):
            for line in block.splitlines():
                line = re.sub(r"^\w+=\$\((.*)\)$", r"\1", line.split("  #")[0].strip())
                if line.startswith("sslcli "):
                    found.append(line)
    return sorted(set(found))


@pytest.mark.parametrize("line", commands())
def test_every_command_in_a_document_is_one(line):
    word, *rest = shlex.split(line)[1:]
    request = parse(rest, COMMANDS[word])
    if not COMMANDS[word].hydra:
        return
    if word == "eval":
        request.overrides.insert(0, f"evaluator={request.positional[0]}")
    choices = [o.split(",")[0] + ("]" if "[" in o and "," in o else "") for o in request.overrides]
    if "--config-dir" not in request.flags:
        compose.compose(word, choices)


def test_the_page_on_methods_trains(cli):
    from tests.conftest import SMOKE

    text = (ROOT / "docs" / "guides" / "add_a_method.md").read_text(encoding="utf-8")
    (code,), (yaml,) = fenced(text, "python"), fenced(text, "yaml")
    Path("mine/method").mkdir(parents=True)
    Path("mine/centred.py").write_text(code)
    Path("mine/method/centred.yaml").write_text(yaml)
    assert cli("pretrain", "--config-dir", "mine", "method=centred", *SMOKE).code == 0


def test_the_recipe_for_few_labels_runs(cli):
    from PIL import Image

    from tests.conftest import SMOKE

    text = (ROOT / "docs" / "guides" / "data.md").read_text(encoding="utf-8")
    (example,), (code,) = fenced(text, "csv"), fenced(text, "python")
    trained, measured = (
        line
        for block in fenced(text, "sh")
        for line in block.splitlines()
        if "photos.csv" in line or line == "sslcli eval probe"
    )
    Path("photos/sub").mkdir(parents=True)
    for i in range(40):
        Image.new("RGB", (16, 16), (200 * (i % 2), 5 * i, 90)).save(f"photos/{'sub/' * (i > 20)}{i:04}.jpg")
    for given in (example, code):
        if given is example:
            Path("photos.csv").write_text(given)
        else:
            Path("labels.csv").write_text("name,label\n" + "".join(f"{i:04}.jpg,{'cd'[i % 2]}\n" for i in range(24)))
            exec(given, {})  # writes photos.csv
        report = json.loads(cli("data", "inspect", "--json", *shlex.split(trained)[3:]).out)
        found = {name: (s["samples"], s["labelled"]) for name, s in report["splits"].items()}
        assert found == (
            {"train": (2, 1), "test": (1, 1), "unlabelled": (1, 0)}
            if given is example
            else {"train": (32, 16), "test": (8, 8)}
        )
    small = [o for o in SMOKE if not o.startswith("experiment=")]
    words = [
        "backbone=convnet",
        "train.epochs=null",
        "train.steps=2",
        "train.batch_size=8",
        "train.eval_every=0",
        *small,
    ]
    assert cli(*shlex.split(trained)[1:], *words).code == 0
    assert "probe.top1" in cli(*shlex.split(measured)[1:], "evaluator.baselines=false").out


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_readme_names_every_method():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in registry.choices("method"):
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("name", sorted(registry.choices("method")))
def test_a_recipe_says_what_was_seen_with_it(name):
    """The lines that `benchmarks/recipe_headers.py` writes, and at least one of them."""
    known = json.loads((ROOT / "docs" / "results" / "methods.json").read_text())
    text = (ROOT / "configs" / "method" / f"{name}.yaml").read_text()
    assert recipe_headers.MARK in text
    assert text == recipe_headers.rewritten(text, recipe_headers.seen(known, name))


def test_the_page_of_oracles_names_every_method_and_tests_that_are_there():
    text = (ROOT / "docs" / "explanation" / "loss_verification.md").read_text(encoding="utf-8")
    tests = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests" / "methods").glob("test_*.py"))
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", text, re.M))
    assert set(rows) == set(registry.choices("method"))
    for name, row in rows.items():
        named = re.findall(r"`(test_\w+)`", row)
        assert named, name
        for test in named:
            assert f"def {test}(" in tests, test


def test_no_path_of_somebodys_machine():
    for path in [*PAGES, *ROOT.glob("sslcli/**/*.py"), *ROOT.glob("configs/**/*.yaml"), *ROOT.glob("scripts/*")]:
        if path.is_file():
            assert not re.search(r"(?<![\w.$~])/(?:home|root|Users)/\w", path.read_text(encoding="utf-8")), path
