"""Prediction of frames: the loss against its formula, what predictions depend on, and prediction step by step."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sslcli.backbones.convnet import ConvNet
from sslcli.backbones.video.clip_convnet import ClipConvNet
from sslcli.backbones.video.clip_vit import ClipViT
from sslcli.batch import Batch
from sslcli.methods.next_frame import NextFrame, rearrange
from sslcli.nn.values import Continuous
from sslcli.rng import Draw

SHAPE = (1, 6, 10, 13)


def method(**options) -> NextFrame:
    torch.manual_seed(0)
    backbone = ClipConvNet(SHAPE, width=4)
    backbone.values = Continuous((0.2,), (0.5,))
    return NextFrame(backbone, **{"width": 16, "depth": 2, **options}).eval()


def batch(x: torch.Tensor) -> Batch:
    return Batch([x], ["weak"], Draw(0, 0, torch.arange(len(x))))


@pytest.mark.parametrize("translator", ["conv", "transformer"])
@pytest.mark.parametrize(("given", "step"), [("auto", "auto"), (4, 1), (2, 3), (1, "auto")])
def test_loss_is_the_squared_error_of_the_frames_that_follow(translator, given, step):
    made, x = method(translator=translator, given=given, step=step), torch.randn(3, *SHAPE)
    k = made.given
    predicted = made.predict(x[:, :, :k])
    assert predicted.shape == (3, 1, 6 - k, 10, 13)
    out = made(batch(x))
    error = (predicted - x[:, :, k:]).square()
    assert out["loss"].item() == pytest.approx(error.mean().item(), rel=1e-5)
    summed = (error * 0.5**2).sum(dim=(1, 3, 4)).mean()  # of a frame, in pixels of 0..1
    assert out["frame_error"].item() == pytest.approx(summed.item(), rel=1e-5)
    other = x.clone()
    other[:, :, k:] += 1
    assert torch.equal(made.predict(other[:, :, :k]), predicted)
    shown = made.reconstruct(batch(x))
    assert torch.equal(shown.predicted[:, :, :k], x[:, :, :k])
    assert torch.equal(shown.predicted[:, :, k:], predicted)
    assert torch.equal(shown.hidden[0, 0, :, 0, 0], torch.arange(6) >= k)


def test_steps_take_their_own_predictions():
    made, x = method(given=3, step=1), torch.randn(2, *SHAPE)
    known = x[:, :, :3]
    for t in range(3):
        new = made._next(known[:, :, -3:])
        torch.testing.assert_close(made.predict(x[:, :, :3])[:, :, t], new[:, :, 0])
        known = torch.cat([known, new], dim=2)


def test_rearrange_is_pixel_shuffle():
    x = torch.randn(2, 12, 3, 5)
    torch.testing.assert_close(rearrange(x, (2, 2)), F.pixel_shuffle(x, 2))
    assert rearrange(x, (3, 1)).shape == (2, 4, 9, 5)


def test_bad_numbers_of_frames():
    for options, words in (
        ({"given": 6}, "given must be auto or an integer from 1 to 5"),
        ({"given": 4, "step": 3}, "step must be auto or an integer from 1 to 2"),
        ({"translator": "gru"}, "conv or transformer"),
        ({"translator": "transformer", "width": 20}, "multiple of 16"),
    ):
        with pytest.raises(ValueError, match=words):
            method(**options)
    with pytest.raises(ValueError, match="backbone=clip_convnet"):
        NextFrame(ConvNet((1, 8, 8)))


# Backbones -----------------------------------------------------------------------------------------------------------


def test_clip_convnet_encodes_frames_by_themselves():
    net, x = ClipConvNet((2, 5, 12, 16), width=4).eval(), torch.randn(3, 2, 5, 12, 16)
    maps = net.maps(x)
    assert maps.shape == (3, 5, 8, 3, 4)
    torch.testing.assert_close(maps[:, 2], net.features(x[:, :, 2]))
    features = net(x)
    assert features.shape == (3, net.dim) == (3, 16)
    torch.testing.assert_close(features[:, :8], maps.mean(dim=(1, 3, 4)))
    still = net(x[:, :, :1].expand_as(x))
    torch.testing.assert_close(still[:, 8:], torch.zeros(3, 8))
    assert features[:, 8:].min() > 0
    assert net(x[:, :, :1, :8, :8]).shape == (3, 16)


def test_tubes_are_the_values_of_their_frames():
    net, x = ClipViT((2, 6, 8, 12), width=24, depth=1, heads=2, patch=4, tube=3).eval(), torch.randn(2, 2, 6, 8, 12)
    assert net.grid == (2, 2, 3)
    assert net.patch_dim == 2 * 3 * 4 * 4
    tubes = net.patchify(x)
    assert tubes.shape == (2, 12, 96)
    token = tubes[1, 1 * 6 + 0 * 3 + 2].view(3, 4, 4, 2)  # the second half of the frames, the upper right patch
    torch.testing.assert_close(token, x[1, :, 3:6, 0:4, 8:12].permute(1, 2, 3, 0))
    torch.testing.assert_close(net.unpatchify(tubes), x)
    weight = net.patch_embed.proj.weight  # (D, C * tube, p, p)
    expected = (x[1, :, 3:6, 0:4, 8:12].flatten(0, 1)[None] * weight).sum(dim=(1, 2, 3)) + net.patch_embed.proj.bias
    h, mask = net._embed(x)
    torch.testing.assert_close(h[1, 1 + 8] - net.pos_embed[0, 1 + 8], expected, rtol=1e-4, atol=1e-5)
    assert mask is None


def test_tokens_of_clips_know_place_and_time():
    net = ClipViT((1, 6, 8, 8), width=16, depth=1, heads=2, patch=4)
    table = net.pos_embed[0, 1:]
    assert len({tuple(row.tolist()) for row in table}) == len(table) == 12
    assert not net.pos_embed.requires_grad
    smaller = net.tokens(torch.randn(2, 1, 4, 4, 8))
    assert smaller.shape == (2, 1 + 2 * 1 * 2, 16)
    assert net.attention(torch.randn(2, 1, 6, 8, 8)).shape == (2, 2, 12)


def test_a_tube_must_divide_the_clip():
    from sslcli.errors import RequestError

    with pytest.raises(RequestError, match=r"backbone\.tube=4 does not divide a clip of 6 frames") as error:
        ClipViT((1, 6, 8, 8), tube=4)
    assert error.value.hint == "backbone.tube=1"
    with pytest.raises(RequestError, match="expected samples of shape"):
        ClipViT((1, 6, 8, 8), width=16, heads=2, depth=1)(torch.randn(1, 1, 8, 8, 8))
