from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import sslcli.data
from sslcli.backbones.convnet import ConvNet
from sslcli.backbones.ft_transformer import FTTransformer
from sslcli.backbones.mlp import MLP
from sslcli.backbones.resnet import ResNet
from sslcli.backbones.tcn import TCN
from sslcli.backbones.torchvision_model import TorchvisionModel
from sslcli.backbones.vit import ViT
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import RequestError
from sslcli.evals.artefacts.figures import Bars
from sslcli.evals.base.features import EvalData
from sslcli.evals.explain import explain, make_maps
from sslcli.evals.metrics import attribution_maps
from sslcli.nn.values import Columns, Continuous
from tests.evals import toys
from tests.rows import VALUES, rows


def vit(shape=(1, 8, 8), pool: str = "mean", **kw) -> ViT:
    torch.manual_seed(0)
    return ViT(shape, width=16, depth=2, heads=2, patch=2, pool=pool, **kw).eval()


def convnet(shape=(1, 8, 8)) -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(shape, width=8).eval()


def images(n: int = 5, shape=(1, 8, 8)) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


# attention -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_attention_weights_match_the_forward_pass(pool):
    """The last block's output is made again from the weights, by torch's own multi-head attention as the oracle."""
    net, x = vit(pool=pool), images()
    block = net.blocks[-1]
    caught = {}
    handle = block.attn.register_forward_hook(lambda _, given, out: caught.update(x=given[0], out=out))
    with torch.no_grad():
        net(x)
        handle.remove()
        oracle = nn.MultiheadAttention(16, 2, batch_first=True)
        oracle.in_proj_weight.copy_(block.attn.qkv.weight)
        oracle.in_proj_bias.copy_(block.attn.qkv.bias)
        oracle.out_proj.weight.copy_(block.attn.proj.weight)
        oracle.out_proj.bias.copy_(block.attn.proj.bias)
        out, weights = oracle(caught["x"], caught["x"], caught["x"], average_attn_weights=False)
    torch.testing.assert_close(out, caught["out"], atol=1e-5, rtol=1e-5)
    expected = weights[:, :, 0, 1:] if pool == "cls" else weights[:, :, 1:, 1:].mean(dim=2)
    torch.testing.assert_close(attribution_maps.attention(net, x).flatten(2), expected, atol=1e-6, rtol=1e-5)


def test_attention_of_a_padded_series():
    net = vit((2, 20))
    x = images(3, (2, 20))
    x[1, :, 10:] = math.nan
    looked = attribution_maps.attention(net, x)
    assert looked.shape == (3, 2, 10)
    assert torch.isfinite(looked).all()
    assert looked[1, :, 5:].abs().max() == 0  # padding is not looked at
    alone = vit((2, 20))
    assert not torch.equal(looked[1], attribution_maps.attention(alone, x.nan_to_num())[1])


# Grad-CAM --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "shape"), [(convnet, (3, 16, 16)), (lambda s: TCN(s, width=8, depth=2).eval(), (2, 30))]
)
def test_grad_cam_of_mean_pooling_equals_cam(net, shape):
    """Features that are the mean of a map, and a linear score w: Grad-CAM is relu(w . A) / places (Selvaraju, Sec. 3.1)."""
    backbone, x = net(shape), images(4, shape)
    layer = attribution_maps.last_feature_layer(backbone, x)
    a = attribution_maps.feature_map(backbone, layer, x)
    torch.testing.assert_close(a.flatten(2).mean(dim=2), backbone(x))
    w = torch.randn(backbone.dim, generator=torch.Generator().manual_seed(1))
    cam = attribution_maps.grad_cam(backbone, layer, x, lambda z: z @ w)
    expected = torch.relu(torch.einsum("c,bc...->b...", w, a)) / math.prod(a.shape[2:])
    torch.testing.assert_close(cam, expected)


def test_grad_cam_of_known_case():
    class Net(nn.Module):
        dim = 1

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1, bias=False)
            self.conv.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)

        def forward(self, x):
            return self.conv(x).relu().amax(dim=(2, 3)).sum(dim=1, keepdim=True)

    x = torch.tensor([[1.0, 2.0], [-3.0, 0.0]]).view(1, 1, 2, 2)
    net = Net()
    # maps x and -x; the score is 2 + 3; its slope is 1 at the 2 of the one and at the 3 of the other: a quarter each in the mean
    cam = attribution_maps.grad_cam(net, net.conv, x, lambda z: z[:, 0])
    assert cam.abs().max() == 0  # (x - x) / 4
    net.conv.weight.data[1] = -2.0  # maps x and -2x
    cam = attribution_maps.grad_cam(net, net.conv, x, lambda z: z[:, 0])
    torch.testing.assert_close(cam[0], torch.relu(-x[0, 0] / 4))


@pytest.mark.parametrize(("name", "grid"), [("resnet18", (4, 4)), ("mobilenet_v3_small", (1, 2))])
def test_grad_cam_uses_the_last_map_of_larger_networks(name, grid):
    shape = (3, 32, 32) if name == "resnet18" else (3, 32, 64)
    net = ResNet(shape, 18).eval() if name == "resnet18" else TorchvisionModel(shape, name).eval()
    x = images(2, shape)
    layer = attribution_maps.last_feature_layer(net, x)
    before = net(x)
    cam = attribution_maps.grad_cam(net, layer, x, lambda z: z.sum(dim=1))
    assert cam.shape[1:] == grid
    torch.testing.assert_close(net(x), before)  # nothing is left behind


@pytest.mark.parametrize("net", [lambda: MLP((3, 32, 32)), lambda: TorchvisionModel((3, 32, 32), "vit_b_32")])
def test_explain_rejects_unsupported_backbones(net):
    with pytest.raises(RequestError, match="cannot be explained") as error:
        attribution_maps.last_feature_layer(net().eval(), images(2, (3, 32, 32)))
    assert "convnet" in error.value.hint


def test_occlusion_of_large_samples_hides_blocks():
    x = torch.zeros(4, 1, 20, 20, dtype=torch.uint8)
    dataset = Dataset("d", "image", (1, 20, 20), ArraySource(x), None)
    maps = make_maps(convnet((1, 20, 20)), EvalData(dataset), "occlusion")
    assert maps.what == "loss of score when a block of 2 x 2 positions is hidden"
    assert len(list(maps.effects(torch.randn(2, 1, 20, 20)))) == 100


# deletion, insertion, components -----------------------------------------------------------------------------------------


def test_deletion_curves_of_known_case():
    x = torch.tensor([4.0, 1.0, 2.0, 3.0]).view(1, 1, 4)
    judge = lambda z: z.nansum(dim=(1, 2))  # noqa: E731
    base, blank = torch.full_like(x, 0.5), torch.zeros_like(x)
    gone, back = attribution_maps.deletion_insertion_curves(judge, x, x, blank, base, 4)
    assert gone.tolist() == [[10, 6, 3, 1, 0]]
    assert back.tolist() == [[2, 5.5, 8, 9.5, 10]]
    assert attribution_maps.area(gone).tolist() == [np.trapezoid([10, 6, 3, 1, 0], dx=0.25)]
    worst, _ = attribution_maps.deletion_insertion_curves(judge, x, -x, blank, base, 4)
    assert attribution_maps.area(worst) > attribution_maps.area(gone)
    padded = x.clone()
    padded[..., 3] = math.nan
    gone, _ = attribution_maps.deletion_insertion_curves(
        lambda z: z.isnan().sum(dim=(1, 2)).float(), padded, x, torch.where(padded.isnan(), padded, 0.0), base, 2
    )
    assert gone.tolist() == [[1, 1, 1]]


def test_pca_colors_match_scikit_learn():
    from sklearn.decomposition import PCA

    x = torch.randn(300, 10, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 0.1, 10)
    found, share = attribution_maps.pca_colors(x)
    pca = PCA(3).fit(x)
    assert share == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-5)
    for ours, theirs in zip(found.T, pca.transform(x.numpy()).T, strict=True):
        inside = (ours > 0) & (ours < 1)
        assert abs(np.corrcoef(ours[inside], theirs[inside])[0, 1]) == pytest.approx(1, abs=1e-5)
    assert found.min() == 0
    assert found.max() == 1
    assert attribution_maps.pca_colors(torch.randn(9, 2))[0].shape == (9, 3)


def test_random_map_depends_on_the_sample_only():
    like = torch.zeros(3, 4, 4)
    ids = torch.tensor([5, 6, 7])
    whole = attribution_maps.random_map(like, ids, 0)
    assert torch.equal(attribution_maps.random_map(like[1:2], ids[1:2], 0)[0], whole[1])
    assert not torch.equal(whole[0], whole[1])


# the evaluator ---------------------------------------------------------------------------------------------------------


class Bright(nn.Module):
    """Reads the first three pixels of the first row, where the toys name their class, through a map of its own."""

    dim = 64

    def __init__(self):
        super().__init__()
        self.map = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.map.weight)

    def forward(self, x):
        return self.map(x)[:, :, 0, :3].flatten(1)


def test_explain_locates_the_relevant_region():
    data = EvalData(toys.dataset())
    found = explain(Bright(), data, samples=60)
    assert found.metrics["deletion"] < found.metrics["random.deletion"]
    assert found.protocol["grid"] == [8, 8]
    assert "linear probe" in found.protocol["target"]


@pytest.mark.parametrize(("net", "target"), [(vit, "class"), (convnet, "neighbour"), (convnet, "class")])
def test_explain_metrics_and_sheets(tmp_path, net, target):
    data = EvalData(toys.dataset(), untrained=lambda: net().eval())
    result = explain(net(), data, target=target, samples=6)
    kinds = ("", "untrained.", "random.")
    assert set(result.metrics) == {f"{k}{n}" for k in kinds for n in ("deletion", "insertion")}
    assert result.metrics["deletion"] == pytest.approx(
        result.metrics["untrained.deletion"], abs=1e-5
    )  # the same weights here
    curves = json.loads(json.dumps(result.details))["backbone"]
    assert result.metrics["deletion"] == pytest.approx(float(np.trapezoid(curves["deletion"], dx=1 / 20)))
    assert curves["insertion"][-1] == pytest.approx(curves["deletion"][0], abs=1e-5)  # both are the whole sample
    json.dumps(result.protocol)
    for name, artefact in result.artefacts.items():
        artefact.save(tmp_path / name)
        assert artefact.caption
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "maps.png"]
    other = EvalData(toys.dataset(), untrained=lambda: net().eval(), batch_size=5)
    assert explain(net(), other, target=target, samples=6).metrics == pytest.approx(result.metrics, abs=5e-3)


def test_explain_uses_the_neighbor_without_labels():
    rows = toys.dataset()
    rows.train.labels = rows.test.labels = None
    assert "nearest" in explain(convnet(), EvalData(rows), samples=4).protocol["target"]


@pytest.mark.parametrize("net", [lambda s: TCN(s, width=8, depth=2), lambda s: vit(s)])
def test_explain_of_time_series(tmp_path, net):
    x = images(30, (2, 24))
    x[::4, :, 20:] = math.nan
    source = ArraySource(x, torch.arange(30) % 2)
    rows = Dataset("s", "series", (2, 24), source, source, ("a", "b"), values=Continuous((0.0, 0.0), (1.0, 1.0)))
    result = explain(net((2, 24)).eval(), EvalData(rows), samples=6)
    assert all(math.isfinite(v) for v in result.metrics.values())
    result.artefacts["maps.png"].save(tmp_path / "maps.png")


def test_explain_restores_training_flags_and_gradients():
    net = convnet().train()
    explain(net, EvalData(toys.dataset()), samples=4)
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize(("wrong", "message"), [({"target": "klass"}, "target"), ({"samples": 0}, "samples")])
def test_explain_rejects_invalid_settings(wrong, message):
    with pytest.raises(RequestError, match=message):
        explain(convnet(), EvalData(toys.dataset()), **wrong)


def test_occlusion_finds_the_columns_that_count():
    """A linear score of two columns of a table: hiding one costs its term, hiding another nothing."""
    x, y = rows(40)
    data = EvalData(Dataset("t", "table", (6,), ArraySource(x, y), ArraySource(x, y), ("a", "b"), values=VALUES))
    net = MLP((6,), width=16, values=VALUES).eval()
    maps = make_maps(net, data)
    assert maps.title == "occlusion"

    class Score:
        def target(self, x):
            return x

        def score(self, z, target):
            return z

    maps.backbone = lambda x: 2 * x[:, 0] - 3 * x[:, 5]
    got = maps(x, Score())
    assert got.shape == (40, 1, 6)
    torch.testing.assert_close(got[:, 0, [0, 5]], torch.stack([2 * x[:, 0], -3 * x[:, 5]], dim=1))
    assert not got[:, 0, 1:5].any()
    metrics = explain(net, data, samples=8, baselines=False).metrics
    assert metrics["deletion"] < metrics["random.deletion"]


def names_of(ranking) -> list[str]:
    return [row["name"] for row in ranking]


def test_columns_are_ranked_over_all_rows(tmp_path):
    x, y = rows(40)
    source = ArraySource(x, y)
    data = EvalData(
        Dataset("t", "table", (6,), source, source, ("a", "b"), values=VALUES),
        untrained=lambda: MLP((6,), width=16, values=VALUES).eval(),
    )

    class TwoColumns(MLP):
        def forward(self, x):
            x = x.nan_to_num()
            return torch.stack([9 * x[:, 0], x[:, 5], torch.zeros_like(x[:, 0])], dim=1)

    result = explain(TwoColumns((6,), width=16, values=VALUES).eval(), data, samples=30)
    ranking = json.loads(json.dumps(result.details["positions"]))
    assert set(ranking) == {"backbone", "untrained"}
    assert set(names_of(ranking["backbone"])[:2]) == {"column 1", "column 6"}
    assert [row["importance"] for row in ranking["backbone"][2:]] == [0, 0, 0, 0]
    assert sum(row["share"] for row in ranking["untrained"]) == pytest.approx(1)
    bars = result.artefacts["positions.png"]
    assert "over 30 test samples" in bars.caption
    bars.save(tmp_path / "positions.png")
    with Image.open(tmp_path / "positions.png") as image:
        assert image.width > 900
    other = explain(TwoColumns((6,), width=16, values=VALUES).eval(), data, samples=12)
    assert (
        other.details["positions"] != result.details["positions"]
    )  # of all evaluated rows, not of the eight that are shown


def test_bars_of_many_names(tmp_path):
    names = [f"a column with a ${i} name of 40 characters {i}" for i in range(200)]
    bars = Bars(names, [1 / (i + 1) for i in range(200)], [0.01] * 200, {}, "title", "caption")
    bars.save(tmp_path / "bars.png")
    with Image.open(tmp_path / "bars.png") as image:
        assert image.height < 1500  # thirty of them


def test_attention_to_columns_is_ranked_by_name():
    table = sslcli.data.wine()
    torch.manual_seed(0)
    net = FTTransformer(table.shape, values=table.values, width=16, depth=1, heads=2).eval()
    details = explain(net, EvalData(table), samples=10).details
    assert sorted(names_of(details["positions"]["backbone"])) == sorted(table.preprocessor.names)


def test_positions_of_images_have_no_names():
    result = explain(convnet(), EvalData(toys.dataset()), samples=4)
    assert "positions" not in result.details
    assert "positions.png" not in result.artefacts


@pytest.mark.parametrize(
    ("grid", "most", "side"), [((5,), 256, 1), ((257,), 256, 2), ((1000,), 256, 4), ((32, 32), 256, 2), ((7, 5), 6, 3)]
)
def test_blocks_cover_the_grid(grid, most, side):
    block, found = attribution_maps.blocks(grid, most)
    assert found == side
    assert len(block) == math.prod(grid)
    assert sorted(block.unique().tolist()) == list(range(int(block.max()) + 1))
    assert int(block.max()) < most
    places = torch.stack(torch.meshgrid(*(torch.arange(n) // side for n in grid), indexing="ij")).flatten(1).T
    same = (places[:, None] == places[None]).all(dim=2)
    assert torch.equal(block[:, None] == block[None], same)


def test_occlusion_of_an_image_hides_blocks():
    """32 x 32 positions, and a perceptron: one block of 2 x 2 holds all that the score depends on."""
    x = images(30, (1, 32, 32))
    source = ArraySource((x * 40 + 120).clamp(0, 255).to(torch.uint8), torch.arange(30) % 2)
    data = EvalData(Dataset("i", "image", (1, 32, 32), source, source, ("a", "b")))
    net = MLP((1, 32, 32), width=16).eval()
    maps = make_maps(net, data)
    assert (maps.title, maps.what) == ("occlusion", "loss of score when a block of 2 x 2 positions is hidden")

    class Score:
        def target(self, x):
            return x

        def score(self, z, target):
            return z

    maps.backbone = lambda x: x[:, 0, 10, 21]
    got = maps(x, Score())
    assert got.shape == (30, 1, 32, 32)
    expected = torch.zeros(30, 32, 32)
    expected[:, 10:12, 20:22] = x[:, 0, 10, 21, None, None]
    torch.testing.assert_close(got[:, 0], expected)
    result = explain(net, data, samples=4, baselines=False)
    assert result.protocol["grid"] == [32, 32]
    assert all(math.isfinite(v) for v in result.metrics.values())


def test_occlusion_of_many_columns():
    n = 300
    values = Columns((0,) * n, (0.0,) * n, (1.0,) * n)
    x = torch.randn(24, n, generator=torch.Generator().manual_seed(0))
    source = ArraySource(x, torch.arange(24) % 2)
    data = EvalData(Dataset("wide", "table", (n,), source, source, ("a", "b"), values=values))
    result = explain(MLP((n,), width=16, values=values).eval(), data, samples=3, baselines=False)
    assert result.protocol["map"] == "loss of score when a block of 2 positions is hidden"
    assert len(result.details["positions"]["backbone"]) == n
