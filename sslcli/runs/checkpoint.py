"""Checkpoints: atomic folders, verified by SHA-256 on every read.

    checkpoints/step-0000001234/{model,ema,optimizer}.safetensors state.json manifest.json

Written as .tmp-*, each file flushed to disk, the manifest last, then one rename and a flush of the parent: a kill at any
instant leaves the previous checkpoint or the new one. No pickle: tensors in safetensors, the rest in JSON. The newest
folder that verifies is authoritative; `last.json` is informative only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslcli import __version__
from sslcli.config import typecheck
from sslcli.errors import RequestError, StorageError, TrainingError, listing
from sslcli.runs import Record
from sslcli.runs.files import (
    PHYSICAL_MEMORY,
    checked,
    digest,
    parse,
    read_file,
    size_of,
    sync_folder,
    write_file,
    write_json,
)
from sslcli.runs.redact import redacted
from sslcli.runs.safetensors_file import corrupt_safetensors, safetensors

FORMAT = 1
ANOTHER = "was it made with another method or backbone?"
ROOM = 2.2  # free space required before a save, as a multiple of the size of the checkpoint


# ------------------------------------------------------------------------------------------------------------------- save


def save(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], keep: int = 2) -> Path:
    """Writes checkpoints/step-N. StorageError on any failure, which leaves earlier checkpoints intact."""
    target = folder / f"step-{step:010d}"
    temporary = folder / f".tmp-{step:010d}-{os.getpid()}"
    try:
        if folder.is_symlink():
            raise StorageError(f"{folder} is a symbolic link, which is not followed")
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync_folder(folder.parent)
        _need_room(folder, tensors)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        files = {
            f"{name}.safetensors": write_file(temporary / f"{name}.safetensors", safetensors(group))
            for name, group in tensors.items()
            if group
        }
        text = json.dumps(redacted({"step": step, **state}), indent=1)
        files["state.json"] = write_file(temporary / "state.json", [text.encode()])
        manifest = {"format": FORMAT, "sslcli": __version__, "step": step, "files": files}
        text = json.dumps({**manifest, "sha256": _own_hash(manifest)}, indent=1)
        write_file(temporary / "manifest.json", [text.encode()])
        sync_folder(temporary)
        if target.exists():
            _set_aside(target)
        os.rename(temporary, target)
        sync_folder(folder)
        prune(folder, keep)
        write_json(folder, "last.json", {"step": step, "folder": target.name}, indent=None)
    except Exception as e:  # torch and the file system raise different errors for a full disk
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(e, "strerror", None) or getattr(e, "message", None) or str(e)
        raise StorageError(f"cannot save checkpoint {target.name}: {reason}{_free(folder)}") from e
    return target


def _need_room(folder: Path, tensors: dict[str, dict[str, Tensor]]) -> None:
    size = sum(t.numel() * t.element_size() for group in tensors.values() for t in group.values())
    if shutil.disk_usage(folder).free < ROOM * size:
        raise StorageError(f"it takes {size / 2**20:,.1f} MB, and {ROOM} times that must be free")


def _free(folder: Path) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free / 2**20:,.1f} MB free)"
    except OSError:  # the folder could not be created
        return ""


def _own_hash(manifest: Record) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _set_aside(path: Path) -> None:
    os.rename(path, path.with_name(f".bad-{path.name}-{time.time_ns()}"))


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints, and never one of the newest two valid ones.

    A folder is renamed before it is deleted, so that a partly deleted one is not taken for a checkpoint."""
    _newest, *older = existing(folder)
    good = 1
    for i, path in enumerate(older, start=1):
        if i >= keep and good >= 2:
            trash = folder / f".trash-{path.name}-{os.getpid()}"
            os.rename(path, trash)
            shutil.rmtree(trash, ignore_errors=True)
        elif good < 2 and len(older) >= keep:  # read only when something is to be removed
            good += verify(path) is None


def clean(folder: Path) -> None:
    """Removes temporary files that a killed process left here and in the run folder. Requires the lock of the run."""
    for left in [*folder.glob(".tmp-*"), *folder.glob(".trash-*")]:
        shutil.rmtree(left, ignore_errors=True)
    for left in [*folder.glob(".*.tmp"), *folder.parent.glob(".*.tmp")]:
        with contextlib.suppress(OSError):  # a read-only folder: the next save reports it
            left.unlink()


# ------------------------------------------------------------------------------------------------------------------- load


def existing(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first. TrainingError where `folder` is a symbolic link."""
    if folder.is_symlink():
        raise TrainingError(f"{folder} is a symbolic link, which is not followed", "put the folder itself in its place")
    matches = (p for p in folder.glob("step-*") if re.fullmatch(r"step-\d{10,18}", p.name))
    return sorted((p for p in matches if p.is_dir() and not p.is_symlink()), reverse=True)


def step_of(saved: Path) -> int:
    return int(saved.name.partition("-")[2])


FILE = re.compile(r"(state\.json|\w+\.safetensors)")  # of a checkpoint
ABOUT = {"bytes": int, "sha256": str}  # entries of the manifest for each file
MANIFEST: dict[str, Any] = {"format": int, "step": int, "files": dict[str, dict[str, Any]]}


def read_manifest(path: Path) -> Record | str:
    """The manifest of a checkpoint, or what is wrong with it. RequestError for a newer format."""
    try:
        manifest = parse(read_file(path, "manifest.json"))
    except FileNotFoundError:
        return "manifest.json is missing"
    except OSError as e:
        return f"manifest.json cannot be read ({e.strerror})"
    if not manifest:
        return "manifest.json cannot be read (no JSON object)"
    if manifest.pop("sha256", None) != _own_hash(manifest):
        return "manifest.json does not match its own SHA-256"
    if typecheck.matches_type(manifest.get("format"), int) and manifest["format"] > FORMAT:
        raise RequestError(
            f"{path} was written by sslcli {manifest.get('sslcli')} (checkpoint format {manifest['format']}; "
            f"this is {__version__}, which reads up to format {FORMAT})",
            "upgrade sslcli",
        )
    files: Record = manifest.get("files", {})
    if (
        not all(typecheck.matches_type(manifest.get(key), kind) for key, kind in MANIFEST.items())
        or not {"model.safetensors", "state.json"} <= files.keys()
        or not all(FILE.fullmatch(name) for name in files)
        or not all(typecheck.matches_type(about.get(k), kind) for about in files.values() for k, kind in ABOUT.items())
    ):
        return "manifest.json is incomplete"
    if path.name != f"step-{manifest['step']:010d}":
        return f"it holds step {manifest['step']}"
    return manifest


def verify(path: Path) -> str | None:
    """None where all files match the manifest, else what is wrong. RequestError for a newer format."""
    manifest = read_manifest(path)
    if isinstance(manifest, str):
        return manifest
    for name, expected in manifest["files"].items():
        try:
            size = size_of(path, name)
            if size is not None and size != expected["bytes"]:
                return f"{name} has {size:,} bytes of {expected['bytes']:,}"
            if size is not None and size > PHYSICAL_MEMORY:
                return f"{name} has {size:,} bytes, more than this machine's memory"
            if digest(path, name) != expected["sha256"]:
                return f"{name} does not match its SHA-256"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as e:
            return f"{name} cannot be read ({e.strerror})"
    return None


def load_newest(
    folder: Path,
    on_bad: Callable[[Path, str], None] | None = None,
    check: Callable[[dict[str, Any]], str | None] = lambda state: None,
) -> tuple[dict[str, dict[str, Tensor]], Record] | None:
    """The newest checkpoint that verifies, with a state that passes `check` (which returns what is wrong with one):
    (tensors by file, state). None when there is none at all.

    A newer one that does not is passed to `on_bad` and renamed .bad-*. TrainingError, and nothing renamed, when all are bad."""
    bad: dict[Path, str] = {}
    for path in existing(folder):
        reason = verify(path)
        if reason is None:
            try:
                tensors, state = load(path)
                reason = check(state)
            except TrainingError as e:
                reason = e.message
        if reason is not None:
            bad[path] = reason
            continue
        for worse, why in bad.items():
            _set_aside(worse)
            if on_bad:
                on_bad(worse, why)
        return tensors, state
    if bad:
        raise TrainingError(
            f"no valid checkpoint in {folder} ({listing([f'{p.name}: {why}' for p, why in bad.items()], 5)})",
            "start a new run with sslcli pretrain",
        )
    return None


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], Record]:
    """The files that the manifest lists, as (tensors by file, state). TrainingError where it is corrupt or was removed."""
    from safetensors.torch import load_file

    manifest = read_manifest(path)
    if isinstance(manifest, str):
        raise TrainingError(f"{path} cannot be loaded: {manifest}", GONE)
    names = sorted(manifest["files"])
    try:
        with corrupt_safetensors(path):
            tensors = {Path(n).stem: load_file(checked(path, n)) for n in names if n.endswith(".safetensors")}
        state = parse(read_file(path, "state.json"))
    except OSError as e:
        raise TrainingError(f"{path} cannot be loaded: {e.strerror or e}", GONE) from None
    if state.get("step") != manifest["step"]:
        raise TrainingError(f"{path / 'state.json'} does not hold the state of step {manifest['step']:,}")
    return tensors, state


GONE = "a run that is being trained removes old checkpoints: train.keep=10 keeps more of them"


# ------------------------------------------------------------------------------------------------------------ into a model


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], what: str, hint: str = ANOTHER) -> None:
    """Loads a state dict with equal keys and shapes. TrainingError that lists the first ten differences."""
    expected = module.state_dict()
    missing = [k for k in expected if k not in tensors]
    unexpected = [k for k in tensors if k not in expected]
    shapes = [
        f"{k} {tuple(tensors[k].shape)} for {tuple(expected[k].shape)}"
        for k in expected
        if k in tensors and tensors[k].shape != expected[k].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{len(keys)} {word}: {listing(keys, 10)}"
            for word, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
            if keys
        ]
        raise TrainingError(f"{what} does not fit this model: {'; '.join(parts)}", hint)
    with torch.no_grad():
        for key, value in expected.items():
            value.copy_(tensors[key])
