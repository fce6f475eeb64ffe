"""The encoder of a run: encoder.safetensors (weights of the backbone) and encoder.json (how to build it).

With preprocessor/, which converts the samples of a user, they are what `sslcli export` writes into a folder of their own.
Format 1 of encoder.json held the mean and the standard deviation of the channels, and no preprocessor.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from sslcli.config import Config, instantiate
from sslcli.errors import RequestError, StorageError, TrainingError
from sslcli.nn.values import Values
from sslcli.nn.values_json import values_from_json
from sslcli.runs import Record, checkpoint, records
from sslcli.runs.files import (
    PHYSICAL_MEMORY,
    digest,
    hash_files,
    make_folder,
    read_file,
    replace_file,
    size_of,
    sync_folder,
    write_json,
)
from sslcli.runs.find import find, resume_command
from sslcli.runs.safetensors_file import corrupt_safetensors, safetensors

FILES = ("encoder.safetensors", "encoder.json")
PREPROCESSOR = "preprocessor"  # the folder of its files
FORMAT = 2


def locate_encoder(spec: str) -> Path:
    """The folder of an encoder: one that `sslcli export` wrote, or a run (see `find`)."""
    folder = Path(spec).expanduser()
    return folder if (folder / "encoder.json").is_file() else find(spec)


# ------------------------------------------------------------------------------------------------------------------ write


def write_preprocessor(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files of a preprocessor; one with the same content is left. StorageError."""
    try:
        make_folder(folder, PREPROCESSOR)
        for name, content in files.items():
            path = f"{PREPROCESSOR}/{name}"
            if size_of(folder, path) != len(content) or digest(folder, path) != hashlib.sha256(content).hexdigest():
                replace_file(folder, path, [content])
    except OSError as e:
        raise StorageError(f"cannot write {folder / PREPROCESSOR}: {e.strerror or e}") from None


def write_encoder(folder: Path, weights: dict[str, Tensor], info: Record, preprocessor: Mapping[str, bytes]) -> None:
    """Writes the files of the preprocessor, the weights, and `info` (how to build the backbone) with the SHA-256 of both."""
    write_preprocessor(folder, preprocessor)
    written = replace_file(folder, "encoder.safetensors", safetensors(weights))
    about = {"kind": info["modality"], "sha256": hash_files(preprocessor)}
    rest = {key: value for key, value in info.items() if key not in ("format", "range")}
    write_json(folder, "encoder.json", {"format": FORMAT, **rest, "preprocessor": about, "sha256": written["sha256"]})


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `out`, and renames it at the end: `out` is complete or absent at any time.

    A folder that holds the same files is left as it is. RequestError where it holds others, StorageError."""
    place = out.resolve()
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        names = [p.relative_to(temporary).as_posix() for p in temporary.rglob("*") if p.is_file()]
        if out.is_dir() and any(out.iterdir()):
            if any(size_of(out, f) != size_of(temporary, f) or digest(out, f) != digest(temporary, f) for f in names):
                raise RequestError(f"out={out} holds another encoder", "out=FOLDER, a new one")
            return
        for folder in sorted({(temporary / name).parent for name in names}, reverse=True):
            sync_folder(folder)
        os.rename(temporary, place)
        sync_folder(place.parent)
    except OSError as e:
        raise StorageError(f"cannot write {out}: {e.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# ------------------------------------------------------------------------------------------------------------------- read


def read_info(path: Path) -> Record:
    """The encoder.json of a folder. TrainingError where it is missing or does not define how to build the encoder."""
    hint = _rewrite_hint(path)
    if any(size_of(path, name) is None for name in FILES):
        raise TrainingError(f"{path} has no encoder", hint)
    info = records.encoder(path)
    if info.get("format", 1) > FORMAT:
        raise RequestError(
            f"{path / 'encoder.json'} has the format {info['format']}; this version reads up to format {FORMAT}",
            "upgrade sslcli",
        )
    if not _describes_encoder(info):
        raise TrainingError(f"{path / 'encoder.json'} does not define how to build the encoder", hint)
    return {"step": 0, **info}


def _describes_encoder(info: Record) -> bool:
    """Whether an encoder.json defines how to build the encoder, for samples of which shape and values."""
    if not all(info.get(key) for key in records.ENCODER) or not isinstance(info["backbone"].get("_target_"), str):
        return False
    try:
        return values_of(info).fits(tuple(info["input_shape"]))
    except ValueError:
        return False


def _rewrite_hint(path: Path) -> str:
    """The command that writes the encoder of a folder again."""
    return f"{resume_command(path) if (path / 'status.json').is_file() else 'sslcli export'} writes it again"


def encoder_bytes(path: Path, info: Record) -> bytes:
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


def load_encoder(path: Path) -> tuple[nn.Module, Record]:
    """The backbone of a run or of an exported folder, and its encoder.json.

    Raises:
        TrainingError: the files are missing, or the weights do not match the SHA-256 in encoder.json.
    """
    from safetensors.torch import load

    info, file = read_info(path), path / "encoder.safetensors"
    content = encoder_bytes(path, info)
    backbone = build_backbone(info["backbone"], tuple(info["input_shape"]), values_of(info))
    with corrupt_safetensors(file, _rewrite_hint(path)):
        tensors = load(content)
    checkpoint.load_strictly(backbone, tensors, str(file), _rewrite_hint(path))
    return backbone, {**info, "dim": backbone.dim}


def values_of(info: Record) -> Values:
    """What the numbers of a view are, from an encoder.json. ValueError."""
    return values_from_json(info["values"])


def build_backbone(node: Config, shape: tuple[int, ...], values: Values) -> nn.Module:
    """The backbone of a YAML node for samples of `shape`. It gets `values` if its constructor names them, and has them as an
    attribute."""
    given = {"values": values} if instantiate.takes("backbone", node, "values") else {}
    backbone: nn.Module = instantiate.build("backbone", node, input_shape=shape, **given)
    if hasattr(backbone, "set_values"):
        backbone.set_values(values)  # type: ignore[operator]
    else:  # no subclass of Backbone
        backbone.values = values  # type: ignore[assignment]
    return backbone
