"""sslcli completion SHELL: completes commands, names, groups and keys from the YAML files alone (no torch, no Hydra)."""

from __future__ import annotations

from collections.abc import Iterable

from sslcli.cli.arguments import Request, subcommand_of
from sslcli.cli.command import Command, Option
from sslcli.cli.command_table import COMMANDS
from sslcli.cli.key_docs import command_keys
from sslcli.config import Config, registry
from sslcli.errors import RequestError

SCRIPTS = {
    "bash": """\
_sslcli() {
  local IFS=$'\\n'
  COMPREPLY=($(sslcli completion query "${COMP_LINE:0:$COMP_POINT}" 2>/dev/null))
  local cut="${COMP_LINE:0:$COMP_POINT}"; cut="${cut##* }"
  if [[ "$cut" == *=* ]]; then COMPREPLY=("${COMPREPLY[@]#"${cut%"${cut##*=}"}"}"); fi
  if [[ ${#COMPREPLY[@]} -eq 1 && ( "${COMPREPLY[0]}" == *= || "${COMPREPLY[0]}" == *. ) ]]; then compopt -o nospace; fi
}
complete -F _sslcli sslcli
""",
    "zsh": """\
autoload -Uz compinit && compinit -C
_sslcli() {
  local -a matches
  matches=("${(@f)$(sslcli completion query "${BUFFER[1,$CURSOR]}" 2>/dev/null)}")
  compadd -S '' -- $matches
}
compdef _sslcli sslcli
""",
    "fish": """\
complete -c sslcli -f -a '(sslcli completion query (commandline -cp) 2>/dev/null)'
""",
}
HYDRA_CHOICES = {
    "hydra/launcher": ("basic", "joblib", "submitit_local", "submitit_slurm"),
    "hydra/sweeper": ("basic", "optuna"),
}
DEFAULT_CHOICES = {
    "train": "default",
    "device": "auto",
    "method": "simsiam",
    "dataset": "digits",
    "optimizer": "sgd",
    "backbone": "convnet",
}
KEY_GROUPS = ("train", "device", "method", "dataset", "optimizer")  # those whose keys are completed


def main(request: Request) -> int:
    print(SCRIPTS[subcommand_of(request, COMMANDS["completion"])], end="")
    return 0


def query(line: str) -> int:
    """Prints the completions of a line, one on each line: the scripts call it."""
    print("\n".join(completions(line)))
    return 0


def completions(line: str) -> list[str]:
    """What may follow `line`, the command line up to the cursor."""
    *before, last = line.split(" ")[1:] or [""]
    before = [argument for argument in before if argument]
    return sorted(c for c in _candidates(before, last) if c.startswith(last))


def _candidates(before: list[str], last: str) -> Iterable[str]:
    """All candidates for the argument that begins with `last`, whatever it begins with."""
    if not before:
        return [*COMMANDS, "--help", "--version"]
    command = COMMANDS.get(before[0])
    if command is None:
        return []
    positional = [a for a in before[1:] if not a.startswith("-") and "=" not in a]
    chosen = dict(a.split("=", 1) for a in before if "=" in a)
    if command.name == "eval" and positional:
        chosen["evaluator"] = positional[0]
    key, equals, _ = last.partition("=")
    options = list(command.options_of(positional[0] if positional else ""))
    if equals:
        return [f"{key}={value}" for value in _values(command, key, options, positional)]
    if "." in key:
        return [f"{k}=" for k in _group_keys(key.split(".")[0], chosen)]
    if command.subcommands and not positional:
        return [s.name for s in command.subcommands]
    if command.name == "eval" and not positional:
        return registry.evaluators()
    names = ["latest", *_runs()] if _takes_run(command, positional) else []
    keys = [f"{o.name}=" for o in options if o.name.isidentifier()]
    if command.hydra:
        keys += [f"{k.name}=" for k in command_keys(command)]
        keys += [f"{group}=" for group in HYDRA_CHOICES if "-m" in before]
    keys += [f"{group}=" for group in command.groups]
    keys += [f"{group}." for group in KEY_GROUPS if group in (*command.groups, *command.shared)]
    keys += ["evaluator."] * (command.name == "eval")
    return [*names, *keys]


def _takes_run(command: Command, positional: list[str]) -> bool:
    """Whether the next positional argument may be a run."""
    if command.name == "runs":
        return positional[0] == "compare" or (positional[0] in ("show", "report") and len(positional) == 1)
    return command.runs and (command.name == "select" or not positional)


def _values(command: Command, key: str, options: list[Option], positional: list[str]) -> Iterable[str]:
    if key == "checkpoint":
        return _checkpoints(positional)
    if key == "run":
        return ["latest", "none", *_runs()]
    if key == "init":
        return _runs()
    if key == "resume" and any(k.name == "resume" for k in command_keys(command)):
        return ["auto"]
    if key in HYDRA_CHOICES:
        return HYDRA_CHOICES[key]
    if option := next((o for o in options if o.name == key), None):
        return option.choices
    return registry.choices(key) if key in registry.GROUPS and command.overrides else []


def _group_keys(group: str, chosen: dict[str, str]) -> list[str]:
    """Dotted keys of a group: of its choice on the command line, or of its default choice."""
    path = registry.choices(group).get(chosen.get(group, DEFAULT_CHOICES.get(group, "")))
    if path is None:
        return []
    node: Config = registry.describe(path, group)
    inner = node.get(group)
    keys = inner if isinstance(inner, dict) else node
    hidden = {"_target_", "defaults", *registry.FACT_KEYS[""], *registry.FACT_KEYS.get(group, ())}
    return [f"{group}.{k}" for k, v in keys.items() if k not in hidden and not isinstance(v, dict)]


def _runs() -> list[str]:
    from sslcli.runs.find import all_runs

    return [path.name for path in all_runs() if _is_plain(path.name)]


def _is_plain(name: str) -> bool:
    """Whether a shell takes a name literally. A run may be called `$(rm -rf ~)`, or like a flag: it is not a candidate."""
    return not name.startswith(("-", "~")) and all(c.isalnum() or c in "_@%+=:,./-~" for c in name)


def _checkpoints(positional: list[str]) -> list[str]:
    """`best`, `last`, and the steps of the run on the command line."""
    from sslcli.runs.find import find

    try:
        folder = find(positional[0]) / "checkpoints"
    except (IndexError, RequestError):
        return ["best", "last"]
    return ["best", "last", *(str(int(path.name.partition("-")[2])) for path in folder.glob("step-*"))]
