"""Features on disk: a file is used only if its own checksum agrees; what cannot be read or written is told in `notes`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcli.disk import checked, make_folder, replacing
from sslcli.errors import StorageError


@dataclass
class Store:
    """A folder of features (n, d) with the ids (n,) of their samples."""

    folder: Path
    notes: list[str]

    def load(self, name: str) -> tuple[Tensor, Tensor] | None:
        """What was saved under this name; None where there is nothing sound."""
        root, file = self.folder.parent, f"{self.folder.name}/{name}.safetensors"
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(checked(root, file), framework="pt") as f:
                x, ids, checksum = f.get_tensor("features"), f.get_tensor("ids"), (f.metadata() or {}).get("sha256")
        except (SafetensorError, OSError) as error:
            self.notes.append(f"cached features could not be read and were computed again ({path.name}: {error})")
            return None
        if checksum != _checksum(x, ids):  # safetensors does not notice a flipped bit
            self.notes.append(f"cached features were damaged and were computed again ({path.name})")
            return None
        return x, ids

    def save(self, name: str, x: Tensor, ids: Tensor) -> None:
        """Whole or not at all."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        try:
            make_folder(self.folder.parent, self.folder.name)
            with replacing(self.folder / f"{name}.safetensors") as temporary:
                save_file({"features": x, "ids": ids}, temporary, metadata={"sha256": _checksum(x, ids)})
        except (OSError, StorageError, SafetensorError) as error:  # numbers matter more than a cache
            self.notes.append(f"features could not be cached in {self.folder}: {error}")


def _checksum(*tensors: Tensor) -> str:
    h = hashlib.sha256()
    for tensor in tensors:
        h.update(raw_bytes(tensor))
    return h.hexdigest()


def raw_bytes(tensor: Tensor) -> Any:
    """The numbers as they lie in memory, whatever the dtype (numpy has no bfloat16)."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
