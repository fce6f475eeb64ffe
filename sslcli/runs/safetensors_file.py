"""The safetensors file format: written from tensors on any device, read with errors that name the file."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from sslcli.errors import TrainingError

DTYPES = {  # names of data types in safetensors
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}


def safetensors(group: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """Serializes tensors in the safetensors format, one in memory at a time. Equal tensors give equal bytes.

    Length of the header (8 bytes), header (JSON, padded to 8), then the bytes of each tensor: widest type first, so that
    each is aligned. Tensors that share memory (tied weights) are written twice."""
    names = sorted(group, key=lambda k: (-group[k].element_size(), k))
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name in names:
        t = group[name]
        start, end = end, end + t.numel() * t.element_size()
        header[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    yield len(head).to_bytes(8, "little") + head
    for name in names:
        flat = group[name].detach().to("cpu").contiguous().reshape(-1)
        if len(flat):
            yield flat.view(torch.uint8).numpy().data


def hash_tensors(group: dict[str, Tensor]) -> str:
    """SHA-256 of tensors in the safetensors format."""
    out = hashlib.sha256()
    for chunk in safetensors(group):
        out.update(chunk)
    return out.hexdigest()


@contextlib.contextmanager
def corrupt_safetensors(path: str | Path, hint: str = "was it changed by hand?") -> Iterator[None]:
    """Context that turns a malformed safetensors file into a TrainingError."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as e:
        raise TrainingError(f"{path} is a corrupt safetensors file: {e}", hint) from None
