"""Writes tests/golden/*.json: what other people's code answers to inputs made from seeds.

The tests read these files and need none of the packages. To make them again, in an environment of its own:

    pip install . timm transformers && pip install --no-deps "lightly==1.6.*" lightly_utils
    python scripts/make_golden.py
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests" / "golden")]

from golden_inputs import fill, numbers, save, uniform  # noqa: E402

from sslcli.backbones.vit import ViT  # noqa: E402
from sslcli.methods.mae import MAE  # noqa: E402

SIZES = [(2, 3), (5, 8), (16, 32)]


def losses() -> None:
    """lightly's losses in float64."""
    from lightly.loss import NegativeCosineSimilarity, NTXentLoss, VICRegLoss

    cases = []
    for n, d in SIZES:
        z1, z2 = numbers(1, n, d), numbers(2, n, d)
        bank = nn.functional.normalize(numbers(3, 7, d), dim=1)
        moco = NTXentLoss(temperature=0.2, memory_bank_size=(7, d)).double()
        moco.memory_bank.bank = bank.clone()
        moco.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.int64)
        cases.append(
            {
                "n": n,
                "d": d,
                "nt_xent": {t: NTXentLoss(temperature=float(t))(z1, z2).item() for t in ("0.1", "0.2", "0.5")},
                "moco": moco(z1, z2).item(),
                "negative_cosine": NegativeCosineSimilarity()(z1, z2).item(),
                "vicreg": VICRegLoss()(z1, z2).item(),
                "vicreg_covariance": VICRegLoss(lambda_param=0.0, mu_param=0.0)(z1, z2).item(),
                "vicreg_variance": VICRegLoss(lambda_param=0.0, nu_param=0.0)(z1, z2).item(),
            }
        )
    save("losses", {"made_with": f"lightly {version('lightly')}, torch {version('torch')}", "cases": cases})


def vit() -> None:
    """timm's VisionTransformer with our weights: every token after the last norm."""
    from timm.models.vision_transformer import VisionTransformer

    cases = []
    sizes = {"width": 16, "depth": 2}
    for shape, patch, heads in [((3, 8, 8), 4, 2), ((1, 6, 12), 3, 4)]:
        ours = fill(ViT(shape, **sizes, heads=heads, patch=patch, positions="learned"), 10)
        theirs = VisionTransformer(
            img_size=shape[1:], patch_size=patch, in_chans=shape[0], num_classes=0, embed_dim=16, depth=2,
            num_heads=heads,
        ).double()  # fmt: skip
        theirs.load_state_dict(ours.state_dict(), strict=True)
        tokens = theirs.eval().forward_features(numbers(4, 2, *shape))
        case = {"shape": shape, "patch": patch, "heads": heads, "keys": sorted(theirs.state_dict())}
        cases.append(case | {"tokens": tokens.flatten().tolist()})
    save("vit", {"made_with": f"timm {version('timm')}, torch {version('torch')}", "cases": cases})


def mae() -> None:
    """transformers' ViTMAEForPreTraining with our weights and our mask."""
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
            theirs.load_state_dict(as_transformers(ours), strict=True)
        x, noise = numbers(5, 3, channels, 8, 8), uniform(6, 3, 16)
        out = theirs(pixel_values=x, noise=noise)
        case = {"channels": channels, "norm_pix": norm_pix, "loss": out.loss.item()}
        cases.append(case | {"hidden": out.mask.int().tolist()})
    made = f"transformers {version('transformers')}, torch {version('torch')}"
    save("mae", {"made_with": made, "cases": cases})


def as_transformers(ours: MAE) -> dict[str, torch.Tensor]:
    """Our MAE's weights by the names that transformers 5 uses in memory."""
    state = dict(ours.state_dict())
    state["positions"] = ours.positions[None]
    fixed = {
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
    inside = {
        "norm1.": "layernorm_before.",
        "attn.proj.": "attention.o_proj.",
        "norm2.": "layernorm_after.",
        "mlp.": "mlp.",
    }
    out = {}
    for key, value in state.items():
        stack = next((s for s in ("backbone.blocks.", "decoder.") if key.startswith(s)), None)
        if stack is None:
            old = next(k for k in fixed if key.startswith(k))
            out[key.replace(old, fixed[old], 1)] = value
            continue
        number, _, rest = key.removeprefix(stack).partition(".")
        head = f"vit.layers.{number}." if stack.startswith("backbone") else f"decoder.decoder_layers.{number}."
        if rest.startswith("attn.qkv."):
            for part, name in zip(value.chunk(3), "qkv", strict=True):
                out[f"{head}attention.{name}_proj.{rest.rpartition('.')[2]}"] = part
        else:
            old = next(k for k in inside if rest.startswith(k))
            out[head + rest.replace(old, inside[old], 1)] = value
    return out


if __name__ == "__main__":
    losses()
    vit()
    mae()
