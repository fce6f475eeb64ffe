"""Writes tests/golden/masked.json: transformers' ViTForMaskedImageModeling (SimMIM) with our weights and our mask, in float64.

pip install . transformers
python scripts/golden/masked.py
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "tests" / "golden")]

from golden_inputs import fill, numbers, save, uniform  # noqa: E402

from sslcli.backbones.vit import ViT  # noqa: E402
from sslcli.methods.simmim import SimMIM  # noqa: E402
from sslcli.nn.masking import random_keep  # noqa: E402

PATCH = 2


def main() -> None:
    from transformers import ViTConfig, ViTForMaskedImageModeling

    cases = []
    for channels in (3, 1):
        ours = fill(SimMIM(ViT((channels, 8, 8), width=16, depth=2, heads=2, patch=PATCH, positions="learned")), 20)
        config = ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=8,
            patch_size=PATCH, num_channels=channels, layer_norm_eps=1e-6, encoder_stride=PATCH,
        )  # fmt: skip
        theirs = ViTForMaskedImageModeling(config).double().eval()
        with torch.no_grad():
            theirs.load_state_dict(as_transformers(ours), strict=True)
        x = numbers(5, 3, channels, 8, 8)
        _, hidden = random_keep(uniform(6, 3, 16), ours.keep)
        with torch.no_grad():
            out = theirs(pixel_values=x, bool_masked_pos=hidden)
        # their sum is divided by the number of hidden pixels + 1e-5
        cases.append({"channels": channels, "loss": out.loss.item(), "drawn": out.reconstruction.flatten().tolist()})
    save("masked", {"made_with": f"transformers {version('transformers')}, torch {version('torch')}", "cases": cases})


def as_transformers(ours: SimMIM) -> dict[str, torch.Tensor]:
    """Our weights by the names that transformers 5 uses in memory; a pixel's channels stand together in ours, apart in theirs."""
    fixed = {
        "backbone.cls_token": "vit.embeddings.cls_token",
        "backbone.pos_embed": "vit.embeddings.position_embeddings",
        "backbone.patch_embed.proj.": "vit.embeddings.patch_embeddings.projection.",
        "backbone.norm.": "vit.layernorm.",
    }
    inside = {
        "norm1.": "layernorm_before.",
        "attn.proj.": "attention.o_proj.",
        "norm2.": "layernorm_after.",
        "mlp.": "mlp.",
    }
    out = {}
    for key, value in ours.state_dict().items():
        if key == "mask_token":
            out["vit.embeddings.mask_token"] = value.view(1, 1, -1)
        elif key.startswith("to_pixels."):
            rows = value.view(PATCH * PATCH, -1, *value.shape[1:]).transpose(0, 1).flatten(0, 1)
            weight = key.endswith("weight")
            out[f"decoder.0.{key.rpartition('.')[2]}"] = rows[:, :, None, None] if weight else rows
        elif key.startswith("backbone.blocks."):
            number, _, rest = key.removeprefix("backbone.blocks.").partition(".")
            head = f"vit.layers.{number}."
            if rest.startswith("attn.qkv."):
                for part, name in zip(value.chunk(3), "qkv", strict=True):
                    out[f"{head}attention.{name}_proj.{rest.rpartition('.')[2]}"] = part
            else:
                old = next(k for k in inside if rest.startswith(k))
                out[head + rest.replace(old, inside[old], 1)] = value
        else:
            old = next(k for k in fixed if key.startswith(k))
            out[key.replace(old, fixed[old], 1)] = value
    return out


if __name__ == "__main__":
    main()
