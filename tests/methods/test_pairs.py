"""Losses of images and captions against the formulas of the papers and other libraries, and what is trained."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslcli import optim
from sslcli.backbones.bert import BERT
from sslcli.backbones.convnet import ConvNet
from sslcli.methods.base import Batch, DataInfo, Tower
from sslcli.methods.clip import CLIP, clip_loss
from sslcli.methods.siglip import SigLIP, siglip_loss
from sslcli.nn.towers import equal_rows, unit
from sslcli.nn.values import Tokens
from sslcli.rng import Draw
from tests.methods.oracles import draws, every_size

VALUES = Tokens(30, pad=0, mask=4, start=2, separator=3, special=(0, 1, 2, 3, 4))


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def captions(n: int = 4, seed: int = 0) -> torch.Tensor:
    x = torch.randint(5, 30, (n, 6), generator=torch.Generator().manual_seed(seed))
    x[:, 0], x[:, 4], x[:, 5] = 2, 3, 0
    return x


def tower(frozen: bool = False) -> Tower:
    torch.manual_seed(1)
    return Tower(BERT((6,), width=16, depth=1, heads=2, dropout=0.0, values=VALUES), frozen)


FACTS = DataInfo(samples=200, classes=3, steps_per_epoch=5)


def made(kind: type[CLIP | SigLIP], frozen: bool = False) -> CLIP | SigLIP:
    given = [FACTS] if kind is SigLIP else []
    return kind(ConvNet((3, 8, 8), width=8), tower(frozen), *given)


def batch(n: int = 4) -> Batch:
    (x,) = draws(n, 3, 8, 8, count=1)
    return Batch([x.float()], ["paired"], Draw(0, 0, torch.arange(n)), captions=captions(n))


@every_size
def test_clip_loss_matches_reference(n, d):
    """Fig. 3 of the paper, with loops."""
    image, text = (unit(z) for z in draws(n, d))
    logits = 7.0 * image.numpy() @ text.numpy().T
    slow = 0.0
    for i in range(n):
        slow -= logits[i, i] - math.log(sum(math.exp(logits[i, j]) for j in range(n)))
        slow -= logits[i, i] - math.log(sum(math.exp(logits[j, i]) for j in range(n)))
    loss, correct = clip_loss(image, text, torch.eye(n, dtype=torch.bool), scalar(7.0))
    assert loss.item() == pytest.approx(slow / (2 * n), rel=1e-12)
    assert correct.item() == pytest.approx(np.mean(logits.argmax(axis=1) == np.arange(n)))


def test_equal_captions_share_the_target():
    image, text = (unit(z) for z in draws(4, 5))
    text = torch.stack([text[0], text[1], text[0], text[3]])
    same = equal_rows(torch.tensor([[2, 7, 3], [2, 8, 3], [2, 7, 3], [2, 9, 3]]))
    assert same.tolist() == [[i == j or {i, j} == {0, 2} for j in range(4)] for i in range(4)]
    rows, columns = ((5.0 * a @ b.T).log_softmax(dim=1).numpy() for a, b in ((image, text), (text, image)))
    slow = 0.0
    for table in (rows, columns):
        slow -= sum(np.mean([table[i, j] for j in range(4) if same[i, j]]) for i in range(4)) / 8
    assert clip_loss(image, text, same, scalar(5.0))[0].item() == pytest.approx(slow, rel=1e-12)


@every_size
def test_siglip_loss_matches_reference(n, d):
    """Algorithm 1 of the paper, with loops."""
    image, text = (unit(z) for z in draws(n, d))
    slow = 0.0
    for i in range(n):
        for j in range(n):
            logit = 6.0 * float(image[i] @ text[j]) - 3.0
            slow += math.log1p(math.exp(-logit if i == j else logit))
    loss, _ = siglip_loss(image, text, torch.eye(n, dtype=torch.bool), scalar(6.0), scalar(-3.0))
    assert loss.item() == pytest.approx(slow / n, rel=1e-12)


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_losses_match_transformers(name):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    small["projection_size" if name == "Siglip" else "projection_dim"] = 16
    config = getattr(transformers, f"{name}Config")(
        text_config={**small, "vocab_size": 30, "max_position_embeddings": 6, "eos_token_id": 3},
        vision_config={**small, "image_size": 8, "patch_size": 4},
        **({} if name == "Siglip" else {"projection_dim": 16}),
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(config).double().eval()
    nn.init.constant_(model.logit_scale, math.log(4.0))
    (x,) = draws(5, 3, 8, 8, count=1)
    if name == "Siglip":
        nn.init.constant_(model.logit_bias, -2.0)
    with torch.no_grad():
        out = model(input_ids=captions(5), pixel_values=x, return_loss=True)
    image, text = (F.normalize(z, dim=1) for z in (out.image_embeds, out.text_embeds))
    alone = torch.eye(5, dtype=torch.bool)
    bias = [scalar(-2.0)] if name == "Siglip" else []
    mine, _ = (siglip_loss if bias else clip_loss)(image, text, alone, scalar(4.0), *bias)
    assert mine.item() == pytest.approx(out.loss.item(), rel=1e-10)


def test_losses_match_open_clip():
    loss = pytest.importorskip("open_clip.loss")
    image, text = (unit(z) for z in draws(6, 8))
    alone = torch.eye(6, dtype=torch.bool)
    expected = loss.ClipLoss()(image, text, scalar(9.0))
    assert clip_loss(image, text, alone, scalar(9.0))[0].item() == pytest.approx(expected.item(), rel=1e-12)
    expected = loss.SigLipLoss()(image, text, scalar(9.0), scalar(-4.0))
    mine = siglip_loss(image, text, alone, scalar(9.0), scalar(-4.0))[0]
    assert mine.item() == pytest.approx(expected.item(), rel=1e-12)


def test_equal_rows_tell_any_change_apart():
    x = captions(1).expand(200, -1).clone()
    generator = torch.Generator().manual_seed(2)
    for i in range(1, 200):
        x[i, 1 + i % 3] = 5 + int(torch.randint(0, 25, (), generator=generator))
    expected = (x[:, None] == x[None]).all(dim=2)
    assert torch.equal(equal_rows(x), expected)
    swapped = torch.tensor([[2, 7, 8, 3], [2, 8, 7, 3]])
    assert equal_rows(swapped).tolist() == [[True, False], [False, True]]


def test_temperature_is_learned_and_bounded():
    method = CLIP(ConvNet((3, 8, 8), width=8), tower())
    assert method(batch())["temperature"].item() == pytest.approx(0.07)
    method.log_scale.data.fill_(9.0)
    method.after_step(0.0)
    out = method(batch())
    assert out["temperature"].item() == pytest.approx(0.01)
    out["loss"].backward()
    assert method.log_scale.grad.item() != 0  # it can become smaller again
    for kind, names in ((CLIP, {"log_scale"}), (SigLIP, {"log_scale", "bias"})):
        method = made(kind)
        decayed = {n for g in optim.parameter_groups(method, 0.1) if g["weight_decay"] for n in g["param_names"]}
        assert names <= dict(method.named_parameters()).keys()
        assert not names & decayed
        assert "tower.backbone.embeddings.word_embeddings.weight" in decayed
    start = SigLIP(ConvNet((3, 8, 8), width=8), tower(), FACTS).bias.item()
    assert start == pytest.approx(-math.log(39))  # a prior of 1 in batches of 40
    assert SigLIP(ConvNet((3, 8, 8), width=8), tower(), FACTS, bias=-4).bias.item() == -4.0


@pytest.mark.parametrize("kind", [CLIP, SigLIP])
def test_frozen_tower_stays(kind):
    method = made(kind, frozen=True).train()
    assert not method.tower.backbone.training
    method(batch())["loss"].backward()
    assert all(p.grad is None for p in method.tower.backbone.parameters())
    assert method.shared.text_projection.weight.grad.abs().sum() > 0
    trained = made(kind).train()
    assert trained.tower.backbone.training
    trained(batch())["loss"].backward()
    assert trained.tower.backbone.embeddings.word_embeddings.weight.grad.abs().sum() > 0
    assert "frozen" in method.describe()["tower"]
    assert "trained" in trained.describe()["tower"]


@pytest.mark.parametrize("kind", [CLIP, SigLIP])
def test_vectors_are_those_of_the_loss(kind):
    method, data = made(kind).eval(), batch()
    assert method.shares_space
    with torch.no_grad():
        image, text = method.sample_vectors(data.views[0]), method.caption_vectors(data.captions)
    torch.testing.assert_close(image.norm(dim=1), torch.ones(4))
    correct = (image @ text.T).argmax(dim=1) == torch.arange(4)
    assert method(data)["contrast_acc"].item() == pytest.approx(correct.float().mean().item())


def test_impossible_settings():
    with pytest.raises(ValueError, match="temperature must be"):
        CLIP(ConvNet((3, 8, 8), width=8), tower(), temperature=0.001)
    with pytest.raises(ValueError, match="scale must be"):
        SigLIP(ConvNet((3, 8, 8), width=8), tower(), FACTS, scale=0.0)
    with pytest.raises(ValueError, match="number or auto"):
        SigLIP(ConvNet((3, 8, 8), width=8), tower(), FACTS, bias="none")
