"""The entry point: runs a command and converts exceptions to exit codes.

    sslcli COMMAND [NAME] key=value ... [flags]

Imports neither torch nor Hydra until a command needs them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module

from sslcli import __version__, console
from sslcli.cli import help
from sslcli.cli.arguments import SHOWING_FLAGS, parse, strip_carriage_returns, use_config_dir
from sslcli.cli.command import Command
from sslcli.cli.command_table import COMMANDS
from sslcli.cli.exceptions import JobExit, stop_on_signals, to_ssl_error
from sslcli.errors import RequestError, nearest
from sslcli.runtime import folders, progress, resources, streams
from sslcli.runtime.subprocesses import protect_imports


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code; an error of the user is printed as `error: ...` and `hint: ...` on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    protect_imports()
    if argv[:1] and argv[0] in COMMANDS:
        folders.prepare()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # the warnings of torch's C++ concern choices made on purpose
    resources.prepare_environment()
    argv = strip_carriage_returns(argv)
    with streams.tolerant_streams() as checked:
        return checked(exit_code(lambda: run_as_rank(argv) if is_distributed(argv) else dispatch(argv)))


def exit_code(run: Callable[[], int]) -> int:
    """The exit code of `run`, which may raise."""
    try:
        with stop_on_signals():
            return run()
    except (Exception, KeyboardInterrupt, JobExit) as e:
        error = to_ssl_error(e)
        if error is not None:
            console.error(error)
            return error.code
        import traceback

        traceback.print_exception(e.error if isinstance(e, JobExit) else e)
        print(
            "\nThis is a bug in sslcli: please report it with the text above and `sslcli doctor --json`.",
            file=sys.stderr,
        )
        return 1


def is_distributed(argv: list[str]) -> bool:
    """Whether a launcher (torchrun, Slurm) started several processes for a command that uses them."""
    several = "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    shows = {"-h", "--help", *SHOWING_FLAGS} & set(argv)
    return several and argv[:1] != [] and argv[0] in COMMANDS and COMMANDS[argv[0]].distributed and not shows


def run_as_rank(argv: list[str]) -> int:
    """Rank 0 runs the command; the other ranks run the tasks that it sends."""
    from sslcli.runtime import processes

    if processes.launcher_info().rank > 0:
        from sslcli.cli import worker

        return worker.main(argv)
    processes.wait_for_workers()
    code = exit_code(lambda: dispatch(argv))
    processes.shutdown_launched(code)
    return code


def dispatch(argv: list[str]) -> int:
    """Runs the command that `argv` names, or prints the help or the version."""
    if argv[:1] == ["help"] and len(argv) > 1:  # `help eval knn` is `eval knn --help`
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help.overview(), end="")
        return 0
    name, *rest = argv
    if name in ("--version", "-V") or "--version" in rest:
        print(f"sslcli {__version__}")
        return 0
    if name.startswith("-") and (command := next((a for a in rest if a in COMMANDS), None)):
        raise RequestError(f"{name} must follow the command", f"sslcli {command} {name} ...")
    if name not in COMMANDS:
        close = nearest(name, COMMANDS)
        hint = f"did you mean `sslcli {close}`?" if close else f"commands: {', '.join(COMMANDS)}"
        raise RequestError(f"unknown command '{name}'", hint)
    try:
        os.getcwd()
    except FileNotFoundError:
        raise RequestError("the working folder no longer exists", "cd into a folder that does") from None
    with progress.task(name):
        return run_command(COMMANDS[name], rest)


def run_command(command: Command, argv: list[str]) -> int:
    """Parses what follows the name of a command, and runs it."""
    if command.name == "completion" and argv[:1] == ["query"]:  # followed by an unfinished line, which is not parsed
        return import_module("sslcli.cli.commands.completion").query(" ".join(argv[1:]))
    request = parse(argv, command)
    if request.help:
        print(help.command_help(command, request.positional, request.config_dirs), end="")
        return 0
    if not command.json:
        console.ignore_json(command.name)
    if console.flag(console.VERBOSE):
        log_to_stderr()
    for folder in request.config_dirs:
        use_config_dir(folder)
    if command.hydra:
        from sslcli.cli import hydra_command

        return hydra_command.run(command, request)
    return import_module(f"sslcli.cli.commands.{command.name}").main(request)


def log_to_stderr() -> None:
    """Prints the log lines of libraries on stderr (`-v`)."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr, force=True)
