"""Weights of a Hugging Face folder: one file, or shards that an index lists; safetensors, or a pickle of tensors alone."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from sslcli.backbones.weights import matching, reading
from sslcli.console import escape, human_bytes
from sslcli.errors import DataError, MachineError, RequestError, listing
from sslcli.formats.huggingface.files import exists, read_object, require_file
from sslcli.formats.huggingface.heads import names_of_heads
from sslcli.runtime.resources import PHYSICAL_MEMORY, free_memory

FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which transformers looks for them
INDEX = ".index.json"
MAX_SHARDS = 1000
OTHERS = ("tf_model.h5", "flax_model.msgpack", "model.onnx", "model.ckpt.index", "openvino_model.bin")
RENAMED = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))  # in weights of TensorFlow
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")  # not weights
Tensors = dict[str, Tensor]


def find_files(folder: Path) -> list[Path]:
    """The files of the weights. RequestError where there is none, DataError for an index that is damaged or leads elsewhere."""
    for name in FILES:
        if exists(folder, name):
            return [require_file(folder, name, PHYSICAL_MEMORY)]
        if exists(folder, name + INDEX):
            return [require_file(folder, shard, PHYSICAL_MEMORY) for shard in _shards(folder, name + INDEX)]
    other = [name for name in OTHERS if exists(folder, name)]
    raise RequestError(
        f"{escape(str(folder))} has no weights of PyTorch" + (f": {listing(other)} is not read" if other else ""),
        f"expected {' or '.join(FILES)}, or an index of shards",
    )


def _shards(folder: Path, index: str) -> list[str]:
    path, names = escape(str(folder / index)), read_object(folder, index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{path} has no weight_map of tensors to files", "copy the file again")
    shards = list(dict.fromkeys(names.values()))
    for name in shards:
        if Path(name).name != name or "\\" in name or "\0" in name or name in ("", ".", ".."):
            raise DataError(f"{path} names {escape(name)[:80]}, which is no file of its folder")
        if not name.endswith((".safetensors", ".bin")):
            raise DataError(f"{path} names {escape(name)[:80]}: expected a .safetensors or .bin file")
    if len(shards) > MAX_SHARDS:
        raise DataError(f"{path} names {len(shards):,} files, and at most {MAX_SHARDS:,} are read")
    return shards


def read_weights(folder: Path) -> Tensors:
    """All tensors of a folder by name, LayerNorm's with the names of PyTorch. RequestError, DataError, MachineError."""
    files = find_files(folder)
    if (size := sum(path.stat().st_size for path in files)) > free_memory():
        raise MachineError(f"the weights of {escape(str(folder))} have {human_bytes(size)}, more than the free memory")
    tensors: Tensors = {}
    for path in files:
        for where, key, value in reading.tensors_in(reading.read(str(path))):
            tensors[_renamed(where + key)] = value
    if not tensors:
        raise DataError(f"{escape(str(files[0]))} holds no tensors")
    return tensors


def _renamed(name: str) -> str:
    for old, new in RENAMED:
        name = name.removesuffix(old) + new if name.endswith(old) else name
    return name


def load_backbone(backbone: nn.Module, tensors: Tensors, spec: str) -> str:
    """Fills the backbone and describes what was matched, missing and ignored. RequestError where too little matches, DataError
    where weights are not finite."""
    owned, heads = names_of_heads(tensors)
    content = {name: value for name, value in tensors.items() if name not in owned and not name.endswith(BUFFERS)}
    found = matching.match(backbone, content)
    if found.fraction < matching.MIN_MATCH:
        raise matching.no_match(backbone, found, spec, "are the weights those of config.json?")
    matching.copy_into(backbone, found.tensors, spec)
    return matching.describe(found, spec) + (f"; the folder has the heads of {' and of '.join(heads)}" if heads else "")
