"""Layouts of checkpoints of other libraries, converted to the names of torchvision's ResNets and of timm's networks.

The layout of a dictionary of tensors is recognized by one name that only it has, below any prefix. `convert` returns the tensors
under the names of timm, which sslcli's own networks share; a ResNet of timm has those of torchvision. Names that a layout does not
know are kept, so that a report can list them. Layouts that need no conversion are those of torchvision's ResNets, of timm, DINO
(github.com/facebookresearch/dino), MAE (facebookresearch/mae) and MoCo (facebookresearch/moco, moco-v3): their names are the same
below a prefix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """`marker`: a name of which one dictionary of this layout has exactly one, after the prefix."""

    name: str
    marker: str
    convert: Callable[[Tensors], dict[str, Tensor]]


def renamed(tensors: Tensors, rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """The tensors with each rule, a pattern and its replacement, applied to their names in this order."""
    out: dict[str, Tensor] = {}
    for name, value in tensors.items():
        for pattern, text in rules:
            name = re.sub(pattern, text, name)
        out[name] = value
    return out


def joined(tensors: dict[str, Tensor], parts: tuple[str, str, str], whole: str) -> dict[str, Tensor]:
    """The tensors with query, key and value of each block, whose names end in `parts`, concatenated as `whole`. A bias that one of
    them lacks is zero."""
    out = dict(tensors)
    for name in [name for name in tensors if name.endswith(f".{parts[0]}.weight")]:
        block = name.removesuffix(f"{parts[0]}.weight")
        out[f"{block}{whole}.weight"] = torch.cat(
            [out.pop(f"{block}{p}.weight") for p in parts if f"{block}{p}.weight" in out]
        )
        biases = {p: out.pop(f"{block}{p}.bias", None) for p in parts}
        if (known := next((b for b in biases.values() if b is not None), None)) is not None:
            out[f"{block}{whole}.bias"] = torch.cat(
                [torch.zeros_like(known) if b is None else b for b in biases.values()]
            )
    return out


# ------------------------------------------------------------------------------------------------------------ torchvision

_TORCHVISION_VIT = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
)


def _torchvision_vit(tensors: Tensors) -> dict[str, Tensor]:
    return renamed(tensors, _TORCHVISION_VIT)


# ----------------------------------------------------------------------------------------------------------- transformers

_ATTENTION = ("attn.query", "attn.key", "attn.value")
_TRANSFORMERS_EMBEDDINGS = (
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^layer\.(\d+)\.", r"blocks.\1."),
    (r"^layernorm\.", "norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
)
_TRANSFORMERS_DINOV3 = (
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    (r"^register_tokens$", "storage_tokens"),
)
_TRANSFORMERS_DINOV3_GATED = (
    (r"\.mlp\.gate_proj\.", ".mlp.w1."),
    (r"\.mlp\.up_proj\.", ".mlp.w2."),
    (r"\.mlp\.down_proj\.", ".mlp.w3."),
)


def _transformers_vit(tensors: Tensors) -> dict[str, Tensor]:
    """ViT, ViTMAE, DINOv2, and DINOv2 with registers: those of DINOv2 get the names of its own code, which timm reads."""
    out = joined(renamed(tensors, _TRANSFORMERS_EMBEDDINGS), _ATTENTION, "attn.qkv")
    if "blocks.0.ls1.gamma" in out:  # timm recognizes DINOv2 by its mask token
        return {"mask_token": torch.zeros(1), **out}
    return {name: v for name, v in out.items() if name != "mask_token"}


def _transformers_dinov3(tensors: Tensors) -> dict[str, Tensor]:
    gated = any(name.endswith("mlp.gate_proj.weight") for name in tensors)
    rules = _TRANSFORMERS_EMBEDDINGS + (_TRANSFORMERS_DINOV3_GATED if gated else ()) + _TRANSFORMERS_DINOV3
    return joined(renamed(tensors, rules), ("attn.q", "attn.k", "attn.v"), "attn.qkv")


_TRANSFORMERS_RESNET = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
)


def _transformers_resnet(tensors: Tensors) -> dict[str, Tensor]:
    """Blocks are numbered from 0 there, stages and layers of a block from 1 here."""

    def block(found: re.Match[str]) -> str:
        return f"layer{int(found[1]) + 1}.{found[2]}."

    def layer(found: re.Match[str]) -> str:
        return f".{'conv' if found[2] == 'convolution' else 'bn'}{int(found[1]) + 1}."

    out = renamed(tensors, _TRANSFORMERS_RESNET)
    out = {re.sub(r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.", block, name): v for name, v in out.items()}
    return {re.sub(r"\.layer\.(\d+)\.(convolution|normalization)\.", layer, name): v for name, v in out.items()}


# ----------------------------------------------------------------------------------------------------------------- dinov2


def _dinov2_chunks(tensors: Tensors) -> dict[str, Tensor]:
    """Training checkpoints of DINOv2 group the blocks: `blocks.GROUP.BLOCK`."""
    return renamed(tensors, ((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),))


# ---------------------------------------------------------------------------------------------------------------- lightly


def _lightly(tensors: Tensors) -> dict[str, Tensor]:
    """A ResNet as `nn.Sequential(*resnet.children())`: 0 is the convolution, 1 its norm, and the four stages follow in a row."""
    places = sorted({int(found[1]) for name in tensors if (found := re.match(r"(\d+)\.0\.conv1\.weight$", name))})
    names = {0: "conv1", 1: "bn1", **{place: f"layer{i + 1}" for i, place in enumerate(places)}}

    def place(found: re.Match[str]) -> str:
        return f"{names.get(int(found[1]), found[1])}."

    return {re.sub(r"^(\d+)\.", place, name): value for name, value in tensors.items()}


# ------------------------------------------------------------------------------------------------------ efficientnet_pytorch

_EFFICIENTNET = (
    (r"^_conv_stem\.", "conv_stem."),
    (r"^_bn0\.", "bn1."),
    (r"^_conv_head\.", "conv_head."),
    (r"^_bn1\.", "bn2."),
    (r"^_fc\.", "classifier."),
    (r"\._depthwise_conv\.", ".conv_dw."),
    (r"\._se_reduce\.", ".se.conv_reduce."),
    (r"\._se_expand\.", ".se.conv_expand."),
)
_SEPARABLE = ((r"\._project_conv\.", ".conv_pw."), (r"\._bn([12])\.", r".bn\1."))
_INVERTED = (
    (r"\._expand_conv\.", ".conv_pw."),
    (r"\._project_conv\.", ".conv_pwl."),
    (r"\._bn2\.", ".bn3."),
    (r"\._bn1\.", ".bn2."),
    (r"\._bn0\.", ".bn1."),
)


def _efficientnet(tensors: Tensors) -> dict[str, Tensor]:
    """timm groups the blocks by stage: one ends where the number of channels changes. A block without expansion has other names."""
    blocks = sorted({int(found[1]) for name in tensors if (found := re.match(r"_blocks\.(\d+)\.", name))})
    places: dict[int, str] = {}
    stage, index, width = -1, 0, 0
    for block in blocks:
        out = tensors.get(f"_blocks.{block}._project_conv.weight")
        channels = len(out) if out is not None else width
        stage, index, width = (stage, index + 1, width) if channels == width else (stage + 1, 0, channels)
        places[block] = f"blocks.{stage}.{index}"

    converted: dict[str, Tensor] = {}
    for name, value in tensors.items():
        rules = _EFFICIENTNET
        if found := re.match(r"_blocks\.(\d+)\.", name):
            inverted = f"{found[0]}_expand_conv.weight" in tensors
            rules = (
                (rf"^_blocks\.{found[1]}\.", f"{places[int(found[1])]}."),
                *(_INVERTED if inverted else _SEPARABLE),
                *rules,
            )
        converted |= renamed({name: value}, rules)
    return converted


LAYOUTS = (
    Layout("torchvision", "encoder.layers.encoder_layer_0.ln_1.weight", _torchvision_vit),
    Layout("transformers", "encoder.layer.0.attention.attention.query.weight", _transformers_vit),
    Layout("transformers", "layer.0.attention.q_proj.weight", _transformers_dinov3),
    Layout("transformers", "embedder.embedder.convolution.weight", _transformers_resnet),
    Layout("DINOv2", "blocks.0.0.ls1.gamma", _dinov2_chunks),
    Layout("lightly", "4.0.conv1.weight", _lightly),
    Layout("lightly", "2.0.conv1.weight", _lightly),
    Layout("efficientnet_pytorch", "_conv_stem.weight", _efficientnet),
)


def converted(tensors: Tensors) -> list[tuple[str, str, dict[str, Tensor]]]:
    """(layout, prefix, tensors under timm's names) for each layout that a dictionary of tensors has below some prefix."""
    found = []
    for layout in LAYOUTS:
        ends = (name.removesuffix(layout.marker) for name in tensors if name.endswith(layout.marker))
        for prefix in [prefix for prefix in ends if not prefix or prefix.endswith(".")]:
            below = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
            found.append((layout.name, prefix, layout.convert(below)))
    return found
