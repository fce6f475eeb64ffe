"""The cache of the Hugging Face Hub on this machine: folders of models by name, and downloads into it where that was requested."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sslcli import console
from sslcli.errors import MachineError, RequestError, StorageError, first_line

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
PATTERNS = ("*.json", "vocab.txt", "model*.safetensors", "pytorch_model*.bin")  # the files that are downloaded


def is_name(text: str) -> bool:
    """Whether a text can be the name of a model: `NAME` or `OWNER/NAME`."""
    return _NAME.fullmatch(text) is not None


def cache_folder() -> Path:
    """Where huggingface_hub keeps models: $HF_HUB_CACHE, or hub/ in $HF_HOME, by default ~/.cache/huggingface."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()


def cached(name: str) -> Path | None:
    """The folder of the newest downloaded revision of a model, by its name; None where there is none."""
    folder = cache_folder() / f"models--{name.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    found = folder / "snapshots" / revision
    return found if re.fullmatch(r"[0-9a-f]+", revision) and found.is_dir() else None


def download(name: str) -> Path:
    """Downloads a model into the cache and returns its folder. MachineError without huggingface_hub or a network, RequestError
    where there is no such model."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import RepositoryNotFoundError
    except ImportError as e:
        raise MachineError(
            f"a download requires the package huggingface_hub ({e})", "pip install huggingface_hub"
        ) from e
    console.say(f"downloading {name} from huggingface.co to {cache_folder()}")
    try:
        return Path(snapshot_download(name, allow_patterns=list(PATTERNS), cache_dir=str(cache_folder())))
    except RepositoryNotFoundError as e:
        raise RequestError(f"huggingface.co has no model named {name!r}, or it requires a login") from e
    except OSError as e:
        if e.errno is not None and not isinstance(e, ConnectionError):
            raise StorageError(f"{name} cannot be saved in {cache_folder()}: {e.strerror}") from e
        raise MachineError(f"{name} cannot be downloaded: {first_line(e)}") from e
    except Exception as e:  # of the network: httpx's, which is no dependency
        raise MachineError(f"{name} cannot be downloaded: {first_line(e)}") from e


def locate(name: str, fetch: bool) -> Path | None:
    """The folder of a model in the cache, downloaded if `fetch`; None where it is not there."""
    if not is_name(name):
        return None
    found = cached(name)
    return download(name) if found is None and fetch else found


def download_hint(name: str) -> str:
    """How to have a model on this machine."""
    return f"init.download=true downloads it; or, where there is a network: hf download {name}"
