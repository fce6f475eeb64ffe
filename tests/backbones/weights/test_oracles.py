"""Weights in the layouts of torchvision, timm, DINO, MAE, MoCo, lightly and transformers give the features of those libraries.

The networks have random weights and few layers. The claims: equal features at the original size, and at another size features equal
to those of timm's resampling.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sslcli.backbones.resnet import ResNet
from sslcli.backbones.timm_model import TimmModel
from sslcli.backbones.torchvision_model import TorchvisionModel
from sslcli.backbones.vit import ViT
from sslcli.backbones.weights import matching, reading
from sslcli.backbones.weights.adaptation import resample_patch
from sslcli.backbones.weights.families import timm_name

TOLERANCE = 1e-5


def perturbed(net: nn.Module, seed: int = 0) -> nn.Module:
    """A network in evaluation mode, no tensor of which has its initial value of 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.05 * torch.rand(tensor.shape, generator=generator))
    return net.eval()


@torch.no_grad()
def assert_same_features(backbone: nn.Module, content: object, expected: Tensor, x: Tensor, path: Path) -> str:
    torch.save(content, path / "w.pth")
    said = matching.load_into(backbone, reading.read(str(path / "w.pth")), "w.pth")
    assert " 100.0% of" in said, said
    scale = max(1.0, float(expected.abs().max()))
    assert float((backbone.eval()(x) - expected).abs().max()) <= TOLERANCE * scale
    return said


def images(side: int = 32, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1))


def saved_by_transformers(net: nn.Module, path: Path) -> dict[str, Tensor]:
    """The tensors of a network of transformers under the names that it writes, which are not those in memory."""
    net.save_pretrained(path / "saved")
    return load_file(path / "saved" / "model.safetensors")


def small_vit(side: int = 32, channels: int = 3, pool: str = "cls") -> ViT:
    return ViT((channels, side, side), width=24, depth=2, heads=2, patch=8, pool=pool, positions="learned")


def timm_vit(side: int = 32, **options: object) -> nn.Module:
    sizes = {"img_size": side, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return perturbed(VisionTransformer(**sizes, num_classes=5, **options))


def features(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.forward_head(net.forward_features(x), pre_logits=True)


def test_torchvision_resnet(tmp_path):
    net = perturbed(torchvision.models.resnet18())
    content = dict(net.state_dict())
    net.fc = nn.Identity()
    x = images()
    said = assert_same_features(ResNet((3, 32, 32), stem="imagenet"), content, net(x).detach(), x, tmp_path)
    assert "unexpected, ignored: fc.weight, fc.bias" in said
    backbone = TimmModel((3, 32, 32), "resnet18")
    assert_same_features(backbone, content, net(x).detach(), x, tmp_path)


@pytest.mark.parametrize(
    "nest",
    [
        lambda w: {"state_dict": {f"module.encoder_q.{k}": v for k, v in w.items()}},
        lambda w: {"state_dict": {f"module.base_encoder.{k}": v for k, v in w.items()}, "epoch": 1},
        lambda w: {"teacher": {f"module.backbone.{k}": v for k, v in w.items()}},
    ],
    ids=["MoCo v2", "MoCo v3", "DINO"],
)
def test_resnet_below_prefixes(nest, tmp_path):
    net = perturbed(torchvision.models.resnet18(), seed=2)
    x = images()
    content = nest(dict(net.state_dict()))
    net.fc = nn.Identity()
    assert_same_features(ResNet((3, 32, 32), stem="imagenet"), content, net(x).detach(), x, tmp_path)


def test_lightly_resnet(tmp_path):
    net = perturbed(torchvision.models.resnet18(), seed=3)
    backbone = nn.Sequential(*list(net.children())[:-1])
    content = {f"backbone.{k}": v for k, v in backbone.state_dict().items()}
    x = images()
    with torch.no_grad():
        expected = backbone(x).flatten(1)
    said = assert_same_features(ResNet((3, 32, 32), stem="imagenet"), content, expected, x, tmp_path)
    assert "in the layout of lightly" in said


def test_torchvision_transformer(tmp_path):
    net = perturbed(torchvision.models.VisionTransformer(32, 8, 2, 2, 24, 96))
    x, content = images(), dict(net.state_dict())
    net.heads = nn.Identity()
    assert_same_features(small_vit(), content, net(x).detach(), x, tmp_path)


def test_timm_transformer_at_two_sizes(tmp_path):
    net, x = timm_vit(), images()
    assert_same_features(small_vit(), net.state_dict(), features(net, x), x, tmp_path)
    larger = timm_vit(48)
    resampled = resample_abs_pos_embed(net.state_dict()["pos_embed"], [6, 6], num_prefix_tokens=1)
    larger.load_state_dict({**net.state_dict(), "pos_embed": resampled})
    x = images(48)
    said = assert_same_features(small_vit(48), net.state_dict(), features(larger, x), x, tmp_path)
    assert "pos_embed interpolated from a grid of 4x4 to 6x6" in said


def test_timm_transformer_with_other_channels(tmp_path):
    net = timm_vit()
    gray = timm_vit(in_chans=1)
    content = net.state_dict()
    gray.load_state_dict(
        {**content, "patch_embed.proj.weight": content["patch_embed.proj.weight"].sum(1, keepdim=True)}
    )
    x = images(channels=1)
    said = assert_same_features(small_vit(channels=1), content, features(gray, x), x, tmp_path)
    assert "from 3 to 1 channels" in said


def test_mae_checkpoint(tmp_path):
    """MAE's code has timm's names in `model`, and a decoder."""
    net = timm_vit(global_pool="avg", fc_norm=False)
    decoder = {"mask_token": torch.zeros(1, 1, 16), "decoder_pos_embed": torch.zeros(1, 17, 16)}
    decoder |= {"decoder_blocks.0.norm1.weight": torch.ones(16), "decoder_pred.weight": torch.zeros(192, 16)}
    content = {"model": {**net.state_dict(), **decoder}}
    x = images()
    assert_same_features(small_vit(pool="mean"), content, features(net, x), x, tmp_path)


def test_transformers_mae(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    config = transformers.ViTMAEConfig(
        **sizes,
        **decoder,
        decoder_intermediate_size=16,
        image_size=32,
        patch_size=8,
        mask_ratio=0.0,
        layer_norm_eps=1e-6,
    )
    net, x = perturbed(transformers.ViTMAEForPreTraining(config)), images()
    with torch.no_grad():
        tokens = net.vit(x, noise=torch.arange(16.0).expand(2, 16)).last_hidden_state
    content = saved_by_transformers(net, tmp_path)
    assert_same_features(small_vit(pool="mean"), content, tokens[:, 1:].mean(dim=1), x, tmp_path)


def dinov2(**options: object) -> nn.Module:
    return timm.create_model("vit_small_patch14_dinov2", num_classes=0, depth=1, **options)


def test_dinov2_checkpoint_at_two_sizes(tmp_path, monkeypatch):
    """The code of DINOv2 has a mask token beside timm's names; timm's own loader converts its tensors."""
    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **kw: original(name, **{**kw, "depth": 1}))
    net = perturbed(dinov2(img_size=56))
    content = {
        "teacher": {f"backbone.{k}": v for k, v in net.state_dict().items()}
        | {"backbone.mask_token": torch.zeros(1, 384)}
    }
    x = images(56)
    assert_same_features(TimmModel((3, 56, 56), "vit_small_patch14_dinov2"), content, net(x).detach(), x, tmp_path)
    larger = dinov2(img_size=84).eval()
    resampled = resample_abs_pos_embed(net.state_dict()["pos_embed"], [6, 6], num_prefix_tokens=1)
    larger.load_state_dict({**net.state_dict(), "pos_embed": resampled})
    x = images(84)
    said = assert_same_features(
        TimmModel((3, 84, 84), "vit_small_patch14_dinov2"), content, larger(x).detach(), x, tmp_path
    )
    assert "pos_embed converted from 1x17x384 to 1x37x384" in said
    assert timm_name(content) == "vit_small_patch14_dinov2"


@pytest.mark.parametrize("registers", [0, 4])
def test_transformers_dinov2(registers, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **kw: original(name, **{**kw, "depth": 1}))
    kinds = (transformers.Dinov2Config, transformers.Dinov2Model)
    if registers:
        kinds = (transformers.Dinov2WithRegistersConfig, transformers.Dinov2WithRegistersModel)
    config = kinds[0](hidden_size=384, num_hidden_layers=1, num_attention_heads=6, image_size=56, patch_size=14)
    net, x = perturbed(kinds[1](config)), images(56)
    content = saved_by_transformers(net, tmp_path)
    name = timm_name(content)
    assert name == f"vit_small_patch14_{'reg4_' if registers else ''}dinov2"
    with torch.no_grad():
        expected = net(x).last_hidden_state[:, 0]
    assert_same_features(TimmModel((3, 56, 56), name), content, expected, x, tmp_path)


def test_transformers_dinov3_at_two_sizes(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **kw: original(name, **{**kw, "depth": 1}))
    sizes = {"hidden_size": 384, "num_hidden_layers": 1, "num_attention_heads": 6, "intermediate_size": 1536}
    config = transformers.DINOv3ViTConfig(**sizes, image_size=32, patch_size=16, num_register_tokens=4)
    net = perturbed(transformers.DINOv3ViTModel(config))
    content = saved_by_transformers(net, tmp_path)
    name = timm_name(content)
    assert name == "vit_small_patch16_dinov3_qkvb"
    for side in (32, 64):
        x = images(side)
        with torch.no_grad():
            expected = net(x).last_hidden_state[:, 0]
        backbone = TimmModel((3, side, side), name)
        backbone.net.global_pool = "token"
        assert_same_features(backbone, content, expected, x, tmp_path)


def test_transformers_resnet(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic")
    net, x = perturbed(transformers.ResNetModel(config)), images()
    with torch.no_grad():
        expected = net(x).pooler_output.flatten(1)
    content = saved_by_transformers(net, tmp_path)
    assert_same_features(ResNet((3, 32, 32), stem="imagenet"), content, expected, x, tmp_path)


def test_torchvision_transformer_at_another_size(monkeypatch):
    """backbone=torchvision keeps torchvision's names, below `net.`."""

    def small(name: str, image_size: int, **options: object) -> nn.Module:
        return torchvision.models.VisionTransformer(image_size, 8, 2, 2, 24, 96)

    monkeypatch.setattr(torchvision.models, "get_model", small)
    backbone, larger = TorchvisionModel((3, 32, 32), "vit_b_32"), TorchvisionModel((3, 56, 56), "vit_b_32")
    content = {k.removeprefix("net."): v for k, v in larger.state_dict().items()}
    said = matching.load_into(backbone, content, "w")
    assert "encoder.pos_embedding interpolated from a grid of 7x7 to 4x4" in said
    expected = resample_abs_pos_embed(content["encoder.pos_embedding"], [4, 4])
    assert torch.allclose(backbone.net.encoder.pos_embedding, expected, atol=1e-6)


def test_patches_are_resampled_as_by_timm():
    weight = torch.randn(4, 3, 8, 8)
    assert torch.allclose(resample_patch(weight, (6, 6)), resample_patch_embed(weight, [6, 6]), atol=1e-5)


def test_efficientnet_pytorch_names(tmp_path):
    """The names of efficientnet_pytorch, whose blocks are in one row, from those of timm."""
    net = perturbed(timm.create_model("tf_efficientnet_lite0", num_classes=0))
    content, index = {}, -1
    places = {
        p: i
        for i, p in enumerate(dict.fromkeys(k.rsplit(".", 2)[0] for k in net.state_dict() if k.startswith("blocks.")))
    }
    top = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    later = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    later |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    for name, value in net.state_dict().items():
        *place, module, leaf = name.split(".")
        if not place:
            content[f"{top[module]}.{leaf}"] = value
            continue
        index = places[".".join(place)]
        content[f"_blocks.{index}.{(later if index else first)[module]}.{leaf}"] = value
    x = images(64)
    said = assert_same_features(TimmModel((3, 64, 64), "tf_efficientnet_lite0"), content, net(x).detach(), x, tmp_path)
    assert "in the layout of efficientnet_pytorch" in said
