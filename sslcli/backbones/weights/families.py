"""What a file of weights says about itself: the code that wrote it, and with it the normalization of its inputs; its patches and
stem; and the name that timm has for a network of DINOv2 or DINOv3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from sslcli.backbones.weights.layouts import converted
from sslcli.backbones.weights.reading import tensors_in
from sslcli.config import Config


class Normalization(NamedTuple):
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str  # "MoCo"


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CLASSES = 1000  # of ImageNet
# What the authors' code normalizes by, and names of tensors that show that it wrote the file.
CODES = (
    ("MoCo", r"(^|[./])(encoder_q|base_encoder)\.", IMAGENET),
    ("DINO", r"(^|/)teacher/(.*\.)?backbone\.", IMAGENET),
    ("MAE", r"(^|[./])decoder_pos_embed$", IMAGENET),
    ("DINOv2 and DINOv3", r"\.(ls1\.gamma|layer_scale1\.lambda1)$", IMAGENET),
)
CLASSIFIERS = (  # names of the classifier, and of another tensor of the layout
    ("torchvision", "fc.weight", "layer1.0.conv1.weight", IMAGENET),
    ("torchvision", "heads.head.weight", "encoder.layers.encoder_layer_0.ln_1.weight", IMAGENET),
    ("torchvision", "head.weight", "encoder.layers.encoder_layer_0.ln_1.weight", IMAGENET),
    ("efficientnet_pytorch", "_fc.weight", "_blocks.1._se_reduce.weight", IMAGENET),
    ("EfficientNet-Lite", "_fc.weight", "_conv_stem.weight", HALF),
)
DINOV2 = {384: "small", 768: "base", 1024: "large", 1536: "giant"}  # width -> size
DINOV3 = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 4096: "7b"}


def normalization(content: Any) -> Normalization | None:
    """The mean and standard deviation of the inputs in 0..1 that a published code, or a classifier of ImageNet, was trained with;
    None where the file does not show it."""
    names = {f"{where}{key}": value for where, key, value in tensors_in(content)}
    for source, pattern, (mean, std) in CODES:
        if any(re.search(pattern, name) for name in names):
            return Normalization(mean, std, source)
    for source, classifier, other, (mean, std) in CLASSIFIERS:
        heads = [
            n for n, v in names.items() if f"/{n}".endswith((f"/{classifier}", f".{classifier}")) and len(v) == CLASSES
        ]
        if heads and any(name.endswith(other) for name in names):
            return Normalization(mean, std, f"{source}'s classifiers of ImageNet")
    return None


def with_architecture(node: Config, content: Any) -> Config:
    """The configuration of a backbone whose stem and patches are those of the weights where they are `auto`."""
    found = {"stem": stem_of, "patch": patch_of}
    auto = {key: of(content) for key, of in found.items() if node.get(key) == "auto"}
    return {**node, **{key: value for key, value in auto.items() if value is not None}}


def stem_of(content: Any) -> str | None:
    """The stem (`backbone.stem`) of the ResNet in a file of weights; None for other networks."""
    for tensors in _networks(content):
        for key, value in tensors.items():
            if value.ndim == 4 and f".{key}".endswith(".conv1.weight") and "layer" not in key:
                return {7: "imagenet", 3: "small"}.get(value.shape[-1])
    return None


def patch_of(content: Any) -> int | None:
    """The side of a patch, or its steps, of the vision transformer in a file of weights; None for other networks."""
    for tensors in _networks(content):
        for key, value in tensors.items():
            square = value.ndim in (3, 4) and len(set(value.shape[2:])) == 1
            if square and f".{key}".endswith(".patch_embed.proj.weight"):
                return int(value.shape[-1])
    return None


def timm_name(content: Any) -> str | None:
    """The name that timm has for the network of DINOv2 or DINOv3 in a file; None for others."""
    for tensors in _networks(content):
        for key, value in tensors.items():
            prefix = key.removesuffix("patch_embed.proj.weight")
            if prefix != key and f"{prefix}blocks.0.ls1.gamma" in tensors:
                below = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                return _dinov3(below) if "storage_tokens" in below else _dinov2(below, value.shape[-1])
    return None


def _dinov2(tensors: dict[str, Tensor], patch: int) -> str | None:
    size, registers = DINOV2.get(tensors["patch_embed.proj.weight"].shape[0]), "register_tokens" in tensors
    return f"vit_{size}_patch{patch}_{'reg4_' if registers else ''}dinov2" if size else None


def _dinov3(tensors: dict[str, Tensor]) -> str | None:
    size = DINOV3.get(tensors["patch_embed.proj.weight"].shape[0])
    gated = "blocks.0.mlp.w1.weight" in tensors and size not in ("7b", None)
    biases = [v for k, v in tensors.items() if k.endswith("attn.qkv.bias")]
    bias = "_qkvb" if size != "7b" and any(bool(b.any()) for b in biases) else ""
    return f"vit_{size}{'_plus' if gated else ''}_patch16_dinov3{bias}" if size else None


def _networks(content: Any) -> Iterator[dict[str, Tensor]]:
    """The dictionaries of tensors in a file, also under the names of timm."""
    dictionaries: dict[str, dict[str, Tensor]] = {}
    for where, key, value in tensors_in(content):
        dictionaries.setdefault(where, {})[key] = value
    for tensors in dictionaries.values():
        yield tensors
        yield from (under for _, _, under in converted(tensors))
