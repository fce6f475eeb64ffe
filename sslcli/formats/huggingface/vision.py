"""`init=hf:FOLDER` of images: ViT, ViTMAE, DINOv2, DINOv3 and ResNet as transformers writes them, and models of timm."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.backbones.resnet import DEPTHS, ResNet
from sslcli.backbones.timm_model import TimmModel, check_name
from sslcli.backbones.vit import ViT
from sslcli.backbones.weights import families
from sslcli.backbones.weights.families import Normalization
from sslcli.config import Config, typecheck
from sslcli.console import escape
from sslcli.errors import DataError, RequestError
from sslcli.formats.huggingface.config import mlp_ratio
from sslcli.formats.huggingface.files import CONFIG, exists, read_object, read_optional
from sslcli.formats.huggingface.weights import Tensors, find_files, read_weights
from sslcli.formats.images import ImageEncoder

PREPROCESSOR = "preprocessor_config.json"
TRANSFORMERS = ("vit", "vit_mae", "dinov2", "dinov2_with_registers", "dinov3_vit", "resnet")
EPS = 1e-6  # of LayerNorm in sslcli's ViT, as in the code of the authors
MAX_SIZE = 1 << 16


class HuggingFaceImages(ImageEncoder):
    """The backbone follows config.json: sslcli's ViT or ResNet, or timm's model of DINOv2, DINOv3 and of a folder of timm."""

    scheme = "hf"
    usage = "hf:FOLDER"

    def __init__(self, name: str, download: bool = False):
        super().__init__(name)
        self.folder = Path(name).expanduser()
        self.config = read_object(self.folder, CONFIG)
        find_files(self.folder)
        self._tensors: Tensors | None = None

    @classmethod
    def recognizes(cls, folder: Path) -> bool:
        if not exists(folder, CONFIG):
            return False
        content = read_optional(folder, CONFIG)
        return content.get("model_type") in TRANSFORMERS or {"architecture", "pretrained_cfg"} <= content.keys()

    def resolved(self) -> str:
        return f"{self.scheme}:{os.path.abspath(self.folder)}"

    def tensors(self) -> Tensors:
        if self._tensors is None:
            self._tensors = read_weights(self.folder)
        return self._tensors

    # ---------------------------------------------------------------------------------------------------------- backbone

    def backbone(self) -> Config:
        kind = self.config.get("model_type")
        if kind in ("vit", "vit_mae"):
            return self._vit("cls" if kind == "vit" else "mean")
        if kind == "resnet":
            return self._resnet()
        if kind in TRANSFORMERS:
            name = families.timm_name(self.tensors())
            if name is None:
                raise RequestError(
                    f"{escape(str(self.folder))}: a {kind} of width {self.config.get('hidden_size')} is not supported",
                    "supported are the published sizes, as models of timm",
                )
        else:
            name = str(self.config["architecture"])
        check_name(name, "timm:")
        return {"_target_": _path(TimmModel), "name": name}

    def _vit(self, pool: str) -> Config:
        for key, supported in (("hidden_act", "gelu"), ("qkv_bias", True)):
            if self.config.get(key, supported) != supported:
                raise RequestError(
                    f"{escape(str(self.folder))}: {key} {escape(str(self.config[key]))[:80]} is not supported"
                )
        width, hidden = self._integer("hidden_size", 768), self._integer("intermediate_size", 3072)
        return {
            "_target_": _path(ViT),
            "width": width,
            "depth": self._integer("num_hidden_layers", 12),
            "heads": self._integer("num_attention_heads", 12),
            "patch": self._integer("patch_size", 16),
            "pool": pool,
            "positions": "fixed" if pool == "mean" else "learned",
            "mlp_ratio": mlp_ratio(width, hidden),
        }

    def _resnet(self) -> Config:
        blocks = self.config.get("depths", [3, 4, 6, 3])
        kinds = {"Basic": "basic", "Bottleneck": "bottleneck"}
        layer = self.config.get("layer_type", "bottleneck")
        depth = next((d for d, (b, n) in DEPTHS.items() if list(n) == blocks and kinds[b.__name__] == layer), None)
        if depth is None or self.config.get("downsample_in_bottleneck") or self.config.get("embedding_size", 64) != 64:
            raise RequestError(
                f"{escape(str(self.folder))}: a ResNet of {escape(str(blocks))[:80]} {escape(str(layer))[:20]} blocks is not "
                "supported",
                f"supported are the depths {', '.join(map(str, DEPTHS))}, with the stride in the 3x3 convolution",
            )
        return {"_target_": _path(ResNet), "depth": depth, "stem": "imagenet", "zero_init_residual": False}

    def _integer(self, key: str, default: int) -> int:
        value = self.config.get(key, default)
        if not typecheck.matches_type(value, int) or not 0 < value <= MAX_SIZE:
            path = escape(str(self.folder / CONFIG))
            raise DataError(f"{path}: {key} is {escape(str(value))[:80]}: expected an integer from 1 to {MAX_SIZE:,}")
        return value

    # ------------------------------------------------------------------------------------------------------------- inputs

    def normalization(self) -> Normalization | None:
        """That of the folder, or else that of the code which trained such networks."""
        own = self.config.get("pretrained_cfg")
        content: Mapping[str, Any] = own if isinstance(own, dict) else read_optional(self.folder, PREPROCESSOR)
        mean, std = (content.get(key, content.get(f"image_{key}")) for key in ("mean", "std"))
        if mean is None or std is None:
            return families.normalization(self.tensors())
        pair = [v for v in (mean, std) if typecheck.matches_type(v, list[float]) and len(v) in (1, 3)]
        if len(pair) < 2 or len(mean) != len(std) or min(std) <= 0:
            raise DataError(f"{escape(str(self.folder))}: the mean and standard deviation of images are not valid")
        return Normalization(
            tuple(map(float, mean)), tuple(map(float, std)), "the folder's own mean and standard deviation"
        )

    def size(self) -> int:
        own = self.config.get("pretrained_cfg")
        if isinstance(own, dict):
            size = own.get("input_size")
            return size[-1] if typecheck.matches_type(size, list[int]) and size and 0 < size[-1] <= MAX_SIZE else 224
        return self._integer("image_size", 224)

    def load(self, backbone: Any) -> str:
        note, eps = super().load(backbone), self.config.get("layer_norm_eps", EPS)
        if isinstance(backbone, ViT) and eps != EPS:
            note += f"; the epsilon of LayerNorm is {EPS:g}, where the folder has {eps:g}"
        return note


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
