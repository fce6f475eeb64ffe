"""`init=timm:NAME`: a model of timm with its pretrained weights, from the caches of the Hugging Face Hub and of torch.hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sslcli.backbones.timm_model import TimmModel, check_name, require_timm
from sslcli.backbones.weights.families import Normalization
from sslcli.backbones.weights.reading import read
from sslcli.config import Config
from sslcli.errors import RequestError, nearest
from sslcli.formats import hub
from sslcli.formats.images import ImageEncoder

FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which timm looks for them


class TimmEncoder(ImageEncoder):
    """NAME is a model, or MODEL.TAG for one of several weights, as in `timm.list_pretrained()`."""

    scheme = "timm"
    usage = "timm:NAME"

    def __init__(self, name: str, download: bool = False):
        timm = require_timm(f"init=timm:{name}")
        check_name(name, "init=timm:")
        try:
            cfg = timm.get_pretrained_cfg(name)
        except RuntimeError:  # an unknown tag
            cfg = None
        if cfg is None or not cfg.has_weights:
            close = nearest(name, timm.list_pretrained())
            raise RequestError(
                f"timm has no pretrained weights named {name!r}",
                f"did you mean init=timm:{close}?" if close else "see timm.list_pretrained()",
            )
        self.cfg, self.model = cfg, name.partition(".")[0]
        super().__init__(f"{self.model}.{cfg.tag}" if cfg.tag else self.model)
        self.file = self._file(download)
        self._tensors: Any = None

    def _file(self, download: bool) -> Path:
        """The file of the weights. RequestError where it is not on this machine, and no download was requested."""
        places = []
        if self.cfg.hf_hub_id and (folder := hub.locate(self.cfg.hf_hub_id, download)) is not None:
            places += [folder / name for name in ((self.cfg.hf_hub_filename,) if self.cfg.hf_hub_filename else FILES)]
        if self.cfg.url:
            places.append(torch_hub_folder() / os.path.basename(self.cfg.url))
        if (found := next((place for place in places if place.is_file()), None)) is not None:
            return found
        source = self.cfg.hf_hub_id or self.cfg.url
        raise RequestError(
            f"the weights of timm's {self.name} are not on this machine (they are {source})",
            f"{hub.download_hint(source)}; from a file: init=FILE backbone=timm backbone.name={self.model}",
        )

    def resolved(self) -> str:
        return self.spec

    def backbone(self) -> Config:
        return {"_target_": f"{TimmModel.__module__}.{TimmModel.__qualname__}", "name": self.model}

    def tensors(self) -> Any:
        if self._tensors is None:
            self._tensors = read(str(self.file))
        return self._tensors

    def normalization(self) -> Normalization:
        return Normalization(tuple(self.cfg.mean), tuple(self.cfg.std), f"timm's {self.name}")

    def size(self) -> int:
        return int(self.cfg.input_size[-1])


def torch_hub_folder() -> Path:
    """Where torch.hub keeps weights: hub/checkpoints in $TORCH_HOME, by default ~/.cache/torch."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"
