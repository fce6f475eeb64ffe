"""Checkpoints: a folder that is whole or absent, checked by SHA-256 whenever it is read.

    checkpoints/step-0000001234/{model,ema,optimizer}.safetensors state.json manifest.json

Written as .tmp-*, each file flushed to disk, the manifest last, then one rename and a flush of the parent: a kill at any
instant leaves the previous checkpoint or the new one. No pickle: tensors in safetensors, the rest in JSON. The newest
folder that verifies is the truth; `last.json` is a hint for people.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.errors import StorageError, TrainingError, listing
from sslcli.run import replace_file

FORMAT = 1


# ------------------------------------------------------------------------------------------------------------------- save


def save(folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], keep: int = 2) -> Path:
    """Writes checkpoints/step-N. StorageError on any failure, which leaves earlier checkpoints as they were."""
    target = folder / f"step-{step:010d}"
    temporary = folder / f".tmp-{step:010d}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        files = {}
        for name, group in tensors.items():
            if group:
                files[f"{name}.safetensors"] = _write(temporary / f"{name}.safetensors", _serialize(group))
        files["state.json"] = _write(temporary / "state.json", json.dumps({"step": step, **state}, indent=1).encode())
        manifest = {"format": FORMAT, "step": step, "files": files}
        _write(temporary / "manifest.json", json.dumps(manifest, indent=1).encode())
        _sync(temporary)
        if target.exists():
            os.rename(target, folder / f".bad-{target.name}-{os.getpid()}")
        os.rename(temporary, target)
        _sync(folder)
        replace_file(folder / "last.json", json.dumps({"step": step, "folder": target.name}) + "\n")
    except Exception as e:  # safetensors and torch word a full disk each in their own way: any failure is a failed save
        shutil.rmtree(temporary, ignore_errors=True)
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free / 2**20
        reason = getattr(e, "strerror", None) or getattr(e, "message", None) or str(e)
        raise StorageError(f"cannot save checkpoint {target.name}: {reason} ({free:,.0f} MB free)") from e
    prune(folder, keep)
    return target


def _serialize(group: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save as dump

    # Contiguous and on the CPU; clones, since safetensors refuses tensors that share memory (tied weights).
    return dump({k: v.detach().to("cpu", copy=True).contiguous() for k, v in group.items()})


def _write(path: Path, content: bytes) -> dict[str, Any]:
    with open(path, "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep`; renamed first, so that a half-deleted one is never taken for a checkpoint."""
    for old in existing(folder)[keep:]:
        trash = folder / f".trash-{old.name}-{os.getpid()}"
        os.rename(old, trash)
        shutil.rmtree(trash, ignore_errors=True)


def clean(folder: Path) -> None:
    """Sweeps up what a killed process left. Only with the run's lock held."""
    for pattern in (".tmp-*", ".trash-*"):
        for left in folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------------------- load


def existing(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted((p for p in folder.glob("step-*") if p.is_dir()), reverse=True)


def verify(path: Path) -> str | None:
    """None when every byte is as written; else what is wrong."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        files = manifest["files"]
        if manifest.get("format", 0) > FORMAT:
            return f"written by a newer sslcli (format {manifest['format']})"
        for name, expected in files.items():
            content = (path / name).read_bytes()
            if len(content) != expected["bytes"]:
                return f"{name} has {len(content):,} bytes of {expected['bytes']:,}"
            if hashlib.sha256(content).hexdigest() != expected["sha256"]:
                return f"{name} does not match its SHA-256"
    except FileNotFoundError as e:
        return f"{Path(str(e.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as e:
        return f"manifest.json cannot be read ({type(e).__name__})"
    return None


def load_newest(
    folder: Path, on_bad: Callable[[Path, str], None] | None = None
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """The newest checkpoint that verifies: (tensors by file, state). None when there is none at all.

    A bad one is set aside as .bad-*, told to `on_bad`, and the next older is tried. TrainingError when all are bad."""
    reasons = []
    for path in existing(folder):
        reason = verify(path)
        if reason is None:
            return load(path)
        reasons.append(f"{path.name}: {reason}")
        os.rename(path, path.with_name(f".bad-{path.name}-{os.getpid()}"))
        if on_bad:
            on_bad(path, reason)
    if reasons:
        raise TrainingError(
            f"no checkpoint in {folder} verifies ({listing(reasons, 5)})", "start anew with sslcli pretrain"
        )
    return None


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    from safetensors.torch import load_file

    tensors = {p.stem: load_file(p) for p in sorted(path.glob("*.safetensors"))}
    return tensors, json.loads((path / "state.json").read_bytes())


# ----------------------------------------------------------------------------------------------------- optimizer as tensors


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: dict[int, str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State as `parameter-name/slot` tensors, and the plain numbers apart. `names`: id(parameter) -> name."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, slots in optimizer.state.items():
        for slot, value in slots.items():
            key = f"{names[id(parameter)]}/{slot}"
            if isinstance(value, Tensor):
                tensors[key] = value
            elif value is not None:
                numbers[key] = value
    return tensors, numbers


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[int, str], tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> None:
    """The inverse, into freshly built parameters, whatever their order."""
    by_name = {names[id(p)]: p for group in optimizer.param_groups for p in group["params"]}
    for key, value in {**tensors, **numbers}.items():
        name, _, slot = key.rpartition("/")
        parameter = by_name[name]
        if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim():
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)  # the parameter's memory format
        optimizer.state[parameter][slot] = value


def parameter_names(module: nn.Module) -> dict[int, str]:
    return {id(p): n for n, p in module.named_parameters()}


def load_strictly(module: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Every key there, none more, every shape equal; else TrainingError with the first ten differences."""
    own = module.state_dict()
    missing = [k for k in own if k not in tensors]
    unexpected = [k for k in tensors if k not in own]
    shapes = [
        f"{k} {tuple(tensors[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in tensors and tensors[k].shape != own[k].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{len(keys)} {word}: {listing(keys, 10)}"
            for word, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
            if keys
        ]
        raise TrainingError(
            f"{what} does not fit this model: {'; '.join(parts)}", "was it made with another method or backbone?"
        )
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(tensors[key])
