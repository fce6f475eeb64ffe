"""Pretext tasks: inputs, targets, losses, and the absence of shortcuts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sslcli.backbones.convnet import ConvNet
from sslcli.methods.colorization import Colorization, color_loss
from sslcli.methods.jigsaw import Jigsaw, distant_permutations, rearrange
from sslcli.methods.patch_position import NEIGHBORS, PatchPosition
from sslcli.methods.rotation import Rotation, rotate_all
from sslcli.nn.tiles import extract_tiles, tile_size
from tests.methods.oracles import images


def convnet(shape: tuple[int, ...]) -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(shape, width=4)


# rotation ------------------------------------------------------------------------------------------------------------


def test_rotations_match_numpy():
    x = images(2, views=1, shape=(2, 5, 5)).views[0]
    found = rotate_all(x).view(4, 2, 2, 5, 5)
    for k in range(4):
        assert np.array_equal(found[k].numpy(), np.rot90(x.numpy(), k, axes=(2, 3)))


def test_rotation_loss_matches_reference():
    method = Rotation(convnet((1, 8, 8))).eval()
    data = images(3, views=1, kind="weak")
    total, right = 0.0, 0
    for k in range(4):
        for b in range(3):
            x = torch.from_numpy(np.rot90(data.views[0][b : b + 1].numpy(), k, axes=(2, 3)).copy())
            logits = method.classifier(method.backbone(x))[0].tolist()
            total += math.log(sum(math.exp(v) for v in logits)) - logits[k]
            right += max(range(4), key=logits.__getitem__) == k
    out = method(data)
    assert out["loss"].item() == pytest.approx(total / 12, rel=1e-4)
    assert out["accuracy"].item() == pytest.approx(right / 12)


def test_rotation_requires_square_views():
    with pytest.raises(ValueError, match="square"):
        Rotation(convnet((1, 8, 12)))


# tiles ---------------------------------------------------------------------------------------------------------------


def test_tiles_are_inside_cells_and_standardized():
    x = torch.arange(2 * 3 * 48 * 48, dtype=torch.float32).view(2, 3, 48, 48) / 100
    corner, far = torch.zeros(2, 9, 2), torch.full((2, 9, 2), 0.999)
    assert tile_size((3, 48, 48), 3) == 16
    for places, offset in ((corner, 0), (far, 2)):  # 14 of 16 pixels: places 0, 1, 2
        tiles = extract_tiles(x, 3, places)
        assert tiles.shape == (2, 9, 3, 16, 16)
        raw = x[1, 2, 16 + offset : 30 + offset, 32 + offset : 46 + offset]  # cell 5: second row, third column
        wanted = F.interpolate(raw[None, None], size=(16, 16), mode="bilinear", align_corners=False)[0, 0]
        wanted = (wanted - wanted.mean()) / (wanted.var(unbiased=False) + 1e-4).sqrt()
        assert torch.allclose(tiles[1, 5, 2], wanted, atol=1e-4)
    assert tiles.mean(dim=(3, 4)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("shape", "grid", "size"), [((1, 8, 8), 2, 8), ((1, 9, 9), 3, 9), ((3, 32, 32), 3, 16), ((3, 224, 224), 3, 65)]
)
def test_tiles_of_small_images_are_upsampled(shape, grid, size):
    assert tile_size(shape, grid) == size
    assert extract_tiles(torch.randn(2, *shape), grid, torch.rand(2, grid**2, 2)).shape[-2:] == (size, size)


def test_image_smaller_than_grid_is_rejected():
    with pytest.raises(ValueError, match="tiles"):
        tile_size((1, 2, 2), 3)


# jigsaw --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "wanted"), [(4, 24), (4, 64), (9, 64)])
def test_permutations_are_distinct_and_distant(count, wanted):
    orders = distant_permutations(count, wanted)
    assert len(orders) == min(wanted, math.factorial(count))
    assert orders.sort(dim=1).values.eq(torch.arange(count)).all()
    assert len({tuple(o.tolist()) for o in orders}) == len(orders)
    if count == 9:
        apart = (orders[:, None] != orders[None]).sum(dim=2).float()
        chance = 9 - 1  # two permutations at random agree in one place on average
        assert apart.sum() / (64 * 63) > chance, "farther than chance"
    assert torch.equal(orders, distant_permutations(count, wanted))


def test_jigsaw_permutation_is_invertible():
    method = Jigsaw(convnet((1, 8, 8)))
    data = images(6, views=1, kind="weak")
    tiles, order = method.shuffle(data)
    whole = extract_tiles(data.views[0], 2, data.uniform("place", 4, 2))
    for b in range(6):
        for place in range(4):
            assert torch.equal(tiles[b, place], whole[b, method.orders[order[b], place]])
    x = data.views[0]
    mixed = rearrange(x, 2, method.orders[order])
    assert torch.equal(rearrange(mixed, 2, method.orders[order].argsort(dim=1)), x)
    assert not torch.equal(mixed, x)
    assert order.unique().numel() > 1, "samples have permutations of their own"


def test_jigsaw_loss_matches_reference():
    """Tiles pass separately through backbone and shared layer; their concatenation predicts the permutation index."""
    method, data = Jigsaw(convnet((1, 8, 8))).eval(), images(6, views=1, kind="weak")
    tiles, order = method.shuffle(data)
    total = 0.0
    for b in range(6):
        parts = [method.embed(method.backbone(tiles[b, place][None]))[0].clamp(min=0) for place in range(4)]
        logits = method.classifier(torch.cat(parts)[None])[0].tolist()
        total += math.log(sum(math.exp(v) for v in logits)) - logits[int(order[b])]
    assert method(data)["loss"].item() == pytest.approx(total / 6, rel=1e-4)


def test_jigsaw_tiles_are_encoded_separately():
    method = Jigsaw(convnet((1, 8, 8))).eval()
    tiles, _ = method.shuffle(images(3, views=1, kind="weak"))
    h = method.embed(method.backbone(tiles.flatten(0, 1))).view(3, 4, -1)
    other = tiles.clone()
    other[:, 1] += 1
    again = method.embed(method.backbone(other.flatten(0, 1))).view(3, 4, -1)
    assert torch.allclose(h[:, [0, 2, 3]], again[:, [0, 2, 3]], atol=1e-6)


def test_jigsaw_figures_show_predicted_arrangement():
    method = Jigsaw(convnet((1, 8, 8))).eval()
    data = images(5, views=1, kind="weak")
    _, order = method.shuffle(data)
    method.classify = lambda tiles: F.one_hot(order, len(method.orders)).float()  # always right
    columns = method.figures(data)["jigsaw"]
    assert torch.equal(columns["solved"], columns["source"])


# patch position ------------------------------------------------------------------------------------------------------


def test_patch_position_target_matches_tile():
    method = PatchPosition(convnet((1, 9, 9))).eval()
    data = images(8, views=1, kind="weak", shape=(1, 9, 9))
    tiles = extract_tiles(data.views[0], 3, data.uniform("place", 9, 2))
    where = (data.uniform("neighbour") * 8).long()
    total = 0.0
    for b in range(8):
        pair = torch.stack([tiles[b, 4], tiles[b, NEIGHBORS[where[b]]]])
        logits = method.classifier(method.backbone(pair).flatten()[None])[0].tolist()
        total += math.log(sum(math.exp(v) for v in logits)) - logits[int(where[b])]
    assert method(data)["loss"].item() == pytest.approx(total / 8, rel=1e-4)
    assert where.unique().numel() > 2


# colorization --------------------------------------------------------------------------------------------------------


def coloured() -> Colorization:
    return Colorization(convnet((3, 8, 8)), bins=4).eval()


def test_luminance_and_color_reconstruct_image():
    method, x = coloured(), images(2, views=1, shape=(3, 8, 8)).views[0]
    grey, colour = method.split_color(x)
    wanted = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    assert torch.allclose(grey[:, 0], wanted, atol=1e-6)
    assert torch.allclose(grey + colour, x[:, :2], atol=1e-6)
    last = -(0.299 * colour[:, 0] + 0.587 * colour[:, 1]) / 0.114
    assert torch.allclose(grey[:, 0] + last, x[:, 2], atol=1e-5)


def test_colorization_input_has_no_color():
    method, data = coloured(), images(2, views=1, kind="weak", shape=(3, 8, 8))
    x = data.views[0]
    grey, colour = method.split_color(x)
    other = x + 0.3 * torch.tensor([1 / 0.299, -1 / 0.587, 0.0])[:, None, None]  # the same brightness
    assert torch.allclose(method.split_color(other)[0], grey, atol=1e-5)
    assert torch.allclose(method.predict(grey), method.predict(method.split_color(other)[0]), atol=1e-4)
    assert not torch.allclose(method.split_color(other)[1], colour)


def test_color_bins_are_equal_and_clamped():
    found = coloured().to_bins(torch.tensor([-9.0, -2.0, -1.01, -0.99, 0.0, 0.99, 1.0, 2.0, 9.0]))
    assert found.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3]


def test_color_loss_matches_reference():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 2, 4, 3, 3, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 4, (2, 2, 3, 3), generator=generator)
    weights = torch.rand(2, 4, generator=generator, dtype=torch.float64)
    total = 0.0
    for b in range(2):
        for c in range(2):
            for i in range(3):
                for j in range(3):
                    own, k = logits[b, c, :, i, j].tolist(), int(target[b, c, i, j])
                    total += weights[c, k].item() * (math.log(sum(map(math.exp, own))) - own[k])
    assert color_loss(logits, target, weights).item() == pytest.approx(total / 36, rel=1e-12)


def test_color_weights_favor_rare_and_average_one():
    method = coloured()
    method.shares.copy_(torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.25] * 4]))
    weights = method.weights()
    assert weights[0, 0] < weights[0, 1]
    assert torch.allclose((weights * method.shares).sum(dim=1), torch.ones(2))
    assert torch.allclose(weights[1], torch.ones(4))
    ratio = (0.5 * 0.7 + 0.125) / (0.5 * 0.1 + 0.125)
    assert (weights[0, 1] / weights[0, 0]).item() == pytest.approx(ratio, rel=1e-5)


def test_color_frequencies_update_after_step():
    method, data = coloured().train(), images(4, views=1, kind="weak", shape=(3, 8, 8))
    before = method.shares.clone()
    method(data)
    assert torch.equal(method.shares, before)
    method.after_step(0.0)
    _, colour = method.split_color(data.views[0])
    bins = method.to_bins(F.adaptive_avg_pool2d(colour, (2, 2)))
    seen = torch.stack([(bins == k).float().mean(dim=(0, 2, 3)) for k in range(4)], dim=1)
    assert torch.allclose(method.shares, 0.99 * before + 0.01 * seen, atol=1e-6)


def test_colorization_rejects_grayscale():
    with pytest.raises(ValueError, match="no color"):
        Colorization(convnet((1, 8, 8)))
