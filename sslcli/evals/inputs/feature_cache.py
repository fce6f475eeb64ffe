"""Features on disk: a file is used only if it was written by this user and is whole, which its signature says: a run may come
from anybody, with features that tell of better weights than its own. What cannot be read or written is told in `notes`."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcli.errors import StorageError
from sslcli.runs.files import checked, make_folder, replacing
from sslcli.runtime.folders import user_key


@dataclass
class Store:
    """A folder of features (n, d) with the ids (n,) of their samples."""

    folder: Path
    notes: list[str]

    def load(self, name: str) -> tuple[Tensor, Tensor] | None:
        """What was saved under this name; None where there is nothing sound."""
        root, file = self.folder.parent, f"{self.folder.name}/{name}.safetensors"
        path, key = self.folder / f"{name}.safetensors", user_key()
        if not path.exists() or key is None:
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(checked(root, file), framework="pt") as f:
                x, ids, said = f.get_tensor("features"), f.get_tensor("ids"), (f.metadata() or {}).get("signature", "")
        except (SafetensorError, OSError) as error:
            self.notes.append(f"cached features could not be read and were computed again ({path.name}: {error})")
            return None
        if not hmac.compare_digest(said.encode(), signature(key, name, x, ids).encode()):
            self.notes.append(f"cached features are damaged or another user's, and were computed again ({path.name})")
            return None
        return x, ids

    def save(self, name: str, x: Tensor, ids: Tensor) -> None:
        """Whole or not at all; nothing where the user has no folder for a key."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if (key := user_key()) is None:
            return
        try:
            make_folder(self.folder.parent, self.folder.name)
            with replacing(self.folder / f"{name}.safetensors") as temporary:
                save_file({"features": x, "ids": ids}, temporary, metadata={"signature": signature(key, name, x, ids)})
        except (OSError, StorageError, SafetensorError) as error:  # numbers matter more than a cache
            self.notes.append(f"features could not be cached in {self.folder}: {error}")


def signature(key: bytes, name: str, *tensors: Tensor) -> str:
    """HMAC-SHA-256 of the name of a file and of what it holds."""
    h = hmac.new(key, name.encode(), hashlib.sha256)
    for tensor in tensors:
        h.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        h.update(raw_bytes(tensor))
    return h.hexdigest()


def raw_bytes(tensor: Tensor) -> Any:
    """The numbers as they lie in memory, whatever the dtype (numpy has no bfloat16)."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
