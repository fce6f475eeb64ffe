"""Writes tests/golden/mae.json and masked.json: transformers' ViTMAEForPreTraining and ViTForMaskedImageModeling (SimMIM) with
our weights and our masks, in float64.

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
from sslcli.methods.mae import MAE  # noqa: E402
from sslcli.methods.simmim import SimMIM  # noqa: E402
from sslcli.nn.masking import random_keep  # noqa: E402

PATCH = 2
OUTSIDE = {  # of the blocks, by the names that transformers 5 uses in memory
    "backbone.cls_token": "vit.embeddings.cls_token",
    "backbone.pos_embed": "vit.embeddings.position_embeddings",
    "backbone.patch_embed.proj.": "vit.embeddings.patch_embeddings.projection.",
    "backbone.norm.": "vit.layernorm.",
    "embed.": "decoder.decoder_embed.",
    "mask_token": "decoder.mask_token",
    "positions": "decoder.decoder_pos_embed",
    "norm.": "decoder.decoder_norm.",
    "to_pixels.": "decoder.decoder_pred.",
}
STACKS = {"backbone.blocks.": "vit.layers.", "decoder.": "decoder.decoder_layers."}
INSIDE = {
    "norm1.": "layernorm_before.",
    "attn.proj.": "attention.o_proj.",
    "norm2.": "layernorm_after.",
    "mlp.": "mlp.",
}


def simmim() -> None:
    """ViTForMaskedImageModeling."""
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
            theirs.load_state_dict(simmim_weights(ours), strict=True)
        x = numbers(5, 3, channels, 8, 8)
        _, hidden = random_keep(uniform(6, 3, 16), ours.keep)
        with torch.no_grad():
            out = theirs(pixel_values=x, bool_masked_pos=hidden)
        # their sum is divided by the number of hidden pixels + 1e-5
        cases.append({"channels": channels, "loss": out.loss.item(), "drawn": out.reconstruction.flatten().tolist()})
    save("masked", {"made_with": f"transformers {version('transformers')}, torch {version('torch')}", "cases": cases})


def mae() -> None:
    """ViTMAEForPreTraining."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    cases = []
    for channels, norm_pix in [(3, True), (1, False)]:
        ours = fill(
            MAE(ViT((channels, 8, 8), width=16, depth=2, heads=2, patch=2), norm_pix=norm_pix, decoder_depth=2), 20
        )
        config = ViTMAEConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=8,
            patch_size=2, num_channels=channels, layer_norm_eps=1e-6, decoder_hidden_size=16,
            decoder_num_hidden_layers=2, decoder_num_attention_heads=4, decoder_intermediate_size=64, mask_ratio=0.75,
            norm_pix_loss=norm_pix,
        )  # fmt: skip
        theirs = ViTMAEForPreTraining(config).double().eval()
        with torch.no_grad():
            theirs.load_state_dict(mae_weights(ours), strict=True)
        x, noise = numbers(5, 3, channels, 8, 8), uniform(6, 3, 16)
        out = theirs(pixel_values=x, noise=noise)
        case = {"channels": channels, "norm_pix": norm_pix, "loss": out.loss.item()}
        cases.append(case | {"hidden": out.mask.int().tolist()})
    made = f"transformers {version('transformers')}, torch {version('torch')}"
    save("mae", {"made_with": made, "cases": cases})


def simmim_weights(ours: SimMIM) -> dict[str, torch.Tensor]:
    """A pixel's channels stand together in our last layer, apart in theirs."""
    state = dict(ours.state_dict())
    token, weight, bias = (state.pop(key) for key in ("mask_token", "to_pixels.weight", "to_pixels.bias"))
    weight, bias = (v.view(PATCH * PATCH, -1, *v.shape[1:]).transpose(0, 1).flatten(0, 1) for v in (weight, bias))
    last = {"decoder.0.weight": weight[:, :, None, None], "decoder.0.bias": bias}
    return {"vit.embeddings.mask_token": token.view(1, 1, -1), **last, **as_transformers(state)}


def mae_weights(ours: MAE) -> dict[str, torch.Tensor]:
    return as_transformers({**ours.state_dict(), "positions": ours.positions[None]})


def as_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our weights by their names."""
    out = {}
    for key, value in state.items():
        stack = next((s for s in STACKS if key.startswith(s)), None)
        if stack is None:
            old = next(k for k in OUTSIDE if key.startswith(k))
            out[key.replace(old, OUTSIDE[old], 1)] = value
            continue
        number, _, rest = key.removeprefix(stack).partition(".")
        head = f"{STACKS[stack]}{number}."
        if rest.startswith("attn.qkv."):
            for part, name in zip(value.chunk(3), "qkv", strict=True):
                out[f"{head}attention.{name}_proj.{rest.rpartition('.')[2]}"] = part
        else:
            old = next(k for k in INSIDE if rest.startswith(k))
            out[head + rest.replace(old, INSIDE[old], 1)] = value
    return out


if __name__ == "__main__":
    simmim()
    mae()
