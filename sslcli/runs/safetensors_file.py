"""The safetensors file format: written from tensors on any device, read with errors that name the file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from sslcli.errors import TrainingError

DTYPES = {  # as safetensors spells them
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


def safetensors(group: dict[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The file format of safetensors, one tensor in memory at a time. The same tensors are the same bytes.

    Length of the header (8 bytes), header (JSON, padded to 8), then the bytes of each tensor: widest type first, so that
    each is aligned. Tensors that share memory (tied weights) are written twice."""
    names = sorted(group, key=lambda k: (-group[k].element_size(), k))
    header, end = {}, 0
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


@contextlib.contextmanager
def corrupt_safetensors(path: Path, hint: str = "was it changed by hand?") -> Iterator[None]:
    """A safetensors file whose header does not fit its bytes, whatever its sum says, is a TrainingError."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as e:
        raise TrainingError(f"{path} holds no whole safetensors file: {e}", hint) from None
