"""The door: words to a command, errors to exit codes. Imports neither torch nor Hydra until a command needs them.

    sslcli WORD [NAME] key=value ... [flags]

Words that take a configuration are handed to the real `hydra.main` under that word's config name, so that `-m`, `--cfg`,
launchers and sweepers are Hydra's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sslcli import __version__, console
from sslcli.errors import Interrupted, MachineError, RequestError, SslError, listing, nearest

HYDRA_WORDS = {
    "pretrain": "train a method without labels; prints the run folder",
    "eval": "measure a run: probe, knn, quality (run=latest, a path, a prefix, or none)",
    "pipeline": "pretrain, then the stages, on one run",
}
PLAIN_WORDS = {
    "resume": "go on with a run: same folder, same configuration, next step",
    "runs": "list runs; show RUN; best METRIC",
    "list": "methods, backbones, datasets, augmentations, evals, experiments",
    "data": "inspect a data set; preview the views a method would see",
    "doctor": "what is installed, which device, what is wrong and how to mend it",
    "completion": "shell completion for bash, zsh or fish",
}
WORDS = HYDRA_WORDS | PLAIN_WORDS

HELP = """\
sslcli: self-supervised learning from the command line

  sslcli pretrain method=simsiam                      digits, a minute on a laptop's processor
  sslcli eval probe labels=10/class seeds=5           what the newest run learned, beside baselines
  sslcli pretrain method=simclr dataset=image_folder dataset.path=photos backbone=resnet18

words
{words}

flags
  -m             sweep: every combination of comma-separated values (method=simsiam,byol seed=0,1)
  --dry-run      compose, check, build, run one batch; print the plan; make no folder
  --cfg job      print the composed configuration
  --json         one JSON object on stdout (eval, runs, list, doctor)
  --config-dir D a folder with YAML files (and Python modules) of your own
  -q, -v         errors only; more detail
  --version, --help (also after a word)

Results go to stdout, everything else to stderr. Runs go to runs/ (or $SSLCLI_RUNS).
"""

WORD_HELP = {
    "pretrain": """\
sslcli pretrain: train a method without labels; the last line on stdout is the run folder

  run=$(sslcli pretrain method=byol dataset=cifar10 backbone=resnet18 train.epochs=200)
  sslcli pretrain method=mae dataset=series dataset.path=signals.npz
  sslcli pretrain -m method=simsiam,simclr seed=0,1,2
""",
    "eval": """\
sslcli eval NAME: measure a run's frozen backbone; prints `name value` lines

  sslcli eval probe labels=10/class seeds=5
  sslcli eval knn run=runs/2026-11-22_14-03-09-275925_simsiam_convnet_digits
  sslcli eval knn run=none dataset=cifar10 backbone=resnet18     (an untrained backbone, as baseline)

names: {evals}
keys: run=latest|PATH|PREFIX|none  labels=all|1%|100|10/class  seeds=N (draws of the labels)
""",
    "pipeline": """\
sslcli pipeline: pretrain, then each stage, on one run

  sslcli pipeline method=simclr stages=[probe,knn] labels=1% seeds=5
""",
    "resume": """\
sslcli resume RUN: go on with an interrupted run, bit for bit as if it had not been interrupted

  sslcli resume latest
  sslcli resume 2026-11-22_14-03

To start a new run from a run's weights instead: sslcli pretrain init=RUN
""",
    "runs": """\
sslcli runs: what is in the runs folder

  sslcli runs                      a line each
  sslcli runs show RUN             one, with its numbers
  sslcli runs best probe.top1 -n 5 the best by a measured number
""",
    "list": "sslcli list KIND: {kinds}\n",
    "data": """\
sslcli data inspect|preview: look before you train

  sslcli data inspect dataset=image_folder dataset.path=photos [--strict]
  sslcli data preview method=simclr dataset=cifar10 [out=views.png]
""",
    "doctor": "sslcli doctor [--json]: what is installed, which device, what is wrong and how to mend it\n",
    "completion": """\
sslcli completion SHELL: prints a completion script

  eval "$(sslcli completion bash)"        in ~/.bashrc
  eval "$(sslcli completion zsh)"         in ~/.zshrc
  sslcli completion fish | source         in ~/.config/fish/config.fish
""",
}

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
    "--config-path",
    "--config-name",
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
        return "-m" in self.flags or "--multirun" in self.flags

    @property
    def config_dirs(self) -> list[Path]:
        return [Path(v) for f, v in zip(self.flags, self.flags[1:], strict=False) if f in ("--config-dir", "-cd")]

    def asks(self, *names: str) -> bool:
        return any(n in self.flags for n in names)


def parse(argv: list[str]) -> Request:
    """Words, `key=value`, flags, in any order. RequestError on a flag nobody knows."""
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
            raise RequestError(
                f"there is no flag {word}", f"did you mean {close}?" if close else "sslcli --help shows them"
            )
        elif "=" in word or word.startswith(("~", "+")):
            request.overrides.append(quoted_path(word, sweep="-m" in argv or "--multirun" in argv))
        else:
            request.words.append(word)
    return request


def quoted_path(word: str, sweep: bool) -> str:
    """A path may hold commas, brackets, quotes, equal signs: quoted here, so that nobody has to know Hydra's grammar."""
    key, _, value = word.partition("=")
    is_path = key in ("run", "init") or key.endswith(".path")
    plain = (
        all(c.isascii() and (c.isalnum() or c in "/._-~ ") for c in value)
        and value == value.strip()
        and not value.startswith("~")
    )
    if not is_path or not value or plain or "${" in value or value[0] in "'\"" or (sweep and "," in value):
        return word
    escaped = value.replace("'", "\\'")
    return f"{key}='{escaped}'"


def _is_number(word: str) -> bool:
    return word[1:].replace(".", "", 1).isdigit()


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; every error of a user's becomes `error: ...` and `hint: ...` on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return dispatch(argv)
    except SslError as e:
        console.error(e)
        return e.code
    except KeyboardInterrupt:
        console.error(Interrupted("interrupted"))
        return Interrupted.code
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        console.error(MachineError("out of memory", "use a smaller train.batch_size or data set"))
        return MachineError.code
    except Exception:
        import traceback

        traceback.print_exc()
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
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(help_text(argv[1] if len(argv) > 1 and argv[0] == "help" else None), end="")
        return 0
    if argv[0] in ("--version", "-V"):
        print(f"sslcli {__version__}")
        return 0
    word, *rest = argv
    if word not in WORDS:
        close = nearest(word, WORDS)
        raise RequestError(
            f"there is no word `{word}`", f"did you mean `sslcli {close}`?" if close else f"words: {', '.join(WORDS)}"
        )
    if word in ("runs", "list", "doctor", "completion", "resume"):
        from importlib import import_module

        command: Callable[[Request], int] = import_module(f"sslcli.commands.{word}").main
        request = parse_plain(word, rest)
        if request.help:
            print(help_text(word), end="")
            return 0
        return command(request)
    request = parse(rest)
    if request.help:
        print(help_text(word), end="")
        return 0
    if console.flag(console.VERBOSE):
        more_talk()
    for folder in request.config_dirs:
        take_config_dir(folder)
    if word == "data":
        from sslcli.commands import data

        return data.main(request)
    return hand_over(word, request)


def parse_plain(word: str, rest: list[str]) -> Request:
    """Plain words also know `-n N`."""
    request = parse(rest)
    if word not in ("runs",) and request.overrides and word != "resume":
        raise RequestError(f"`sslcli {word}` takes no {request.overrides[0]}", f"sslcli {word} --help")
    return request


def hand_over(word: str, request: Request) -> int:
    """Everything is checked first (no folder is made for a wrong request); then Hydra takes over."""
    from importlib import import_module

    if word == "eval":
        name_evaluator(request)
    elif request.words:
        raise stray(request.words[0], word)
    module = import_module(f"sslcli.commands.{word}")
    looks_only = request.asks("--cfg", "-c", "--info", "-i", "--hydra-help")
    if not request.multirun and not looks_only:
        from sslcli import compose

        cfg = compose.compose(word, request.overrides, request.config_dirs)
        warn_shadowed(request.config_dirs)
        if request.dry_run:
            return module.dry_run(cfg)
        module.preview(cfg)
    elif request.dry_run:
        raise RequestError("--dry-run takes one job, not a sweep", "leave out -m, or the commas")
    return run_hydra(word, module.run, request)


def run_hydra(word: str, task: Callable[..., object], request: Request) -> int:
    """The real hydra.main, with its failures in our words."""
    import warnings

    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from sslcli import commands, compose, config, explain

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    config.register()
    search = compose.search_override([])
    sys.argv = ["sslcli", *request.flags, *search, *request.overrides]
    commands.failures.clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            hydra.main(version_base="1.3", config_path=str(config.config_dir()), config_name=word)(task)()
    except (HydraException, OmegaConfBaseException) as e:
        raise explain.explain(e, word, request.overrides, request.config_dirs) from None
    except KeyboardInterrupt:
        if not commands.failures:
            raise
    return commands.failures[0].code if commands.failures else 0


def name_evaluator(request: Request) -> None:
    """`eval probe` -> evaluator=probe."""
    from sslcli import config, explain

    names = {n: p for n, p in config.choices("evaluator", request.config_dirs).items() if n != "online"}
    if len(request.words) > 1:
        raise stray(request.words[1], "eval")
    if request.words:
        for name in request.words[0].split(","):
            if name not in names:
                raise explain.unknown_choice("evaluator", name, names)
        request.overrides.insert(0, f"evaluator={request.words[0]}")
    elif not any(o.startswith("evaluator=") for o in request.overrides):
        raise RequestError("eval what?", f"sslcli eval NAME, with NAME one of {listing(sorted(names))}")


def stray(text: str, word: str) -> RequestError:
    """A bare word where key=value is wanted: say which group has it."""
    from sslcli import config

    for group in config.GROUPS:
        if text in config.choices(group):
            return RequestError(f"`{text}` needs its key", f"did you mean {group}={text}?")
    return RequestError(f"`{text}` is not key=value", f"sslcli {word} --help")


def take_config_dir(folder: Path) -> None:
    """--config-dir: the YAML is looked at for size and aliases, and modules in the folder may be named."""
    from sslcli import build, config

    if not folder.is_dir():
        raise RequestError(f"--config-dir {folder}: there is no such folder")
    config.check_foreign_yaml(folder)
    build.trust_folder(folder)


def warn_shadowed(folders: list[Path]) -> None:
    """Hydra puts our folder first: a user's YAML of a name that we have would be ignored in silence."""
    from sslcli import config

    for folder in folders:
        for group in config.GROUPS:
            ours = config.choices(group)
            for path in (folder / group).glob("*.yaml"):
                if path.stem in ours:
                    console.warn(
                        f"{path} is not used: {group}={path.stem} is a choice of sslcli's own", "give it another name"
                    )


# -------------------------------------------------------------------------------------------------------------------- help


def help_text(word: str | None) -> str:
    if word is None or word not in WORDS:
        width = max(len(w) for w in WORDS)
        return HELP.format(words="\n".join(f"  {w.ljust(width)}  {text}" for w, text in WORDS.items()))
    from sslcli import config

    text = WORD_HELP[word]
    if "{evals}" in text:
        text = text.replace("{evals}", ", ".join(sorted(set(config.choices("evaluator")) - {"online"})))
    if "{kinds}" in text:
        text = text.replace("{kinds}", ", ".join(config.KINDS))
    if word in HYDRA_WORDS:
        text += group_help(word)
    return text


def group_help(word: str) -> str:
    """The groups with their choices, and the keys of train and device with their comments, read from the YAML files."""
    from sslcli import config

    lines = ["", "groups (GROUP=CHOICE)"]
    for group in config.GROUPS:
        names = sorted(config.choices(group))
        if names:
            lines.append(f"  {group.ljust(13)} {', '.join(names)}")
    for group, name in (("train", "default"), ("device", "auto")):
        lines += ["", f"{group} keys"]
        for line in (config.config_dir() / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
            key, _, rest = line.partition(":")
            value, _, comment = rest.partition("#")
            lines.append(f"  {f'{group}.{key}={value.strip()}'.ljust(28)} {comment.strip()}")
    lines += ["", f"also: seed, init; sslcli {word} --cfg job shows every key; --hydra-help shows Hydra's flags", ""]
    return "\n".join(lines)
