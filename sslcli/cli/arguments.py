"""Parsing of a command line into positional arguments, `key=value` overrides and flags. Imports neither torch nor Hydra."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sslcli import console
from sslcli.cli.command import Command, Option
from sslcli.config.overrides import takes_path
from sslcli.errors import RequestError, nearest
from sslcli.runtime import folders

_CONSOLE_FLAGS = {
    "--json": console.JSON,
    "-q": console.QUIET,
    "--quiet": console.QUIET,
    "-v": console.VERBOSE,
    "--verbose": console.VERBOSE,
}
_HYDRA_SWITCHES = {"-m", "--multirun", "--hydra-help", "--resolve", "-r"}
_HYDRA_VALUED = {"--cfg", "-c", "--package", "-p", "--info", "-i"}
_CONFIG_DIR = {"--config-dir", "-cd"}
SHOWING_FLAGS = ("--cfg", "-c", "--info", "-i", "--hydra-help")  # Hydra prints something and runs no job


@dataclass
class Request:
    """A parsed command line."""

    positional: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)  # each followed by its value, where it takes one
    dry_run: bool = False
    help: bool = False

    @property
    def multirun(self) -> bool:
        return self.has_flag("-m", "--multirun") or "hydra.mode=MULTIRUN" in self.overrides

    @property
    def config_dirs(self) -> list[Path]:
        return [Path(v) for f, v in zip(self.flags, self.flags[1:], strict=False) if f in _CONFIG_DIR]

    def has_flag(self, *names: str) -> bool:
        return any(n in self.flags for n in names)

    def value_of(self, flag: str) -> str | None:
        """The value of a flag, or None where it is not given."""
        return self.flags[self.flags.index(flag) + 1] if flag in self.flags else None


def parse(argv: list[str], command: Command) -> Request:
    """Parses what follows the name of `command`; arguments, overrides and flags may come in any order.

    Raises:
        RequestError: for a flag that the command does not take, a flag without its value, or an unexpected `key=value`.
    """
    request, rest = Request(), list(argv)
    switches, valued = _flags_of(command)
    multirun = "-m" in argv or "--multirun" in argv
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if argument in ("-h", "--help"):
            request.help = True
        elif argument == "--dry-run" and command.hydra:
            request.dry_run = True
        elif argument in _CONSOLE_FLAGS:
            os.environ[_CONSOLE_FLAGS[argument]] = "1"
        elif argument in switches:
            request.flags.append(argument)
        elif name in valued:
            if not equals and not rest:
                raise RequestError(f"{name} requires a value")
            request.flags += [name, value if equals else rest.pop(0)]
        elif argument.startswith("-") and not _is_number(argument):
            raise _unknown_flag(argument, command)
        elif equals and ((command.runs and _is_run(argument)) or (command.files and os.path.isfile(argument))):
            request.positional.append(argument)
        elif "=" in argument or argument.startswith(("~", "+")):
            request.overrides.append(quote_path(argument, multirun))
        else:
            request.positional.append(argument)
    if request.overrides and not command.overrides:
        raise RequestError(
            f"unexpected argument '{request.overrides[0]}' of sslcli {command.name}", f"sslcli {command.name} --help"
        )
    return request


def _flags_of(command: Command) -> tuple[set[str], set[str]]:
    """(flags without a value, flags with one), besides those that `parse` treats itself."""
    switches, valued = {f for f in command.flags if f.startswith("--")}, {f for f in command.flags if len(f) == 2}
    return (
        switches | (_HYDRA_SWITCHES if command.hydra else set()),
        valued | _CONFIG_DIR | (_HYDRA_VALUED if command.hydra else set()),
    )


def _unknown_flag(flag: str, command: Command) -> RequestError:
    switches, valued = _flags_of(command)
    known = [*_CONSOLE_FLAGS, *switches, *valued, "--help", *(["--dry-run"] if command.hydra else [])]
    name = flag.lstrip("-")
    if close := nearest(flag, known):
        hint = f"did you mean {close}?"
    elif flag.startswith("--") and command.overrides:
        hint = f"keys have no dashes: {name}" if "=" in flag else f"keys have no dashes: {name}=..."
    else:
        hint = f"sslcli {command.name} --help"
    return RequestError(f"unknown flag '{flag}' of sslcli {command.name}", hint)


def quote_path(override: str, multirun: bool) -> str:
    """Quotes a path, or a text, that contains characters of Hydra's override grammar (commas, brackets, quotes, equal signs)."""
    key, _, value = override.partition("=")
    plain = (
        all(c.isascii() and (c.isalnum() or c in "/._-~ ") for c in value)
        and value == value.strip()
        and (value[:1].isalpha() or value[:1] in "/._")  # a folder may be called 2024, or -rf
        and (value.lower() not in ("true", "false", "null", "nan", "inf") or (key != "run" and value == "null"))
    )
    is_one = key.startswith(("hydra.run.", "hydra.sweep.")) or key in ("text", "evaluator.text")
    several = multirun and "," in value and not is_one
    if not takes_path(key, value) or not value or plain or "${" in value or value[0] in "'\"" or several:
        return override
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def _is_run(argument: str) -> bool:
    """Whether an argument is a folder, or the name of a run."""
    return any(os.path.isdir(p) for p in (os.path.expanduser(argument), folders.runs_root() / argument))


def _is_number(argument: str) -> bool:
    return argument[1:].replace(".", "", 1).isdigit()


def strip_carriage_returns(argv: list[str]) -> list[str]:
    """Removes the carriage returns that a shell script with Windows line ends leaves in arguments and in its environment."""
    for name, value in list(os.environ.items()):
        if name.startswith("SSLCLI_") and value.endswith("\r"):
            os.environ[name] = value.rstrip("\r")
    if os.environ.get("SSLCLI_RUNS") == "":  # the same as unset, for Hydra's ${oc.env:...} too
        del os.environ["SSLCLI_RUNS"]
    return [argument.rstrip("\r") for argument in argv if argument.rstrip("\r") or not argument]


def use_config_dir(folder: Path) -> None:
    """Checks the YAML files of a --config-dir and allows imports of modules in it.

    Raises:
        RequestError: the folder does not exist, or a YAML file exceeds the limits of `safe_yaml.check_yaml_folder`.
    """
    from sslcli.config import instantiate, safe_yaml

    if not folder.is_dir():
        raise RequestError(f"--config-dir {folder}: there is no such folder")
    safe_yaml.check_yaml_folder(folder)
    instantiate.trust_folder(folder)


def subcommand_of(request: Request, command: Command) -> str:
    """The subcommand of a request.

    Raises:
        RequestError: it is missing or unknown, or followed by fewer or more arguments than it takes.
    """
    names = [s.name for s in command.subcommands]
    if not request.positional:
        raise RequestError(f"missing argument: {command.usage.split()[0]}", f"sslcli {command.name} {'|'.join(names)}")
    name, *rest = request.positional
    if name not in names:
        close = nearest(name, names)
        hint = f"did you mean `sslcli {command.name} {close}`?" if close else f"one of {', '.join(names)}"
        raise RequestError(f"sslcli {command.name}: unknown argument '{name}'", hint)
    subcommand = next(s for s in command.subcommands if s.name == name)
    required = [a for a in subcommand.arguments if a[0] not in "[."]
    if len(rest) < len(required):
        usage = f"sslcli {command.name} {subcommand.usage}"
        raise RequestError(f"missing argument: {required[len(rest)]}", usage)
    if "..." not in subcommand.arguments and len(rest) > len(subcommand.arguments):
        raise unexpected_argument(rest[len(subcommand.arguments)], f"{command.name} {name}")
    return name


def split_options(overrides: list[str], options: Sequence[Option]) -> tuple[dict[str, str], list[str]]:
    """The values of the keys among `options`, and the other overrides."""
    names = {option.name for option in options}
    pairs = [override.partition("=") for override in overrides]
    return {k: v for k, _, v in pairs if k in names}, ["".join(pair) for pair in pairs if pair[0] not in names]


def read_options(overrides: list[str], options: Sequence[Option], usage: str) -> dict[str, str]:
    """The values of `options`, the only keys that the command `usage` takes. RequestError for any other."""
    values, others = split_options(overrides, options)
    if others:
        close = nearest(others[0].partition("=")[0], [option.name for option in options])
        hint = f"did you mean {close}=...?" if close else f"sslcli {usage.split()[0]} --help"
        raise RequestError(f"unexpected argument '{others[0]}' of sslcli {usage}", hint)
    return values


def run_argument(request: Request, command: Command) -> str:
    """The one positional argument of a command that takes a run."""
    if len(request.positional) != 1:
        wrong = (
            "missing argument: RUN" if not request.positional else f"expected one run, got {len(request.positional)}"
        )
        raise RequestError(wrong, f"sslcli {command.name} {command.usage}; `latest` is the newest run")
    return request.positional[0]


def unexpected_argument(argument: str, command: str) -> RequestError:
    """The error for a positional argument where `key=value` is expected; the hint names the key that fits."""
    from sslcli.config import messages, registry

    for group in registry.GROUPS:
        if argument == group:
            return RequestError(f"'{argument}' requires a value", f"{argument}=NAME, without spaces")
        if argument in registry.choices(group):
            return RequestError(f"'{argument}': expected key=value", f"did you mean {group}={argument}?")
    if os.path.exists(argument):
        hint = f"{console.format_override('dataset.path', argument)}, with {messages.reader(Path(argument))}"
        return RequestError(f"'{argument}': expected key=value", hint)
    return RequestError(f"'{argument}': expected key=value", f"sslcli {command} --help")
