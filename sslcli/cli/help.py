"""The texts of `sslcli --help`, `sslcli COMMAND --help` and `sslcli eval NAME --help`, wrapped to the width of the terminal.

They are composed from the table of commands and from the comments in the YAML files.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path

from sslcli.cli.command import COMMON_FLAGS, HYDRA_FLAGS, Command, Option
from sslcli.cli.command_table import COMMANDS
from sslcli.cli.key_docs import KeyDoc, command_keys, read_keys, shared_keys
from sslcli.config import registry

NARROWEST, WIDEST = 60, 120  # columns
TERM_WIDTH = 34  # of the left column, at most

EXAMPLES = (
    ("pretrain method=simsiam", "scikit-learn's digits, about a minute on a laptop"),
    ("eval probe labels=10/class seeds=5", "a linear probe of the newest run, beside baselines"),
    ("pretrain method=simclr dataset=image_folder dataset.path=photos backbone=resnet18", "your images"),
)


def overview() -> str:
    """The text of `sslcli --help`."""
    return _page(
        ["sslcli: self-supervised learning from the command line"],
        ["Usage: sslcli COMMAND key=value ... [flags]"],
        _examples("", EXAMPLES),
        _definitions("Commands", [(c.name, c.summary) for c in COMMANDS.values()]),
        _definitions("Flags", COMMON_FLAGS.items()),
        _definitions(f"Flags of {_names(c.name for c in COMMANDS.values() if c.hydra)}", HYDRA_FLAGS.items()),
        _paragraph("`sslcli COMMAND --help` shows the examples, keys and flags of one command."),
        _paragraph(
            "Results go to stdout; logs and progress go to stderr. Runs are stored in runs/, or in $SSLCLI_RUNS."
        ),
    )


def command_help(command: Command, positional: list[str], config_dirs: Iterable[Path] = ()) -> str:
    """The text of `sslcli COMMAND --help`; of one evaluator, where its name follows `eval`."""
    if command.name == "eval" and positional:
        return evaluator_help(positional[0], config_dirs)
    return _page(
        _wrap(command.summary),
        _wrap(f"Usage: sslcli {command.name} {command.usage}".rstrip(), 7),
        _examples(command.name, command.examples),
        _evaluators(config_dirs) if command.name == "eval" else [],
        _subcommands(command),
        _options("Keys and flags", command.options),
        _keys("Keys", command_keys(command)),
        _definitions("Groups (GROUP=CHOICE, GROUP.KEY=VALUE)", _groups(command, config_dirs)),
        *(_keys(f"Keys of {group}", keys) for group, keys in shared_keys(command).items()),
        _paragraph(command.notes),
        _definitions("Flags", command.flag_meanings.items()),
        _paragraph(
            f"`sslcli {command.name} {'NAME ' * (command.name == 'eval')}--cfg job` prints every key." * command.hydra
        ),
    )


def evaluator_help(name: str, config_dirs: Iterable[Path] = ()) -> str:
    """The text of `sslcli eval NAME --help`: what the evaluator measures, and its keys, read from its YAML file."""
    files = registry.evaluators(config_dirs)
    if name not in files:
        from sslcli.config import messages

        raise messages.unknown_choice("evaluator", name, files)
    text = files[name].read_text(encoding="utf-8")
    remarks = [line.lstrip("# ") for line in text.partition("_target_:")[0].splitlines() if line.startswith("#")]
    summary = registry.describe(files[name], "evaluator").get("summary", "")
    keys = [k for k in read_keys(files[name], "evaluator.") if not k.default.startswith("${")]
    command = COMMANDS["eval"]
    some = [name for name in ("labels", "seeds", "picks") if f"${{{name}}}" in text or f"oc.select:{name}," in text]
    general = [k for k in command_keys(command) if k.name in some or k.name not in ("labels", "seeds", "picks")]
    data = KeyDoc("dataset", "NAME", "another data set than that of the run; likewise dataset.KEY=VALUE")
    examples = [(f"{name} run=RUN", ""), *((r.removeprefix("sslcli eval "), "") for r in remarks if _is_command(r))]
    remarks = [r for r in remarks if not _is_command(r)]
    simple = [k for k in keys if k.default.isalnum() and k.default != "null"]
    if simple and len(examples) == 1:
        examples.append((f"{name} run=RUN {simple[0].name}={simple[0].default}", ""))
    return _page(
        _wrap(f"{name}: {summary}"),
        [f"Usage: sslcli eval {name} [run=RUN] [key=value ...]"],
        _examples("eval", examples),
        _paragraph(" ".join(remarks)),
        _keys(f"Keys of {name}", keys),
        _keys("Keys of every evaluator", [*general, data]),
        _paragraph("`sslcli eval --help` shows the groups, the keys of the device and the flags."),
    )


def _is_command(remark: str) -> bool:
    return remark.startswith("sslcli eval ")


# ------------------------------------------------------------------------------------------------------------- sections


def _evaluators(config_dirs: Iterable[Path]) -> list[str]:
    files = registry.evaluators(config_dirs)
    summaries = [(name, str(registry.describe(path, "evaluator")["summary"])) for name, path in sorted(files.items())]
    return _definitions("Evaluators (sslcli eval NAME --help shows the keys of one)", summaries)


def _groups(command: Command, config_dirs: Iterable[Path]) -> list[tuple[str, str]]:
    return [(group, ", ".join(sorted(registry.choices(group, config_dirs)))) for group in command.groups]


def _subcommands(command: Command) -> list[str]:
    if not command.subcommands:
        return []
    lines = _definitions("Subcommands", [(s.usage, s.summary) for s in command.subcommands])
    for subcommand in command.subcommands:
        if options := _options(f"Options of {subcommand.name}", subcommand.options):
            lines += ["", *options]
    return lines


def _options(title: str, options: Iterable[Option]) -> list[str]:
    return _definitions(title, [(o.usage, o.meaning) for o in options])


def _keys(title: str, keys: Iterable[KeyDoc]) -> list[str]:
    return _definitions(title, [(f"{k.name}={k.default}", k.meaning) for k in keys])


# --------------------------------------------------------------------------------------------------------------- layout


def _width() -> int:
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size((100, 24)).columns))


def _wrap(text: str, indent: str | int = "") -> list[str]:
    """Lines of at most the width of the terminal; those after the first begin with `indent`, or with so many spaces."""
    indent = indent if isinstance(indent, str) else " " * indent
    return textwrap.wrap(text, _width(), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _paragraph(text: str) -> list[str]:
    return [line for part in text.splitlines() for line in _wrap(part)]


def _definitions(title: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    """A titled table of terms and their meanings; a long term keeps its meaning beside it."""
    pairs = list(pairs)
    if not pairs:
        return []
    column = min(TERM_WIDTH, max(len(term) for term, _ in pairs))
    lines = [line for term, text in pairs for line in _wrap(f"  {term.ljust(column)}  {text}".rstrip(), column + 4)]
    return [title, *lines]


def _examples(command: str, examples: Iterable[tuple[str, str]]) -> list[str]:
    """Commands to copy, unwrapped; the remark is a shell comment beside the command, or above a long one."""
    lines = []
    for arguments, remark in examples:
        line = f"  {' '.join(filter(None, ('sslcli', command, arguments)))}"
        beside = f"{line.ljust(44)}  # {remark}"
        if remark and len(beside) <= _width():
            line = beside
        elif remark:
            lines += _wrap(f"  # {remark}", "  # ")
        lines.append(line)
    return ["Examples", *lines] if lines else []


def _names(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"


def _page(*sections: list[str]) -> str:
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"
