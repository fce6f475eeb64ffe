"""The contract of backbones, for every YAML in configs/backbone; then properties of each."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from golden_inputs import fill, load, numbers

from sslcli.backbones.base import Backbone, TokenBackbone
from sslcli.backbones.convnet import ConvNet
from sslcli.backbones.resnet import ResNet
from sslcli.backbones.tcn import TCN
from sslcli.backbones.torchvision_model import TorchvisionModel
from sslcli.backbones.vit import ViT, patch_size
from sslcli.errors import MachineError, RequestError

FOLDER = Path(__file__).parents[2] / "configs" / "backbone"
NAMES = sorted(p.stem for p in FOLDER.glob("*.yaml"))
SMALL = {"depth": 1} | {"width": 16, "heads": 2}  # a big transformer, small enough for a test
IMAGE, SERIES = (2, 24, 24), (2, 21)
OTHER_SIZES = {
    "audio_convnet",
    "audio_gru",
    "resnet34",
    "resnet50",
    "vit_micro",
    "vit_small",
    "vit_base",
    "patch_vit",
    "bert_tiny",
    "bert_small",
    "bert_base",
    "sasrec",
    "bert4rec",
}  # than a class has


def recipe(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def target(name: str) -> type[Backbone]:
    module, _, word = recipe(name)["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), word)


def build(name: str, shape: tuple[int, ...]) -> Backbone:
    if name == "timm":
        pytest.importorskip("timm")
    options = {k: v for k, v in recipe(name).items() if k not in ("_target_", "summary")}
    if name.startswith("vit"):
        options |= SMALL
    if name == "torchvision":
        options["name"] = "resnet18"
    return target(name)(input_shape=shape, **options)


def fits(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) in target(name).accepts.get("continuous", ())


@pytest.mark.parametrize("name", NAMES)
def test_yaml_and_signature_agree(name):
    mine = recipe(name)
    assert mine["summary"]
    parameters = list(inspect.signature(target(name).__init__).parameters.values())[2:]  # without self, input_shape
    parameters = [p for p in parameters if p.name != "values"]
    assert [p.name for p in parameters] == [k for k in mine if k not in ("_target_", "summary")]
    if name not in OTHER_SIZES:
        assert {p.name: p.default for p in parameters} == {
            k: v for k, v in mine.items() if k not in ("_target_", "summary")
        }


@pytest.mark.parametrize("shape", [IMAGE, SERIES], ids=["image", "series"])
@pytest.mark.parametrize("name", NAMES)
def test_output_shape_or_error(name, shape):
    if not fits(name, shape):
        with pytest.raises(RequestError, match="requires") as caught:
            target(name)(input_shape=shape)
        assert "backbone=" in (caught.value.hint or "")
        return
    network = build(name, shape)
    out = network(torch.randn(3, *shape))
    assert out.shape == (3, network.dim)
    assert torch.isfinite(out).all()
    assert network.input_shape == shape
    out.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", [n for n in NAMES if fits(n, SERIES)])
def test_padded_series_gives_finite_features(name):
    network = build(name, SERIES).eval()
    x = torch.randn(3, *SERIES)
    x[0, :, 9:] = float("nan")
    x[1, 0, 3] = float("nan")
    x[2] = float("nan")
    assert torch.isfinite(network(x)).all()


# convnet -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dim", "side"),
    [((1, 8, 8), 128, 2), ((3, 28, 28), 256, 4), ((3, 32, 32), 256, 4), ((3, 96, 96), 256, 3), ((3, 224, 224), 256, 4)],
)
def test_convnet_widths_and_maps(shape, dim, side):
    network = ConvNet(shape)
    assert network.dim == dim
    assert network.features(torch.randn(2, *shape)).shape == (2, dim, side, side)


def test_convnet_any_channels_and_sizes():
    for shape in [(1, 1, 1), (5, 7, 13), (2, 65, 9)]:
        assert ConvNet(shape, width=4)(torch.randn(2, *shape)).shape[0] == 2


def test_convnet_keeps_the_rows_of_spectrograms():
    """`pool=rows`: the mean and the maximum over time of each row of the map, at any number of frames."""
    network = ConvNet((1, 40, 48), width=4, pool="rows").eval()
    x = torch.randn(2, 1, 40, 48)
    h = network.features(x)
    assert network.dim == 2 * h.shape[1] * h.shape[2]
    out = network(x).unflatten(1, (2, h.shape[1], h.shape[2]))
    assert torch.allclose(out[:, 0], h.mean(dim=3))
    assert torch.allclose(out[:, 1], h.amax(dim=3))
    assert network(x[..., :20]).shape == (2, network.dim)
    with pytest.raises(RequestError, match=r"backbone\.pool"):
        ConvNet((1, 8, 8), pool="rows of")


def test_convnet_ignores_the_level_of_bands_with_center():
    torch.manual_seed(0)
    x, level = torch.randn(2, 1, 40, 48), torch.randn(2, 1, 40, 1)
    network = ConvNet((1, 40, 48), width=4, center=True).eval()
    assert torch.allclose(network(x), network(x + level), rtol=1e-3, atol=1e-8)
    assert torch.allclose(network(x), network.features(x - x.mean(dim=3, keepdim=True)).mean(dim=(2, 3)), atol=0)
    plain = ConvNet((1, 40, 48), width=4).eval()
    assert (plain(x) - plain(x + level)).abs().max() > 0.1 * plain(x).abs().max()


# resnet, torchvision -------------------------------------------------------------------------------------------------


def test_resnet_matches_torchvision():
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None)
    ours = ResNet((3, 96, 96), depth=18)
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert missing == []
    assert unexpected == ["fc.weight", "fc.bias"]
    theirs.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 96, 96)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_resnet_stem_depends_on_size():
    small, large = ResNet((4, 32, 32)), ResNet((4, 96, 96))
    assert (small.stem, small.conv1.kernel_size, small.conv1.stride) == ("small", (3, 3), (1, 1))
    assert (large.stem, large.conv1.kernel_size, large.conv1.in_channels) == ("imagenet", (7, 7), 4)
    assert small.layer4(small.layer3(small.layer2(small.layer1(torch.zeros(1, 64, 32, 32))))).shape[2:] == (4, 4)
    with pytest.raises(RequestError, match="stem"):
        ResNet((3, 32, 32), stem="tiny")


@pytest.mark.parametrize(
    ("name", "dim"), [("squeezenet1_1", 512), ("mobilenet_v3_small", 1024), ("shufflenet_v2_x0_5", 1024)]
)
def test_torchvision_by_name_with_other_channels(name, dim):
    network = TorchvisionModel((2, 64, 64), name=name)
    assert network.dim == dim
    assert network(torch.randn(2, 2, 64, 64)).shape == (2, dim)


def test_torchvision_errors():
    with pytest.raises(RequestError, match="resnet81") as caught:
        TorchvisionModel((3, 64, 64), name="resnet81")
    assert caught.value.hint == "did you mean backbone.name=resnet18?"
    with pytest.raises(RequestError, match="alexnet does not support"):
        TorchvisionModel((3, 16, 16), name="alexnet")


def test_timm_missing_package_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # makes the import fail
    with pytest.raises(MachineError, match="timm") as caught:
        target("timm")((3, 32, 32))
    assert "sslcli[timm]" in (caught.value.hint or "")


def test_timm_by_name():
    pytest.importorskip("timm")
    kind: Any = target("timm")
    assert kind((2, 32, 32), name="vit_tiny_patch16_224").dim == 192
    with pytest.raises(RequestError, match="no model"):
        kind((3, 32, 32), name="resnet81")


# vit -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", load("vit")["cases"], ids=["square", "oblong"])
def test_vit_matches_timm(case):
    network = fill(
        ViT(tuple(case["shape"]), width=16, depth=2, heads=case["heads"], patch=case["patch"], positions="learned"), 10
    )
    assert sorted(network.state_dict()) == case["keys"]
    tokens = network.tokens(numbers(4, 2, *case["shape"]))
    torch.testing.assert_close(
        tokens.flatten(), torch.tensor(case["tokens"], dtype=torch.float64), rtol=1e-10, atol=1e-10
    )
    assert torch.equal(network(numbers(4, 2, *case["shape"])), tokens[:, 1:].mean(dim=1))


@pytest.mark.parametrize(
    ("size", "patch"),
    [([8, 8], 2), ([28, 28], 4), ([32, 32], 4), ([96, 96], 12), ([224, 224], 16), ([150], 5), ([151], 5), ([6], 1)],
)
def test_automatic_patch(size, patch):
    assert patch_size(size, "auto") == patch


def test_patch_error_suggests_nearest():
    with pytest.raises(RequestError, match="does not divide") as caught:
        ViT((3, 32, 32), patch=7)
    assert caught.value.hint == "backbone.patch=8, or dataset.image_size=35"
    with pytest.raises(RequestError, match="no patch") as caught:
        ViT((3, 97, 97))
    assert "dataset.image_size=96" in (caught.value.hint or "")


@pytest.mark.parametrize("shape", [(3, 8, 12), (2, 24), (2, 151)])
def test_patchify_round_trip(shape):
    network = ViT(shape, width=16, depth=1, heads=2, patch=4)
    assert isinstance(network, TokenBackbone)
    x = torch.randn(2, *shape)
    patches = network.patchify(x)
    assert patches.shape == (2, network.num_tokens, network.patch_dim)
    assert torch.equal(network.unpatchify(patches), x)
    c = shape[0]
    first = x[0, :, :4, :4].permute(1, 2, 0).flatten() if len(shape) == 3 else x[0, :, :4].T.flatten()
    assert torch.equal(patches[0, 0], first), "pixel by pixel, channels together, as MAE's code"
    assert patches.shape[2] == c * 4 ** (len(shape) - 1)


def test_keep_selects_tokens_before_blocks():
    network = ViT((1, 8, 8), width=16, depth=2, heads=2).eval()
    x = torch.randn(2, 1, 8, 8)
    every = torch.arange(16).expand(2, -1)
    assert torch.allclose(network.tokens(x, every), network.tokens(x), atol=1e-6)
    keep = torch.tensor([[3, 7], [0, 15]])
    patches = network.patchify(x)
    for b in range(2):
        hidden = torch.ones(16, dtype=torch.bool)
        hidden[keep[b]] = False
        patches[b, hidden] = 5.0
    assert torch.equal(network.tokens(x, keep), network.tokens(network.unpatchify(patches), keep))
    assert network.tokens(x, keep).shape == (2, 1 + 2, 16)


def test_pool_and_positions():
    x = torch.randn(2, 1, 8, 8)
    network = ViT((1, 8, 8), width=16, depth=1, heads=2, pool="cls")
    assert torch.equal(network(x), network.tokens(x)[:, 0])
    assert not network.pos_embed.requires_grad
    assert torch.equal(network.pos_embed[0], network.token_positions(16))
    assert ViT((1, 8, 8), width=16, depth=1, heads=2, positions="learned").pos_embed.requires_grad
    with pytest.raises(RequestError, match="expected samples of shape"):
        network(torch.randn(2, 1, 10, 10))


# series: padding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_tcn_ignores_padding(stride):
    torch.manual_seed(0)
    network = TCN((3, 40), width=8, depth=3, stride=stride).double()
    x = torch.randn(2, 3, 27, dtype=torch.float64)
    padded = torch.full((2, 3, 40), float("nan"), dtype=torch.float64)
    padded[:, :, :27] = x
    assert torch.allclose(network(padded), network(x), atol=1e-12)
    assert not torch.allclose(network(padded), network(padded.nan_to_num()), atol=1e-3)


def test_tcn_shortens_long_series():
    assert TCN((1, 96)).stride == 1
    assert TCN((1, 97)).stride == 2
    assert TCN((1, 1000)).stride == 16
    with pytest.raises(RequestError, match="expected an odd integer"):
        TCN((1, 50), kernel=4)


def test_vit_ignores_padding():
    network = ViT((2, 20), width=16, depth=2, heads=2, patch=4).eval()
    x = torch.randn(2, 2, 20)
    x[:, :, 12:] = float("nan")
    short = ViT((2, 12), width=16, depth=2, heads=2, patch=4).eval()
    state = {k: v[:, :4] if k == "pos_embed" else v for k, v in network.state_dict().items()}
    short.load_state_dict(state)
    assert torch.allclose(network(x), short(x[:, :, :12]), atol=1e-6)


# ---------------------------------------------------------------------------------------------- tokens of a transformer


def tokens_of(shape: tuple[int, ...]) -> tuple[ViT, torch.Tensor]:
    torch.manual_seed(0)
    return ViT(shape, width=16, depth=2, heads=2, patch=2).eval(), torch.randn(3, *shape)


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 12)])
def test_masked_token_values_are_ignored(shape):
    network, x = tokens_of(shape)
    hidden = torch.zeros(3, network.num_tokens, dtype=torch.bool)
    hidden[:, 1:3] = True
    other = network.unpatchify(network.patchify(x).masked_fill(hidden[:, :, None], 7.0))
    token = torch.randn(16)
    assert torch.equal(
        network.tokens(x, hidden=hidden, mask_token=token), network.tokens(other, hidden=hidden, mask_token=token)
    )
    assert not torch.allclose(network.tokens(x, hidden=hidden, mask_token=token), network.tokens(x))
    assert torch.equal(network.tokens(x, hidden=~hidden & hidden, mask_token=token), network.tokens(x))


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 12)])
def test_attend_mask_limits_attention(shape):
    network, x = tokens_of(shape)
    n = network.prefix + network.num_tokens
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    before = network.tokens(x, attend=causal)
    patches = network.patchify(x)
    patches[:, -1] += 1.0
    after = network.tokens(network.unpatchify(patches), attend=causal)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])
    assert torch.allclose(network.tokens(x, attend=torch.ones_like(causal)), network.tokens(x), atol=1e-6)


@pytest.mark.parametrize(("shape", "small"), [((2, 8, 8), (2, 4, 6)), ((2, 12), (2, 7)), ((2, 8, 8), (2, 5, 5))])
def test_smaller_samples_have_fewer_tokens(shape, small):
    network, _ = tokens_of(shape)
    x = torch.randn(3, *small)
    count = (small[1] // 2) * (small[2] // 2) if len(small) == 3 else -(-small[1] // 2)
    assert network.tokens(x).shape == (3, 1 + count, 16)
    assert network.patchify(x).shape == (3, count, network.patch_dim)
    assert network(x).shape == (3, 16)


def test_positions_of_smaller_sample_are_interpolated():
    """On a grid of half the side, a table linear in the position gives the midpoint of each pair."""
    network, _ = tokens_of((1, 16))
    table = torch.arange(8.0)[:, None].expand(8, 16)
    network.pos_embed.data[:, 1:] = table
    assert torch.allclose(network._positions(torch.zeros(1, 1, 8))[0, 1:, 0], torch.tensor([0.5, 2.5, 4.5, 6.5]))


def test_last_depth_gives_tokens():
    network, x = tokens_of((2, 8, 8))
    depths = network.depths(x)
    assert len(depths) == 2
    assert torch.equal(network.norm(depths[-1]), network.tokens(x))
