"""Files of weights of any program: .pth, .pt, .bin, .ckpt, .pth.tar or .safetensors. No code in a file is executed:
`torch.load(weights_only=True)` only, or safetensors.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sslcli.console import escape
from sslcli.data.folders.paths import require_regular
from sslcli.errors import DataError, MachineError, RequestError, SslError
from sslcli.runs.safetensors_file import corrupt_safetensors
from sslcli.runtime.resources import free_memory

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
MAX_DEPTH = 4  # of nested dictionaries


def is_file(spec: str) -> bool:
    """Whether `init=` names a file of weights, which may not exist."""
    path = os.path.expanduser(spec)
    return (spec.lower().endswith(SUFFIXES) and not os.path.isdir(path)) or os.path.isfile(path)


def tensors_in(content: Any, where: str = "", depth: int = 0) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (`state_dict/`, `module.conv1.weight`, tensor) for each tensor of nested dictionaries."""
    if not isinstance(content, Mapping) or depth > MAX_DEPTH:
        return
    for key, value in content.items():
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
            yield where, str(key), value
        else:
            yield from tensors_in(value, f"{where}{key}/", depth + 1)


def read(spec: str) -> Any:
    """The content of a file. RequestError if it does not exist or cannot be read, DataError if it holds more than tensors."""
    path = os.path.expanduser(spec)
    try:
        require_regular(path)
        size = os.path.getsize(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(i.file_size for i in archive.infolist())
        if size > free_memory():
            raise MachineError(f"init={escape(spec)} is larger than the free memory of this machine")
        if path.lower().endswith(".safetensors"):
            from safetensors.torch import load_file

            with corrupt_safetensors(path):
                return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old pickle formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RequestError(
            f"init={escape(spec)}: there is no such file", "init=RUN or init=FILE.pth (.safetensors)"
        ) from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"names {named[1]}" if named else "holds more than tensors"
        raise DataError(
            f"init={escape(spec)} {what}: reading it could run code",
            "if you trust the file, save only its tensors: torch.save(model.state_dict(), FILE)",
        ) from error
    except SslError:
        raise
    except OSError as error:
        if error.errno == errno.EINVAL:  # torch's, of an archive that ends too early
            raise DataError(f"init={escape(spec)} is not a file of weights", "is the file complete?") from error
        raise RequestError(f"init={escape(spec)} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise MachineError(f"init={escape(spec)} does not fit into memory") from error
    except Exception as error:  # a damaged or malicious file can make torch raise almost any exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"init={escape(spec)} is not a file of weights: {escape(reason)}", "is the file complete?"
        ) from error
