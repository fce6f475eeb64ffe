"""modules.json of sentence-transformers: how a sentence's vector is made of those of its tokens. Read with checks, and written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sslcli.console import escape
from sslcli.errors import DataError, RequestError
from sslcli.formats.huggingface.files import MAX_CONFIG, exists, read_bytes, read_object, read_optional
from sslcli.runs.files import is_bounded

MODULES = "modules.json"
POOLING = "1_Pooling/config.json"
LENGTH = "sentence_bert_config.json"
MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}  # flags of versions before 6
SUPPORTED = "supported are Transformer, Pooling by mean or cls, and Normalize"


@dataclass(frozen=True)
class Sentences:
    """pool: `mean` or `cls`. length: of the longest input in tokens, None where the folder does not say. normalized: whether
    vectors are scaled to length 1, which features of a backbone are not."""

    pool: str
    length: int | None
    normalized: bool


def read_sentences(folder: Path) -> Sentences | None:
    """What the files of sentence-transformers say; None for a folder without them. RequestError for other modules, DataError."""
    if not exists(folder, MODULES):
        return None
    path = escape(str(folder / MODULES))
    try:
        modules = json.loads(read_bytes(folder, MODULES, MAX_CONFIG))
    except (ValueError, RecursionError):
        raise DataError(f"{path} is not valid JSON", "copy the file again") from None
    if not (isinstance(modules, list) and is_bounded(modules) and all(isinstance(m, dict) for m in modules)):
        raise DataError(f"{path} is not a list of modules", "copy the file again")
    names = [str(m.get("type", "")).rpartition(".")[2] for m in modules]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise RequestError(f"{path}: modules {escape(', '.join(names))[:200]} are not supported", SUPPORTED)
    if modules[0].get("path", "") not in ("", "."):
        raise RequestError(
            f"{path}: the transformer is in the subfolder {escape(str(modules[0]['path']))[:80]}",
            f"init=hf:{escape(str(folder / str(modules[0]['path'])))}, and backbone.pool",
        )
    return Sentences(_pool(folder, modules[1].get("path")), _length(folder), len(names) == 3)


def _pool(folder: Path, place: object) -> str:
    if not isinstance(place, str) or len(PurePosixPath(place).parts) != 1 or place in ("..", "."):
        raise DataError(f"{escape(str(folder / MODULES))}: {escape(str(place))[:80]} is not the name of a folder")
    content = read_object(folder, f"{place}/config.json")
    chosen = content.get("pooling_mode")
    if chosen is None:
        flags = [key for key, value in content.items() if key.startswith("pooling_mode_") and value is True]
        chosen = MODES.get(flags[0], flags[0]) if len(flags) == 1 else flags
    if chosen not in MODES.values():
        raise RequestError(
            f"{escape(str(folder / place))}: pooling {escape(str(chosen))[:200]} is not supported", SUPPORTED
        )
    return str(chosen)


def _length(folder: Path) -> int | None:
    value = read_optional(folder, LENGTH).get("max_seq_length")
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise DataError(f"{escape(str(folder / LENGTH))}: max_seq_length {escape(str(value))[:80]} is not a length")
    return value


def sentence_files(pool: str, width: int, length: int) -> dict[str, str]:
    """The files by name. The class paths of versions 2 to 5 load in version 6 as well."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    pooling = {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": pool == "cls",
        "pooling_mode_mean_tokens": pool == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    contents = {MODULES: modules, POOLING: pooling, LENGTH: {"max_seq_length": length, "do_lower_case": False}}
    return {name: json.dumps(content, indent=2) + "\n" for name, content in contents.items()}
