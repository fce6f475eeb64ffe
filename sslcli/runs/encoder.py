"""The encoder of a run: encoder.safetensors (weights of the backbone) and encoder.json (how to build it).

The same two files, in a folder of their own, are what `sslcli export` writes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sslcli.config import instantiate, registry
from sslcli.errors import RequestError, TrainingError, command
from sslcli.runs import checkpoint, records
from sslcli.runs.files import PHYSICAL_MEMORY, read_file, replace_file, size_of, write_json
from sslcli.runs.find import find


def locate_encoder(spec: str) -> Path:
    """Where an encoder lies: a folder that `sslcli export` wrote, or a run (`find`)."""
    folder = Path(spec).expanduser()
    return folder if (folder / "encoder.json").is_file() else find(spec)


def write_encoder(folder: Path, weights: dict[str, Tensor], info: dict[str, Any]) -> None:
    """encoder.safetensors + encoder.json: the backbone alone, and how to build it (`info`, to which the SHA-256 is added)."""
    written = replace_file(folder, "encoder.safetensors", checkpoint.safetensors(weights))
    write_json(folder, "encoder.json", {**info, "sha256": written["sha256"]})


def read_info(path: Path) -> dict[str, Any]:
    """The encoder.json of a folder. TrainingError where it is absent, or does not say how to build the encoder."""
    again = _rewrite_hint(path)
    if size_of(path, "encoder.safetensors") is None or size_of(path, "encoder.json") is None:
        raise TrainingError(f"{path} has no encoder", again)
    info = records.encoder(path)
    if not records.describes(info):
        raise TrainingError(f"{path / 'encoder.json'} does not say what the encoder is", again)
    return {"step": 0, **info}


def _rewrite_hint(path: Path) -> str:
    """How the encoder in a folder is written again."""
    return f"{command('resume', path) if (path / 'status.json').is_file() else 'sslcli export'} writes it again"


def encoder_bytes(path: Path, info: dict[str, Any]) -> bytes:
    """The content of encoder.safetensors, verified against the SHA-256 in encoder.json. TrainingError."""
    file = path / "encoder.safetensors"
    try:
        content = read_file(path, "encoder.safetensors", PHYSICAL_MEMORY)
    except OSError as e:
        raise TrainingError(f"{file} cannot be read: {e.strerror or e}", _rewrite_hint(path)) from None
    if hashlib.sha256(content).hexdigest() != info["sha256"]:
        raise TrainingError(f"{file} does not match the SHA-256 in encoder.json", _rewrite_hint(path))
    return content


def has_encoder(path: Path) -> bool:
    """Whether a folder holds an encoder that can be loaded."""
    try:
        load_encoder(path)
    except (RequestError, TrainingError):
        return False
    return True


def load_encoder(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The backbone of a run or an exported folder, verified against the SHA-256 in encoder.json. TrainingError when absent or
    damaged."""
    from safetensors.torch import load

    info, file = read_info(path), path / "encoder.safetensors"
    content = encoder_bytes(path, info)
    backbone = instantiate.build("backbone", info["backbone"], input_shape=tuple(info["input_shape"]))
    with checkpoint.lies_are_told(file, _rewrite_hint(path)):
        tensors = load(content)
    checkpoint.load_strictly(backbone, tensors, str(file), _rewrite_hint(path))
    return backbone, {**info, "dim": backbone.dim}


def backbone_overrides(backbone: dict[str, Any]) -> list[str]:
    """What to type for a backbone's configuration: `backbone=NAME`, and the keys in which it differs from that YAML."""
    found: list[list[str]] = []
    for name, path in registry.choices("backbone").items():
        known = registry.describe(path, "backbone")
        if known.get("_target_") == backbone.get("_target_"):
            own = {k: v for k, v in backbone.items() if k not in ("_target_", "summary") and known.get(k) != v}
            found.append([f"backbone={name}", *(f"backbone.{k}={override_value(v)}" for k, v in own.items())])
    return min(found, key=len, default=[])


def override_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
