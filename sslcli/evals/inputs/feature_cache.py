"""Cache of features on disk.

A file is used only if its signature shows that this user wrote it and that it is complete: a run folder may come from anyone,
with cached features of better weights than its own. What cannot be read or written is reported in `notes`.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.data.dataset import Dataset
from sslcli.errors import StorageError
from sslcli.runs.files import checked, make_folder, replacing
from sslcli.runtime.folders import user_key

_FORMAT = 1  # of the cache files; raise it when features would change


@dataclass
class FeatureCache:
    """A folder of features (n, d) with the ids (n,) of their samples."""

    folder: Path
    notes: list[str]

    def load(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Features (n, d) and ids (n,) of this name, or None where there is no valid file."""
        root, file = self.folder.parent, f"{self.folder.name}/{name}.safetensors"
        path, key = self.folder / f"{name}.safetensors", user_key()
        if not path.exists() or key is None:
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(checked(root, file), framework="pt") as f:
                x, ids = f.get_tensor("features"), f.get_tensor("ids")
                saved_signature = (f.metadata() or {}).get("signature", "")
        except (SafetensorError, OSError) as error:
            self.notes.append(f"cached features could not be read and were computed again ({path.name}: {error})")
            return None
        if not hmac.compare_digest(saved_signature.encode(), signature(key, name, x, ids).encode()):
            self.notes.append(f"cached features are damaged or another user's, and were computed again ({path.name})")
            return None
        return x, ids

    def save(self, name: str, x: Tensor, ids: Tensor) -> None:
        """Writes the features atomically. Nothing is written where the user has no key."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if (key := user_key()) is None:
            return
        try:
            make_folder(self.folder.parent, self.folder.name)
            with replacing(self.folder / f"{name}.safetensors") as temporary:
                save_file({"features": x, "ids": ids}, temporary, metadata={"signature": signature(key, name, x, ids)})
        except (OSError, StorageError, SafetensorError) as error:  # the evaluation continues without a cache
            self.notes.append(f"features could not be cached in {self.folder}: {error}")


def signature(key: bytes, name: str, *tensors: Tensor) -> str:
    """HMAC-SHA-256 of the name of a file and of its tensors."""
    h = hmac.new(key, name.encode(), hashlib.sha256)
    for tensor in tensors:
        h.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        h.update(raw_bytes(tensor))
    return h.hexdigest()


def raw_bytes(tensor: Tensor) -> Any:
    """The bytes of a tensor of any dtype (numpy has no bfloat16)."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def cache_key(
    label: str, backbone: nn.Module, dataset: Dataset, split: str, samples: int, execution: tuple[Any, ...]
) -> str:
    """The file name for features of a split: `label`, and a hash of everything that determines them.

    `execution` is the precision, memory format and kind of device.
    """
    d = dataset
    parts: tuple[Any, ...] = (_FORMAT, d.name, d.fingerprint, d.shape, d.values.mean, d.values.std, split, samples)
    if d.split:  # other samples may be held out of the same files
        parts = (*parts, d.split)
    if d.details.get("range") is not None:  # the same files may be scaled otherwise
        parts = (*parts, d.details["range"])
    if d.preprocessor is not None:  # the same files may be encoded otherwise
        parts = (*parts, d.preprocessor.sha256)
    h = hashlib.sha256()
    h.update(repr((*parts, *execution, repr(backbone))).encode())
    for name, tensor in backbone.state_dict().items():
        h.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        h.update(raw_bytes(tensor))
    safe_label = "".join(c if c.isalnum() or c in "-_." else "-" for c in label)[:40]
    return f"{safe_label or 'features'}-{split}-{samples}-{h.hexdigest()[:20]}"
