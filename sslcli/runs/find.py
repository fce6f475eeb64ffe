"""Run folders below the runs folder: list them, find one by its name, and the commands that continue one or start from it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from sslcli.config import registry
from sslcli.config.overrides import as_typed
from sslcli.errors import RequestError, command, listing, nearest
from sslcli.runs import records
from sslcli.runtime.folders import runs_root

DEPTH = 3  # of a run below the runs folder, at most: runs/sweep/NAME/JOB


def all_runs(root: Path | None = None) -> list[Path]:
    """Run folders below the root, also those in sweeps and in user-created folders, oldest first."""
    run_folders: list[Path] = []
    level = [root or runs_root()]
    for _ in range(DEPTH):
        inner = [path for folder in level for path in _folders(folder)]
        run_folders += (runs := [p for p in inner if os.path.isfile(p / "status.json")])
        level = sorted(set(inner) - set(runs))
    return sorted(run_folders, key=lambda p: (created(p), p.name))


def _folders(folder: Path) -> list[Path]:
    """The subfolders of a folder, without links and hidden ones."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError:
        if folder == runs_root():
            raise
        return []
    return [folder / name for name in names]


RESERVED = ("latest", "none")  # values of `run=` that are not names of runs


def short_name(path: Path) -> str:
    """The name of a run for the command line: its path below the runs folder, or its full path if it is elsewhere. Where
    the name alone means something else (a reserved word, a flag, another run here), the runs folder stands before it."""
    full = path.resolve()
    name = os.path.relpath(full, runs_root().resolve())
    if name.startswith(os.pardir):
        return str(full)
    other = Path(name, "status.json").is_file() and Path(name).resolve() != full
    return str(runs_root() / name) if other or name in RESERVED or name.startswith("-") else name


def run_command(run: Path, *words: object) -> str:
    """A command about a run, with a --config-dir for each folder that it was trained with. The folders are only printed: a run may
    come from anyone, and code becomes importable when a user types its folder."""
    flags = [word for folder in config_dirs(run) for word in ("--config-dir", folder)]
    return command(*words, *flags)


def config_dirs(run: Path) -> list[str]:
    """The folders of --config-dir that a run was trained with, relative to the working folder where they are below it. Those
    in the run folder are left out: their code comes from whoever the run comes from."""
    recorded = [os.path.abspath(folder) for folder in records.status(run).get("config_dirs", [])]
    here, inside = os.getcwd(), os.path.realpath(run) + os.sep
    outside = [f for f in recorded if not (os.path.realpath(f) + os.sep).startswith(inside)]
    return [os.path.relpath(f, here) if f.startswith(here + os.sep) else f for f in outside]


def resume_command(run: Path, *words: object) -> str:
    """`sslcli resume RUN`."""
    return run_command(run, "resume", run, *words)


def restart_command(run: Path, init: object, *changes: str) -> str:
    """The command that starts a new run like this one from the weights `init`: with its overrides, except those of keys that
    `changes` set."""
    words, name = records.request(run)
    keys = [change.lstrip("+").partition("=")[0] for change in changes]
    dropped = ("resume", "init", "hydra", "hydra/", "stages", *keys)
    kept = [
        as_typed(word)
        for word in words
        if not any(_is_key_of(word.lstrip("+~").partition("=")[0], parent) for parent in dropped)
    ]
    chosen = any(word.startswith("backbone=") for word in (*kept, *changes))
    if not words or (
        not chosen and any(word.startswith("init=") for word in words)
    ):  # which may have had its own backbone
        backbone = records.encoder(run).get("backbone") or {}
        kept = [word for word in kept if not word.startswith("backbone.")] + registry.backbone_overrides(backbone)
    return run_command(run, "pretrain" if name != "pipeline" else name, f"init={init}", *kept, *changes)


def _is_key_of(key: str, parent: str) -> bool:
    return key == parent or key.startswith((f"{parent}.", f"{parent}/"))


def created(path: Path) -> str:
    return str(records.status(path).get("created", ""))


def find(spec: str, root: Path | None = None) -> Path:
    """A run by path, by `latest`, or by a unique prefix (or part) of its name. RequestError otherwise."""
    root = root or runs_root()
    runs = all_runs(root)
    if spec == "latest":
        if not runs:
            raise RequestError(f"there is no run in {root}/ yet", "sslcli pretrain makes one")
        return runs[-1]
    direct = Path(spec).expanduser()
    if (direct / "status.json").is_file():
        return direct.resolve() if direct.is_symlink() else direct
    if spec and (root / spec / "status.json").is_file():
        return root / spec
    if direct.is_file() and (direct.parent / "status.json").is_file():
        raise RequestError(f"{spec} is a file in a run", f"did you mean {shlex.quote(f'run={direct.parent}')}?")
    if (direct / "encoder.json").is_file():
        raise RequestError(
            f"{spec} holds an encoder that was exported, and no run",
            "sslcli pretrain init=FOLDER takes it; what is measured is a run (`sslcli runs` lists them)",
        )
    names = {str(p.relative_to(root)): p for p in runs}  # of a sweep's run with the sweep
    begins = [name for name, p in names.items() if p.name.startswith(spec) or name.startswith(spec)]
    hits = begins or [name for name in names if spec and spec in name]
    if len(hits) == 1:
        return names[hits[0]]
    if hits:
        more = "give more of the name; a run of a sweep is named sweep/SWEEP/RUN"
        raise RequestError(f"`{spec}` fits {len(hits)} runs: {listing(hits, 5)}", more)
    close = nearest(spec, [name for name in names if of_same_data(spec, name)])
    raise RequestError(
        f"there is no run `{spec}` in {root}/", f"did you mean `{close}`?" if close else "`sslcli runs` lists them"
    )


def of_same_data(spec: str, name: str) -> bool:
    """Whether a mistyped name may mean this run: its last word, the data set, is the same. Most of a name is the time, so that
    names of runs of other data are alike."""
    words, others = spec.split("_"), name.split("_")
    return len(words) < 3 or nearest(words[-1], others[-1:]) is not None


def link_latest(path: Path) -> None:
    """runs/latest -> the newest run. A convenience for the user; sslcli itself does not read it."""
    root = runs_root()
    link = root / "latest"
    try:
        target = os.path.relpath(path.resolve(), root.resolve())
        temporary = root / f".latest-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        os.replace(temporary, link)
    except OSError:  # a file system without links, or a real folder of that name: not worth failing for
        return
