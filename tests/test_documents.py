"""Documents are tested: their blocks run, their commands compose, their links exist.

1. Every code block runs in a test, or the page states why not (`document_blocks.py` has the rules).
2. Every `sslcli` command of every page parses, and its keys and values compose.
3. The tutorials, and the guides on extensions, run from top to bottom.
4. README and CONTRIBUTING keep their limits and name what they must.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks import recipe_headers
from sslcli.cli.arguments import parse
from sslcli.cli.command_table import COMMANDS
from sslcli.config import compose, modalities, registry
from tests.document_blocks import DOCS, PAGES, ROOT, RUN, blocks, command_of, run_page

ELSEWHERE = {  # pages whose blocks other tests run
    "docs/guides/data.md": "test_list_file_recipe",
    "docs/guides/export.md": "tests/cli/test_export.py",
    "docs/guides/sweeps.md": "tests/cli/test_launchers.py",
    "docs/guides/slurm.md": "tests/cli/test_launchers.py",
}
NO_CODE = ("text", "{toctree}", "{include}", "{eval-rst}")  # output, layouts, and directives of the site
SCRIPTS = re.compile(
    r"(?:[A-Z]+=\S+ |[A-Z]+=\"[^\"]*\" )*(scripts/\w+(?:\.sh)?)(?: .*)?|make (\w+)|source .*|cd .*|tensorboard .*"
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --------------------------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_run_or_marked(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(blocks(page)), "a block that is not recognized"
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"\n\n    \S", prose), "an indented block: fence it"
    for block in blocks(page):
        if block.reason or block.language.split(" ")[0] in NO_CODE:
            continue
        if block.language == "sh":
            for line in block.lines:
                script = SCRIPTS.fullmatch(line)
                assert command_of(line)[1] or script, f"{line}: run it in a test, or mark the block"
                if script and script[1]:
                    assert (ROOT / script[1]).exists(), line
        else:
            assert page in RUN or name_of(page) in ELSEWHERE, f"{block.text}: run it in a test, or mark the block"


def test_block_tests_exist():
    for test in set(ELSEWHERE.values()):
        assert (ROOT / test).exists() or test in globals(), test


def commands() -> list[str]:
    """The `sslcli` commands of the pages that are not run, but those of blocks marked as not run."""
    lines = (
        line
        for p in PAGES
        if p not in RUN
        for b in blocks(p)
        if b.language == "sh" and not b.reason
        for line in b.lines
    )
    return sorted({shlex.join(words) for line in lines if (words := command_of(line)[1])})


@pytest.mark.parametrize("line", commands())
def test_command_composes(line):
    command, *rest = shlex.split(line)
    request = parse(rest, COMMANDS[command])
    if not COMMANDS[command].hydra:
        return
    if command == "eval":
        request.overrides.insert(0, f"evaluator={request.positional[0]}")
    choices = [o.split(",")[0] + ("]" if "[" in o and "," in o else "") for o in request.overrides]
    if "--config-dir" not in request.flags:
        compose.compose(command, choices)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_page_runs(cli, page):
    run_page(page, cli)


def test_list_file_recipe(cli):
    from PIL import Image

    from tests.conftest import SMOKE

    of = {
        language: [b for b in blocks(DOCS / "guides" / "data.md") if b.language == language]
        for language in ("text", "python")
    }
    example, code = of["text"][0].text, of["python"][0].text
    assert example.startswith("path,label,split")
    data = ["dataset=image_folder", "dataset.path=photos.csv"]
    Path("photos/sub").mkdir(parents=True)
    for i in range(40):
        Image.new("RGB", (16, 16), (200 * (i % 2), 5 * i, 90)).save(f"photos/{'sub/' * (i > 20)}{i:04}.jpg")
    for given in (example, code):
        if given is example:
            Path("photos.csv").write_text(given)
        else:
            Path("labels.csv").write_text("name,label\n" + "".join(f"{i:04}.jpg,{'cd'[i % 2]}\n" for i in range(24)))
            exec(given, {})  # writes photos.csv
        report = json.loads(cli("data", "inspect", "--json", *data).out)
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
    assert cli("pretrain", "method=simclr", *data, *words).code == 0
    assert "probe.top1" in cli("eval", "probe", "evaluator.baselines=false").out


# ---------------------------------------------------------------------------------------------------- README and friends


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target and "/generated/" not in f"/{target}":
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", sorted(DOCS.glob("[tgre]*/**/*.md")), ids=name_of)
def test_page_in_site(page):
    """Every page has a title and is in a table of contents."""
    if {"generated", "results"} & set(page.parts):
        return
    assert page.read_text(encoding="utf-8").startswith("# ")
    if page.name == "index.md":
        return
    contents = [
        p for p in (page.parent / "index.md", page.parent / "README.md", page.parent.parent / "index.md") if p.exists()
    ]
    entries = {
        line.strip() for p in contents for b in blocks(p) if b.language == "{toctree}" for line in b.text.splitlines()
    }
    assert page.stem in entries or "0*" in entries or f"{page.parent.name}/{page.stem}" in entries


@pytest.mark.parametrize(
    "page", [p for p in PAGES if "results" not in p.parts and p.name != "experiment_log.md"], ids=name_of
)
def test_named_files_exist(page):
    """A source file that a page names, from the top of the repository or from `sslcli/`, exists."""
    examples = set(re.findall(r"^`([\w./]+)`:$", page.read_text(encoding="utf-8"), re.MULTILINE))
    for path in re.findall(r"`((?:\w+/)+[a-z_]\w*\.(?:py|c|md|mjs|sh|yaml))`", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists() or (ROOT / "sslcli" / path).exists() or path in examples, path


def test_readme_limits():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 110] == []


def test_readme_commands():
    """The table of README has the commands and the summaries of `sslcli --help`."""
    rows = re.findall(r"^\| `sslcli (\w+)[^`]*` \| (.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert [name for name, _ in rows] == list(COMMANDS)
    for name, purpose in rows:
        assert purpose.startswith(COMMANDS[name].summary)


def test_readme_methods():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in registry.choices("method"):
        assert f"`{name}`" in text, name


def test_readme_folders():
    """The tree of the README has a line for every folder of the repository and every package of sslcli."""
    tree = tree_of("README.md")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    top = {path.partition("/")[0] + "/" for path in tracked if "/" in path and not path.startswith(".")}
    assert top <= set(re.findall(r"[\w]+/", tree)) or not tracked
    for package in packages():
        assert f"{package}/" in tree, package


def test_contributing_packages():
    tree = tree_of("CONTRIBUTING.md")
    for package in packages():
        assert re.search(rf"\b{package}\b", tree), package


def packages() -> list[str]:
    return sorted(p.parent.name for p in (ROOT / "sslcli").glob("*/__init__.py"))


def tree_of(name: str) -> str:
    """The block of a page that shows the tree."""
    return next(b.text for b in blocks(ROOT / name) if b.language == "text" and "cli/" in b.text)


def test_citation_version():
    import yaml

    from sslcli import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)


def image_methods() -> list[str]:
    """The methods of the comparison on images; those of tables have a page of their own."""
    nodes = {m: registry.describe(path, "method") for m, path in registry.choices("method").items()}
    return sorted(m for m in nodes if modalities.requires(nodes[m], nodes) <= modalities.provides("image"))


@pytest.mark.parametrize("name", image_methods())
def test_recipe_header_up_to_date(name):
    """The lines that `benchmarks/recipe_headers.py` writes, and at least one of them."""
    known = json.loads((ROOT / "docs" / "results" / "methods.json").read_text())
    text = (ROOT / "configs" / "method" / f"{name}.yaml").read_text()
    assert recipe_headers.MARK in text
    assert text == recipe_headers.rewritten(text, recipe_headers.seen(known, name))


def test_loss_verification_page():
    text = (ROOT / "docs" / "explanation" / "loss_verification.md").read_text(encoding="utf-8")
    tests = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests" / "methods").glob("test_*.py"))
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", text, re.M))
    assert set(rows) == set(registry.choices("method"))
    for name, row in rows.items():
        named = re.findall(r"`(test_\w+)`", row)
        assert named, name
        for test in named:
            assert f"def {test}(" in tests, test


def test_no_path_of_a_home_folder():
    for path in [*PAGES, *ROOT.glob("sslcli/**/*.py"), *ROOT.glob("configs/**/*.yaml"), *ROOT.glob("scripts/*")]:
        if path.is_file():
            assert not re.search(r"(?<![\w.$~])/(?:home|root|Users)/\w", path.read_text(encoding="utf-8")), path
