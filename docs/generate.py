"""Generate the reference pages from the code and the YAML files.

    python docs/generate.py [FOLDER]        default: docs/reference/generated

Sphinx runs it before it reads the pages (`docs/conf.py`). Sources: `sslcli COMMAND --help`, the files of `configs/`
with their comments, the schema of the configuration, and the exit codes of `sslcli/errors.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import functools
import inspect
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import yaml

from sslcli import errors
from sslcli.cli import main
from sslcli.cli.command_table import COMMANDS
from sslcli.config import registry

HERE = Path(__file__).resolve().parent
FACTS = (
    "_target_",
    "summary",
    "family",
    "source",
    "defaults",
    "hydra",
    "name",
    "needs",
    "requires",
    "modality",
    "path_keys",
)  # of a choice, no keys
EVALUATOR_FACTS = ("title", "metric", "order", "ranks_runs")
COMMANDS_WITH_KEYS = ("pretrain", "eval", "pipeline", "bench")


@dataclasses.dataclass(frozen=True)
class Key:
    """A configuration key: dotted name, default as written in the YAML file, and the comment that explains it."""

    name: str
    default: str
    meaning: str


# ----------------------------------------------------------------------------------------------------------- YAML files


def keys(text: str) -> list[Key]:
    """The keys of a YAML text. A key's meaning is the comment on its line, or the comment lines above it."""
    root = yaml.compose(text)
    found = list(_walk(root, text.splitlines(), "")) if isinstance(root, yaml.MappingNode) else []
    return [key for key in found if key.name.split(".")[0] not in FACTS]


def _walk(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Key]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            yield from _walk(value, lines, f"{name}.")
            continue
        start, end = value.start_mark, value.end_mark
        if start.line == end.line:
            default = lines[start.line][start.column : end.column]
        else:  # a flow collection over several lines
            parts = [
                lines[start.line][start.column :],
                *lines[start.line + 1 : end.line],
                lines[end.line][: end.column],
            ]
            default = " ".join(part.split(" #")[0].strip() for part in parts)
        rest = lines[end.line][end.column :] if end.line < len(lines) else ""
        comment = rest.partition("#")[2].strip() or _comment_above(lines, key.start_mark.line)
        yield Key(name, default.strip() or "null", comment)


def _comment_above(lines: list[str], row: int) -> str:
    """The comment lines directly above a line, joined; empty where they are the header of the file."""
    above: list[str] = []
    while row > 0 and lines[row - 1].lstrip().startswith("#"):
        row -= 1
        above.insert(0, lines[row].lstrip("# "))
    return "" if row == 0 else " ".join(above)


def header(text: str) -> list[str]:
    """The comment lines at the head of a YAML file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            lines.append(line.removeprefix("#").removeprefix(" "))
    return lines


COMMAND = re.compile(r"\s+(?:[A-Z_]+=\S+ )?(?:run=\$\()?(?:sslcli |[\w.]+=)")  # an indented command or override


def reflow(lines: list[str]) -> str:
    """Comment lines as paragraphs; measurements ("Seen on ...") and indented commands start a line."""
    text = ""
    for line in lines:
        inside = text.count("`") % 2  # the line continues a command in backquotes
        starts = not inside and (line.startswith(("Seen on", "Measured")) or COMMAND.match(line))
        text += ("\n" + line) if starts else (" " + line.strip())
    return text.strip()


def choice_keys(group: str, path: Path) -> tuple[list[Key], list[Key]]:
    """The keys of one choice, and the defaults that it sets in other groups."""
    text = path.read_text(encoding="utf-8")
    found = keys(text)
    if "@package _global_" not in text:
        facts = EVALUATOR_FACTS if group == "evaluator" else ()
        return [dataclasses.replace(k, name=f"{group}.{k.name}") for k in found if k.name not in facts], []
    own = [k for k in found if k.name.startswith(f"{group}.") and k.name.split(".")[1] not in FACTS]
    return own, [k for k in found if not k.name.startswith(f"{group}.")]


# ------------------------------------------------------------------------------------------------------------- Markdown


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def key_table(found: list[Key]) -> str:
    return table(("key", "default", "meaning"), [(code(k.name), code(k.default), cell(k.meaning)) for k in found])


# ---------------------------------------------------------------------------------------------------------------- pages


def help_of(*argv: str) -> str:
    """What `sslcli ... --help` prints, at a fixed width."""
    out = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS="100"), contextlib.redirect_stdout(out):
        status = main([*argv, "--help"])
    assert status == 0, argv
    return out.getvalue().rstrip()


def commands() -> str:
    """`sslcli --help`, and the help of each command."""
    text = f"# Commands\n\n```text\n{help_of()}\n```\n"
    for name, command in COMMANDS.items():
        text += f"\n## {name}\n\n{cell(command.summary)}\n\n```text\n{help_of(name)}\n```\n"
    return text


def group_page(group: str) -> str:
    """All choices of one group, each with its summary, its source, its keys and what it sets elsewhere."""
    text = f"# {group}\n\nSelect a choice with `{group}=NAME`; set a key with `KEY=VALUE`.\n"
    for name, path in sorted(registry.choices(group).items()):
        facts = registry.describe(path, group)
        own, elsewhere = choice_keys(group, path)
        own = [k if k.meaning else dataclasses.replace(k, meaning=glossary(k.name)) for k in own]
        remarks = reflow(header(path.read_text(encoding="utf-8")))
        summary = str(facts.get("summary") or "")
        text += f"\n## {name}\n" + ("" if remarks.startswith(summary) else f"\n{cell(summary)}\n")
        if facts.get("source"):
            text += f"\nSource: {cell(str(facts['source']))}\n"
        if facts.get("_target_"):
            text += f"\nImplementation: `{facts['_target_']}`\n"
        if remarks:
            text += f"\n```{{code-block}} text\n:class: remarks\n\n{remarks}\n```\n"
        if own:
            text += "\n" + key_table(own)
        if elsewhere:
            text += "\nDefaults of other groups:\n\n"
            text += table(("key", "value"), [(code(k.name), code(k.default)) for k in elsewhere])
    return text


@functools.cache
def _glossary() -> dict[str, str]:
    return yaml.safe_load((HERE / "reference" / "glossary.yaml").read_text(encoding="utf-8"))


def glossary(name: str) -> str:
    """The meaning of a key whose YAML file has no comment on it: the first pattern of `glossary.yaml` that fits."""
    return next((text for pattern, text in _glossary().items() if fnmatch.fnmatchcase(name, pattern)), "")


def top_level_page() -> str:
    """The keys outside the groups: those of every command, and those of each."""
    text = "# Top-level keys\n\n## All commands with a configuration\n\n"
    text += key_table(keys((registry.config_dir() / "base.yaml").read_text(encoding="utf-8")))
    for command in COMMANDS_WITH_KEYS:
        text += f"\n## {command}\n\n" + key_table(keys((registry.config_dir() / f"{command}.yaml").read_text("utf-8")))
    return text


def configuration() -> dict[str, str]:
    pages = {"configuration/top_level.md": top_level_page()}
    for group in registry.GROUPS:
        pages[f"configuration/{group}.md"] = group_page(group)
    toctree = "\n".join(["top_level", *registry.GROUPS])
    pages["configuration/index.md"] = (
        "# Configuration keys\n\n"
        "Every key that can be set on the command line as `KEY=VALUE`, with its default and its meaning, read from the\n"
        "YAML files of `configs/`. Each group is a folder of choices: `GROUP=NAME` selects the file\n"
        "`configs/GROUP/NAME.yaml`. `sslcli COMMAND --cfg job` prints the composed configuration.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{toctree}\n```\n"
    )
    return pages


def exit_codes() -> str:
    """The exit codes of `sslcli/errors.py`, with the meaning that each exception's docstring gives."""
    found = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.SslError)]
    rows = [("0", "", "Success.")]
    for c in sorted(found, key=lambda c: c.code):
        if c is errors.SslError:
            rows.append(("1", "any other exception", "Internal error; the full traceback is printed."))
        else:
            rows.append((str(c.code), code(c.__name__), cell(" ".join((c.__doc__ or "").split()))))
    return "# Exit codes\n\n" + table(("code", "exception", "meaning"), rows) + EXIT_CODES_REST


EXIT_CODES_REST = """
An error is printed to stderr as `error: ...` and, where a next step is known, `hint: ...`. Codes 75 and 130 mean that the
run was saved and can be resumed with `sslcli resume`. A sweep exits with the code of its first failed job.
"""


def evaluators() -> str:
    """The table of evaluators that the page of metrics includes."""
    rows = []
    for name, path in sorted(registry.choices("evaluator").items()):
        facts = registry.describe(path, "evaluator")
        main = facts.get("metric", "top1")
        main = main if isinstance(main, list) else [main] if main else []
        rows.append(
            (
                f"[`{name}`](generated/configuration/evaluator.md#{name})",
                cell(str(facts["summary"])),
                " ".join(map(code, main)),
                ", ".join(facts.get("needs") or ()),
            )
        )
    return table(("evaluator", "measures", "main metric", "needs"), rows)


def pages() -> dict[str, str]:
    """All generated pages: relative path to Markdown text."""
    return {
        "commands.md": commands(),
        **configuration(),
        "exit_codes.md": exit_codes(),
        "evaluators.md": evaluators(),
    }


def write(folder: Path) -> None:
    """Write the pages; a file that would not change is left alone, so that Sphinx does not read it again."""
    for name, text in pages().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "reference" / "generated")
