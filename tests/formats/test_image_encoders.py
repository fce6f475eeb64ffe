"""init=timm:NAME, hf:FOLDER and hf:NAME of images, and files as initial weights and as teachers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sslcli.backbones.resnet import ResNet
from sslcli.errors import MachineError, RequestError
from sslcli.formats import hub
from sslcli.formats.initial import open_encoder
from sslcli.formats.registry import pretrained
from tests.conftest import SMOKE

SHAPE = (3, 32, 32)
SIZES = {"width": 24, "depth": 2, "heads": 2}
PRETRAIN = [word for word in SMOKE if not word.startswith("backbone.")] + ["train.steps=1", "train.epochs=null"]
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Empty caches of the Hub and of torch.hub."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def put_into_cache(folder: Path, name: str, net: nn.Module, config: dict[str, Any] | None = None) -> Path:
    """A model as huggingface_hub keeps it."""
    place = folder / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = place / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123456789abcdef")
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps(config or {}))
    return snapshot


def small_vit() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=7)


def transformers_folder(folder: Path) -> Path:
    """sslcli's ViT in the names of transformers, without that package."""
    net = small_vit().state_dict()
    names = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings"}
    names |= {
        f"patch_embed.proj.{leaf}": f"embeddings.patch_embeddings.projection.{leaf}" for leaf in ("weight", "bias")
    }
    names |= {f"norm.{leaf}": f"layernorm.{leaf}" for leaf in ("weight", "bias")}
    tensors = {new: net[old] for old, new in names.items()}
    for i in range(2):
        for leaf in ("weight", "bias"):
            block, ours = f"encoder.layer.{i}", f"blocks.{i}"
            for part, value in zip(("query", "key", "value"), net[f"{ours}.attn.qkv.{leaf}"].chunk(3), strict=True):
                tensors[f"{block}.attention.attention.{part}.{leaf}"] = value.clone()
            tensors[f"{block}.attention.output.dense.{leaf}"] = net[f"{ours}.attn.proj.{leaf}"]
            tensors[f"{block}.intermediate.dense.{leaf}"] = net[f"{ours}.mlp.fc1.{leaf}"]
            tensors[f"{block}.output.dense.{leaf}"] = net[f"{ours}.mlp.fc2.{leaf}"]
            tensors[f"{block}.layernorm_before.{leaf}"] = net[f"{ours}.norm1.{leaf}"]
            tensors[f"{block}.layernorm_after.{leaf}"] = net[f"{ours}.norm2.{leaf}"]
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "vit", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"intermediate_size": 96, "image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-6}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    return folder


def test_folder_of_transformers_defines_the_backbone(tmp_path):
    backbone, info, preprocessor = open_encoder(f"hf:{transformers_folder(tmp_path / 'vit')}")
    x, net = torch.randn(2, *SHAPE), small_vit().eval()
    assert torch.allclose(backbone.eval()(x), net.forward_features(x)[:, 0], atol=1e-5)
    assert (list(preprocessor.values.mean), info["input_shape"]) == (MEAN, [3, 32, 32])
    encoder = pretrained(f"hf:{tmp_path / 'vit'}")
    node = {"_target_": "sslcli.backbones.convnet.ConvNet", "width": 32}
    values = encoder.configure(
        {"backbone": node, "dataset": {"image_size": None, "max_size": 64}, "normalization": None}, []
    )
    assert values["dataset"]["max_size"] == 32
    assert values["normalization"] == {"mean": MEAN, "std": STD}
    assert values["backbone"]["patch"] == 8
    changed = {**values, "backbone": {**values["backbone"], "depth": 3}}
    with pytest.raises(RequestError, match=r"backbone\.depth=3 contradicts"):
        encoder.configure(changed, ["backbone.depth=3"])


def test_timm_model_in_the_cache(cli, tmp_path, monkeypatch):
    """A run has the backbone, the normalization and the size of the weights, and is evaluated without the cache."""
    torch.manual_seed(1)
    net = timm.create_model("test_resnet", num_classes=9)
    put_into_cache(tmp_path, "timm/test_resnet.r160_in1k", net)
    done = cli("pretrain", *PRETRAIN, "init=timm:test_resnet", "method=byol", "train.freeze=1", "train.batch_size=16")
    assert done.code == 0, done.err
    assert "matched, 100.0% of the backbone's parameters" in done.err
    assert "conv1.0.weight converted from 3 to 1 channels" in done.err
    assert "pretrained on images of 160 x 160" in done.err
    config = yaml.safe_load((Path(done.last) / "config.yaml").read_text())
    assert config["init"] == "timm:test_resnet.r160_in1k"
    assert config["backbone"]["name"] == "test_resnet"
    assert config["normalization"] == {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    info = json.loads((Path(done.last) / "encoder.json").read_text())
    assert info["values"]["mean"] == [0.5]
    given = cli("eval", "knn", f"run={done.last}", "--json")
    assert "given.top1" in json.loads(given.out)["numbers"]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    without = cli("eval", "knn", f"run={done.last}", "evaluator.k=3")
    assert without.code == 0, without.err
    assert "given.top1" not in without.out


def test_weights_that_are_not_here_are_not_downloaded(cli, tmp_path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(hub, "download", lambda name: asked.append(name) or put_into_cache(tmp_path, name, net))
    net = timm.create_model("test_resnet", num_classes=0)
    refused = cli("pretrain", *PRETRAIN, "init=timm:test_resnet")
    assert refused.code == 2
    assert "are not on this machine (they are timm/test_resnet.r160_in1k)" in refused.err
    assert "init.download=true" in refused.err
    assert not asked
    done = cli("pretrain", *PRETRAIN, "init=timm:test_resnet", "init.download=true", "--dry-run")
    assert done.code == 0, done.err
    assert asked == ["timm/test_resnet.r160_in1k"]


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("timm:resnt18", "no model named 'resnt18'", "init=timm:resnet18"),
        ("timm:resnet18.a9_in1k", "no pretrained weights named", "init=timm:resnet18.a"),
        ("hf:facebook/dinov2-small", "nor such a model in the cache", "init.download=true"),
        ("hf:../none", "there is no such folder", "hf:FOLDER"),
        ("tim:resnet18", "unknown format 'tim:'", "timm:resnet18"),
    ],
)
def test_wrong_names_have_a_hint(spec, message, hint):
    with pytest.raises(RequestError, match=message) as error:
        pretrained(spec)
    assert hint in str(error.value.hint)


def test_failed_download_is_an_error_of_the_machine(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def fail(*args: object, **options: object) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(MachineError, match="cannot be downloaded: no route to host"):
        hub.download("timm/test_resnet.r160_in1k")


def test_file_as_teacher(tmp_path, monkeypatch):
    """The backbone of a file is found by its names, and its normalization is that of the code that wrote it."""
    torch.manual_seed(2)
    weights = ResNet((3, 64, 64), stem="imagenet").state_dict()
    torch.save({"state_dict": {f"module.encoder_q.{k}": v for k, v in weights.items()}}, tmp_path / "moco.pth")
    backbone, info, preprocessor = open_encoder(str(tmp_path / "moco.pth"), (3, 64, 64))
    assert (info["backbone"]["depth"], info["backbone"]["stem"]) == (18, "imagenet")
    assert all(torch.equal(v, weights[k]) for k, v in backbone.state_dict().items())
    assert preprocessor.values.mean == (0.485, 0.456, 0.406)
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(RequestError, match="no backbone is known that these weights match"):
        open_encoder(str(tmp_path / "linear.pth"), (3, 64, 64))


def test_normalization_of_the_command_line(cli):
    done = cli("pretrain", *SMOKE, "train.steps=1", "train.epochs=null", "normalization={mean: [0.25], std: [0.5]}")
    assert done.code == 0, done.err
    info = json.loads((Path(done.last) / "encoder.json").read_text())
    assert (info["values"]["mean"], info["values"]["std"]) == ([0.25], [0.5])
    refused = cli("pretrain", *SMOKE, "normalization=imagenot")
    assert refused.code == 2
    assert "expected data, imagenet, or" in refused.err
