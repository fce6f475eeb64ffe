"""sslcli completion SHELL: words, names, groups and keys, from the YAML files alone (no torch, no Hydra)."""

from __future__ import annotations

from typing import Any

from sslcli.cli.main import HYDRA_WORDS, WORDS, Request
from sslcli.config import registry
from sslcli.errors import RequestError, nearest
from sslcli.evals.metrics.ranking import METRICS

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
  local -a found
  found=("${(@f)$(sslcli completion query "${BUFFER[1,$CURSOR]}" 2>/dev/null)}")
  compadd -S '' -- $found
}
compdef _sslcli sslcli
""",
    "fish": """\
complete -c sslcli -f -a '(sslcli completion query (commandline -cp) 2>/dev/null)'
""",
}


def main(request: Request) -> int:
    if len(request.words) != 1 or request.words[0] not in SCRIPTS:
        close = nearest(request.words[0], SCRIPTS) if request.words else None
        raise RequestError("completion for which shell?", f"sslcli completion {close or '|'.join(SCRIPTS)}")
    print(SCRIPTS[request.words[0]], end="")
    return 0


def query(line: str) -> int:
    print("\n".join(candidates(line)))
    return 0


def candidates(line: str) -> list[str]:
    """What may follow `line`, the command line up to the cursor."""
    words = line.split(" ")[1:] or [""]
    *before, last = words
    before = [w for w in before if w]
    return sorted(c for c in _possible(before, last) if c.startswith(last))


def _possible(before: list[str], last: str) -> list[str]:
    if not before:
        return [*WORDS, "--help", "--version"]
    word = before[0]
    named = [w for w in before[1:] if not w.startswith("-") and "=" not in w]
    if word == "list":
        return list(registry.KINDS)
    if word == "completion":
        return list(SCRIPTS)
    if word == "runs":
        return ["list", "best", "show", "compare"] if not named else _runs() if named[0] in ("show", "compare") else []
    if word == "select" and "=" not in last:
        return ["latest", *_runs(), "by=", "probe=true"]
    if word == "export":
        return [f"checkpoint={c}" for c in _checkpoints(named)] if "=" in last else ["latest", *_runs(), *EXPORT]
    if word == "resume":
        return ["latest", *_runs()]
    if word == "data" and not named:
        return ["inspect", "pack", "preview"]
    if word == "eval" and not named and "=" not in last:
        return sorted(set(registry.choices("evaluator")) - {"online"})
    if word not in (*HYDRA_WORDS, "data", "select"):
        return []
    key, equals, _ = last.partition("=")
    if equals:
        if key == "run":
            return [f"run={r}" for r in ("latest", "none", *_runs())]
        if key == "init":
            return [f"init={r}" for r in _runs()]
        if key == "by":
            return [f"by={name}" for name in METRICS]
        if key in FIXED:
            return [f"{key}={choice}" for choice in FIXED[key]]
        return [f"{key}={name}" for name in registry.choices(key)] if key in registry.GROUPS else []
    chosen = dict(w.split("=", 1) for w in before if "=" in w)
    if "." in key:
        return [f"{k}=" for k in _keys(key.split(".")[0], chosen)]
    extra = {
        "eval": ["run=", "labels=", "seeds="],
        "pipeline": ["seed=", "init=", "resume=", "stages=", "labels=", "seeds="],
        "bench": ["seed=", "init=", "repeats=", "seconds="],
    }.get(word, ["seed=", "init=", "resume="])
    if "-m" in before:
        extra += [f"{key}=" for key in FIXED if key.startswith("hydra/")]
    return [
        *(f"{g}=" for g in registry.GROUPS),
        *(f"{g}." for g in ("train", "device", "method", "dataset", "optimizer")),
        *extra,
    ]


EXPORT = ("checkpoint=", "out=")
FIXED = {
    "resume": ("auto",),
    "hydra/launcher": ("basic", "joblib", "submitit_local", "submitit_slurm"),
    "hydra/sweeper": ("basic", "optuna"),
}
DEFAULTS = {
    "train": "default",
    "device": "auto",
    "method": "simsiam",
    "dataset": "digits",
    "optimizer": "sgd",
    "backbone": "convnet",
}


def _keys(group: str, chosen: dict[str, str]) -> list[str]:
    """Dotted keys of the choice that stands on the command line, or of the default one."""
    found = registry.choices(group)
    path = found.get(chosen.get(group, DEFAULTS.get(group, "")))
    if path is None:
        return []
    node: dict[str, Any] = registry.describe(path, group)
    inner = node.get(group)
    keys = inner if isinstance(inner, dict) else node
    hidden = {"_target_", "defaults", *registry.FACT_KEYS[""], *registry.FACT_KEYS.get(group, ())}
    return [f"{group}.{k}" for k, v in keys.items() if k not in hidden and not isinstance(v, dict)]


def _runs() -> list[str]:
    from sslcli.runs.find import all_runs

    return [p.name for p in all_runs() if _plain(p.name)]


def _plain(name: str) -> bool:
    """Whether a shell takes a name as it stands. A run may be called `$(rm -rf ~)`, or like a flag: it is not offered."""
    return not name.startswith(("-", "~")) and all(c.isalnum() or c in "_@%+=:,./-~" for c in name)


def _checkpoints(named: list[str]) -> list[str]:
    """`best`, `last`, and the steps of the run that stands on the command line."""
    from sslcli.runs.find import find

    try:
        folder = find(named[0]) / "checkpoints"
    except (IndexError, RequestError):
        return ["best", "last"]
    return ["best", "last", *(str(int(p.name.partition("-")[2])) for p in folder.glob("step-*"))]
