"""`format=timm`: a folder that `timm.create_model("local-dir:FOLDER")` loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from sslcli.backbones.resnet import ResNet
from sslcli.backbones.timm_model import TimmModel, require_timm
from sslcli.backbones.vit import ViT
from sslcli.errors import RequestError
from sslcli.formats.export import TrainedModel
from sslcli.formats.runtimes.base import SHARED, RuntimeFormat, head
from sslcli.formats.runtimes.usage import Runtime
from sslcli.runs.files import replace_file
from sslcli.runs.safetensors_file import safetensors


class TimmFolder(RuntimeFormat):
    """model.safetensors and config.json with the architecture, its arguments, and the normalization of its inputs."""

    name: ClassVar[str] = "timm"
    file: ClassVar[str] = "model.safetensors"
    files: ClassVar[tuple[str, ...]] = (file, "config.json", *SHARED)
    code: ClassVar[Runtime] = Runtime(
        ("import timm", "import torch"),
        'encoder = timm.create_model("local-dir:.", pretrained=True).eval()',
        "{name} = encoder(torch.from_numpy(x)).detach().numpy()",
    )

    def check(self, model: TrainedModel) -> None:
        name, _ = architecture(model)
        layer = require_timm("format=timm").get_pretrained_cfg(name).classifier
        if model.classifier is not None and not isinstance(layer, str):
            raise RequestError(f"format=timm: {name} has no single classifier", "head=none, or format=torch_export")

    def save(self, path: Path, model: TrainedModel) -> None:
        name, arguments = architecture(model)
        state = {key.removeprefix("net."): value for key, value in model.network.state_dict().items()}
        classes = 0
        if (found := head(model)) is not None:
            layer = require_timm("format=timm").get_pretrained_cfg(name).classifier
            state |= {f"{layer}.weight": found[0], f"{layer}.bias": found[1]}
            classes = len(found[0])
        values = model.info["values"]
        cfg = {
            "input_size": list(model.info["input_shape"]),
            "mean": values["mean"],
            "std": values["std"],
            "num_classes": classes,
            "crop_pct": 1.0,
        }
        config = {
            "architecture": name,
            "num_classes": classes,
            "num_features": model.backbone.dim,
            "pretrained_cfg": cfg,
        }
        config |= {"model_args": {**arguments, "in_chans": model.info["input_shape"][0]}}
        if model.classifier is not None and classes:
            config["label_names"] = list(model.classifier.classes)
        replace_file(path.parent, path.name, safetensors(state, {"format": "pt"}))
        replace_file(path.parent, "config.json", [(json.dumps(config, indent=2) + "\n").encode()])

    def run(self, path: Path, x: Tensor) -> Tensor:
        timm = require_timm("format=timm")
        features: Tensor = timm.create_model(f"local-dir:{path.parent}", pretrained=True).eval()(x)
        return features

    def next_steps(self, out: str, model: TrainedModel) -> list[str]:
        return [f"timm.create_model('local-dir:{out}', pretrained=True)"]


def architecture(model: TrainedModel) -> tuple[str, dict[str, Any]]:
    """The name of timm's architecture, and the arguments that differ from its defaults. RequestError for a backbone that timm does
    not have."""
    backbone, node = model.backbone, model.info["backbone"]
    _, *size = model.info["input_shape"]
    if isinstance(backbone, TimmModel):
        fixed = {"img_size": size} if "net.pos_embed" in backbone.position_tables() else {}
        return node["name"].partition(".")[0], fixed
    if isinstance(backbone, ResNet) and backbone.stem == "imagenet":
        return f"resnet{node['depth']}", {}
    if isinstance(backbone, ViT) and len(size) == 2 and backbone.pool == "cls":
        block = backbone.blocks[0]
        sizes = {
            "img_size": size,
            "patch_size": backbone.patch,
            "embed_dim": backbone.dim,
            "depth": len(backbone.blocks),
        }
        return "vit_tiny_patch16_224", {**sizes, "num_heads": block.attn.heads, "mlp_ratio": node["mlp_ratio"]}  # type: ignore[union-attr]
    raise RequestError(
        f"format=timm: timm has no network like {type(backbone).__name__} here",
        "timm has: backbone=timm, resnet with backbone.stem=imagenet, vit with backbone.pool=cls; for others leave format out",
    )
