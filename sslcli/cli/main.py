"""The door: words to a command, errors to exit codes. Imports neither torch nor Hydra until a command needs them.

    sslcli WORD [NAME] key=value ... [flags]

Words that take a configuration are handed to the real `hydra.main` under that word's config name, so that `-m`, `--cfg`,
launchers and sweepers are Hydra's own.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sslcli import __version__, console
from sslcli.cli.help import HYDRA_WORDS, PLAIN_WORDS, WORDS, evaluator_help, help_text
from sslcli.cli.hydra_task import Ended, in_words, signals_end
from sslcli.config import safe_yaml, schema
from sslcli.errors import RequestError, SslError, first_line, listing, nearest
from sslcli.runtime import cores, folders, progress, streams
from sslcli.runtime.subprocesses import protect_imports

__all__ = ["HYDRA_WORDS", "PLAIN_WORDS", "WORDS", "Request", "main", "parse"]

WITHOUT_JSON = ("pretrain", "resume", "completion")  # what they print is a path, or a script
TEAM_WORDS = ("pretrain", "eval", "pipeline", "bench", "resume")  # those whose work several processes share

# Hydra's flags that take a value, and ours.
_VALUED = {
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-dir",
    "-cd",
    "--info",
    "-i",
    "-n",
}
_OURS = {
    "--json": console.JSON,
    "-q": console.QUIET,
    "--quiet": console.QUIET,
    "-v": console.VERBOSE,
    "--verbose": console.VERBOSE,
}
_HYDRA_FLAGS = {"-m", "--multirun", "--hydra-help", "--resolve", "-r"}


@dataclass
class Request:
    """A command line, taken apart."""

    words: list[str] = field(default_factory=list)  # neither flag nor key=value
    overrides: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)  # with their values
    dry_run: bool = False
    help: bool = False

    @property
    def multirun(self) -> bool:
        return self.asks("-m", "--multirun") or "hydra.mode=MULTIRUN" in self.overrides

    @property
    def config_dirs(self) -> list[Path]:
        return [Path(v) for f, v in zip(self.flags, self.flags[1:], strict=False) if f in ("--config-dir", "-cd")]

    def asks(self, *names: str) -> bool:
        return any(n in self.flags for n in names)


def parse(argv: list[str], names_runs: bool = False) -> Request:
    """Words, `key=value`, flags, in any order. RequestError on a flag nobody knows. `names_runs`: a word may be the name of a
    run or of a sweep, which may hold an equal sign."""
    request, rest = Request(), list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word in ("-h", "--help"):
            request.help = True
        elif word == "--dry-run":
            request.dry_run = True
        elif word in _OURS:
            os.environ[_OURS[word]] = "1"
        elif word in _HYDRA_FLAGS or word in ("--strict", "--version"):
            request.flags.append(word)
        elif name in _VALUED and word.startswith("-"):
            if not equals and not rest:
                raise RequestError(f"{name} wants a value")
            request.flags += [name, value if equals else rest.pop(0)]
        elif word.startswith("-") and not _is_number(word):
            known = [*_OURS, *_HYDRA_FLAGS, *_VALUED, "--dry-run", "--help", "--strict", "--version"]
            close = nearest(word, known)
            key = word.lstrip("-") if equals else f"{word.lstrip('-')}=..."
            hint = f"keys have no dashes: {key}" if word.startswith("--") else "sslcli --help shows them"
            raise RequestError(f"there is no flag {word}", f"did you mean {close}?" if close else hint)
        elif names_runs and equals and _is_there(word):
            request.words.append(word)
        elif "=" in word or word.startswith(("~", "+")):
            request.overrides.append(quoted_path(word, sweep="-m" in argv or "--multirun" in argv))
        else:
            request.words.append(word)
    return request


def quoted_path(word: str, sweep: bool) -> str:
    """A path may hold commas, brackets, quotes, equal signs: quoted here, so that nobody has to know Hydra's grammar."""
    key, _, value = word.partition("=")
    is_file = key == "labels" and value.lower().endswith((".csv", ".tsv", ".txt"))
    is_folder = key.startswith(("hydra.run.", "hydra.sweep."))  # of one run, or one sweep
    is_path = is_file or is_folder or key in ("run", "init") or key.endswith(".path")
    plain = (
        all(c.isascii() and (c.isalnum() or c in "/._-~ ") for c in value)
        and value == value.strip()
        and (value[:1].isalpha() or value[:1] in "/._")  # a folder may be called 2024, or -rf
        and (value.lower() not in ("true", "false", "null", "nan", "inf") or (key != "run" and value == "null"))
    )
    several = sweep and "," in value and not is_folder
    if not is_path or not value or plain or "${" in value or value[0] in "'\"" or several:
        return word
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def _is_there(word: str) -> bool:
    """Whether a word names a run or a folder of runs."""

    return any(os.path.isdir(p) for p in (os.path.expanduser(word), folders.runs_root() / word))


def _is_number(word: str) -> bool:
    return word[1:].replace(".", "", 1).isdigit()


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; every error of a user's becomes `error: ...` and `hint: ...` on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    protect_imports()
    if argv[:1] and argv[0] in WORDS:
        folders.prepare()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's C++ warns of what we do on purpose
    cores.prepare_environment()
    argv = without_carriage_returns(argv)
    with streams.lasting() as checked:
        return checked(answer(lambda: one_of_many(argv) if joins_others(argv) else dispatch(argv)))


def joins_others(argv: list[str]) -> bool:
    """Whether a launcher (torchrun, Slurm) started several processes for a command that uses them."""
    only_shows = {"-h", "--help", "-c", "--cfg", "-i", "--info", "--hydra-help"}
    several = "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"
    return several and argv[:1] != [] and argv[0] in TEAM_WORDS and not only_shows & set(argv)


def one_of_many(argv: list[str]) -> int:
    """Rank 0 reads the command line; the others do what it says."""
    from sslcli.runtime import processes

    if processes.launcher_info().rank > 0:
        from sslcli.cli import worker

        return worker.main(argv)
    processes.wait_for_workers()
    code = answer(lambda: dispatch(argv))
    processes.shutdown_launched(code)
    return code


def without_carriage_returns(argv: list[str]) -> list[str]:
    """In a shell script with Windows line ends the last word of a line ends in a carriage return; so does what it exports."""
    for name, value in list(os.environ.items()):
        if name.startswith("SSLCLI_") and value.endswith("\r"):
            os.environ[name] = value.rstrip("\r")
    if os.environ.get("SSLCLI_RUNS") == "":  # as good as not set, for Hydra's ${oc.env:...} too
        del os.environ["SSLCLI_RUNS"]
    return [word.rstrip("\r") for word in argv if word.rstrip("\r") or not word]


def answer(do: Callable[[], int]) -> int:
    try:
        with signals_end():  # in every command; training and sweeps have handlers of their own
            return do()
    except (Exception, KeyboardInterrupt, Ended) as e:
        error = in_words(e)
        if error is not None:
            console.error(error)
            return error.code
        import traceback

        traceback.print_exception(e.error if isinstance(e, Ended) else e)
        print(
            "\nThis is a bug in sslcli: please report it with the text above and `sslcli doctor --json`.",
            file=sys.stderr,
        )
        return 1


def more_talk() -> None:
    """-v: the log lines of libraries too, on stderr."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr, force=True)


def dispatch(argv: list[str]) -> int:
    if argv[:1] == ["help"] and len(argv) > 1:  # `help eval knn` is `eval knn --help`
        argv = [*argv[1:], "--help"]
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text(None), end="")
        return 0
    if argv[0] in ("--version", "-V"):
        print(f"sslcli {__version__}")
        return 0
    word, *rest = argv
    if word.startswith("-") and (named := next((w for w in rest if w in WORDS), None)):
        raise RequestError(f"{word} comes after the word", f"sslcli {named} {word} ...")
    if word not in WORDS:
        close = nearest(word, WORDS)
        raise RequestError(
            f"there is no word `{word}`", f"did you mean `sslcli {close}`?" if close else f"words: {', '.join(WORDS)}"
        )
    try:
        os.getcwd()
    except FileNotFoundError:
        raise RequestError("the working folder no longer exists", "cd into a folder that does") from None
    with progress.task(word):
        return run_word(word, rest)


def run_word(word: str, rest: list[str]) -> int:
    if word in PLAIN_WORDS and word != "data":
        from importlib import import_module

        command: Callable[[Request], int] = import_module(f"sslcli.cli.commands.{word}").main
        if (word, *rest[:1]) == ("completion", "query"):  # the line that is typed: not ours to take apart
            return import_module("sslcli.cli.commands.completion").query(" ".join(rest[1:]))
        request = parse_plain(word, rest)
        if request.help:
            print(help_text(word), end="")
            return 0
        if word in WITHOUT_JSON:
            console.ignore_json(word)
        return command(request)
    request = parse(rest)
    if request.help:
        print(help_of(word, request), end="")
        return 0
    if console.flag(console.VERBOSE):
        more_talk()
    if word in WITHOUT_JSON:
        console.ignore_json(word)
    for folder in request.config_dirs:
        take_config_dir(folder)
    if word == "data":
        from sslcli.cli.commands import data

        return data.main(request)
    return hand_over(word, request)


def help_of(word: str, request: Request) -> str:
    """The help of a word, or of the evaluator that stands behind `eval`."""
    if word != "eval" or not request.words:
        return help_text(word)
    from sslcli.config import messages, registry

    names = {n: p for n, p in registry.choices("evaluator", request.config_dirs).items() if n != "online"}
    if request.words[0] not in names:
        raise messages.unknown_choice("evaluator", request.words[0], names)
    return evaluator_help(request.words[0], names[request.words[0]])


def parse_plain(word: str, rest: list[str]) -> Request:
    """Plain words also know `-n N`."""
    request = parse(rest, names_runs=word in ("runs", "resume", "select", "export"))
    if word not in ("runs", "resume", "select", "export") and request.overrides:
        raise RequestError(f"`sslcli {word}` takes no {request.overrides[0]}", f"sslcli {word} --help")
    return request


def hand_over(word: str, request: Request) -> int:
    """Everything is checked first (no folder is made for a wrong request); then Hydra takes over."""
    from importlib import import_module

    if word == "eval":
        name_evaluator(request)
    elif request.words:
        raise stray(request.words[0], word)
    if request.asks("-n"):
        raise RequestError("there is no flag -n", f"sslcli {word} --help")
    from sslcli.config import compose

    module = import_module(f"sslcli.cli.commands.{word}")
    if word == "eval":
        request.overrides = module.moved_data(request.overrides)
    if request.asks("--cfg", "-c", "--info", "-i", "--hydra-help"):  # it only shows something
        if not request.multirun:
            compose.compose(word, request.overrides, request.config_dirs)  # a mistake is told in our words
        return run_hydra(word, module.run, request, request.overrides)
    if request.dry_run and request.multirun:
        raise RequestError("--dry-run takes one job, not a sweep", "leave out -m, or the commas")
    with warnings.catch_warnings(), nothing_collected():
        warnings.filterwarnings("ignore", message=r"\s*The version_base parameter")  # of Hydra 1.4, about 1.5
        if request.multirun:
            from sslcli.cli.sweep import Sweep

            sweep = Sweep.plan(
                word, request.overrides, request.config_dirs, module.look, getattr(module, "look_at_data", None)
            )
            warn_shadowed(request.config_dirs)
            return sweep.conduct(lambda: run_hydra(word, module.run, request, sweep.overrides))
        for override in request.overrides:
            if override.startswith(("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweep")):
                console.warn(f"{override} has no effect without -m")
        cfg = compose.compose(word, request.overrides, request.config_dirs)
        warn_shadowed(request.config_dirs)
        if request.dry_run:
            return module.dry_run(cfg)
        module.preview(cfg)
        with compose.mode_is_known(cfg):
            return run_hydra(word, module.run, request, request.overrides)


@contextlib.contextmanager
def nothing_collected() -> Iterator[None]:
    """While a job starts Python does not look for garbage: importing makes none, and each search goes through half a million
    objects (a tenth of the time to the first step). The job itself turns it on (`cli/hydra_task.py`), the end does."""
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


def run_hydra(word: str, task: Callable[..., object], request: Request, overrides: list[str]) -> int:
    """The real hydra.main, with its failures in our words."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from sslcli.config import messages, registry

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    schema.register()
    sys.argv = ["sslcli", *request.flags, *registry.search_override([]), *overrides]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            hydra.main(version_base="1.3", config_path=str(registry.config_dir()), config_name=word)(task)()
    except (HydraException, OmegaConfBaseException) as e:
        raise messages.rewrite_error(e, word, request.overrides, request.config_dirs) from None
    except (SslError, OSError):
        raise
    except Exception as e:  # Hydra's own, about a hydra.* key: what a job raises comes as Ended
        said = ": ".join(first_line(x) for x in (e, e.__cause__) if x is not None)
        raise RequestError(f"hydra: {said}", "look at the hydra.* keys that were given") from None
    return 0


def name_evaluator(request: Request) -> None:
    """`eval probe` -> evaluator=probe."""
    from sslcli.config import messages, registry

    names = {n: p for n, p in registry.choices("evaluator", request.config_dirs).items() if n != "online"}
    if len(request.words) > 1:
        second = request.words[1]
        if second in names:
            raise RequestError(
                f"eval takes one name, not {' and '.join(request.words)}",
                f"sslcli eval -m {','.join(request.words)} measures each",
            )
        if second == "latest" or "/" in second:
            raise RequestError(f"`{second}` needs its key", f"did you mean run={second}?")
        raise stray(second, "eval")
    if request.words:
        for name in request.words[0].split(","):
            if name not in names:
                raise messages.unknown_choice("evaluator", name, names)
        request.overrides.insert(0, f"evaluator={request.words[0]}")
    elif not any(o.startswith("evaluator=") for o in request.overrides):
        raise RequestError("eval what?", f"sslcli eval NAME, with NAME one of {listing(sorted(names))}")


def stray(text: str, word: str) -> RequestError:
    """A bare word where key=value is wanted: say which group has it."""
    from sslcli.config import messages, registry

    for group in registry.GROUPS:
        if text == group:
            return RequestError(f"`{text}` needs its value", f"{text}=NAME, without spaces")
        if text in registry.choices(group):
            return RequestError(f"`{text}` needs its key", f"did you mean {group}={text}?")
    if os.path.exists(text):
        return RequestError(f"`{text}` needs its key", f"dataset.path={text}, with {messages.reader(Path(text))}")
    return RequestError(f"`{text}` is not key=value", f"sslcli {word} --help")


def take_config_dir(folder: Path) -> None:
    """--config-dir: the YAML is looked at for size and aliases, and modules in the folder may be named."""
    from sslcli.config import instantiate

    if not folder.is_dir():
        raise RequestError(f"--config-dir {folder}: there is no such folder")
    safe_yaml.check_yaml_folder(folder)
    instantiate.trust_folder(folder)


def warn_shadowed(folders: list[Path]) -> None:
    """Hydra puts our folder first: a user's YAML of a name that we have would be ignored in silence."""
    from sslcli.config import registry

    for folder in folders:
        for group in registry.GROUPS:
            ours = registry.choices(group)
            for path in (folder / group).glob("*.yaml"):
                if path.stem in ours:
                    console.warn(
                        f"{path} is not used: {group}={path.stem} is a choice of sslcli's own", "give it another name"
                    )
