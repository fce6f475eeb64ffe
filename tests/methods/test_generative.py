"""Generative methods: denoising and variational autoencoder, context encoder, BiGAN; and the supervised baseline."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from sslcli.backbones.convnet import ConvNet
from sslcli.methods.base import DataInfo
from sslcli.methods.bigan import BiGAN
from sslcli.methods.context_encoder import ContextEncoder
from sslcli.methods.denoising_autoencoder import DenoisingAutoencoder
from sslcli.methods.supervised import Supervised, labeled_cross_entropy
from sslcli.methods.vae import VAE, gaussian_kl
from sslcli.nn.adversary import Critic, critic_loss, with_frozen_parameters
from tests.methods.oracles import draws, images


def small() -> ConvNet:
    torch.manual_seed(0)
    return ConvNet((1, 8, 8), width=4)


def one(n: int = 4, shape=(1, 8, 8)):
    return images(n, views=1, kind="weak", shape=shape)


# denoising -----------------------------------------------------------------------------------------------------------


def test_denoising_target_is_clean_input():
    method, data = DenoisingAutoencoder(small()).eval(), one()
    x = data.views[0]
    spoiled = method.corrupt(x, data)
    drawn = method.decoder(method.backbone(spoiled))
    assert method(data)["loss"].item() == pytest.approx((drawn - x).square().mean().item(), rel=1e-5)
    noise, hidden = 0.5 * data.normal("noise", 1, 8, 8), data.uniform("hide", 1, 8, 8) < 0.25
    assert torch.allclose(spoiled, torch.where(hidden, 0.0, x) + noise, atol=1e-6)
    assert 0.1 < hidden.float().mean() < 0.4


def test_denoising_masks_all_channels_of_a_position():
    method = DenoisingAutoencoder(ConvNet((3, 8, 8), width=4), noise=0.0, hide=0.5)
    data = one(shape=(3, 8, 8))
    gone = method.corrupt(data.views[0], data) == 0
    assert torch.equal(gone.any(dim=1), gone.all(dim=1))
    with pytest.raises(ValueError, match="above 0"):
        DenoisingAutoencoder(small(), noise=0.0, hide=0.0)


# VAE -----------------------------------------------------------------------------------------------------------------


def test_kl_matches_torch():
    mean, log_variance = draws(5, 3)
    wanted = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(dim=1).mean()
    assert gaussian_kl(mean, log_variance).item() == pytest.approx(wanted.item(), rel=1e-10)
    assert gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0


def test_vae_loss_is_negative_bound_per_value():
    method, data = VAE(small(), latent_dim=5, beta=3.0).eval(), one()
    with torch.no_grad():
        method.log_noise.fill_(-0.7)
        method.to_log_variance.bias.normal_()
    x = data.views[0]
    h = method.backbone(x)
    mean, std = method.to_mean(h), (method.to_log_variance(h) / 2).exp()
    drawn = method.decoder(mean + std * data.normal("latent", 5))
    likelihood = Normal(drawn, math.exp(-0.35)).log_prob(x).flatten(1).sum(dim=1)
    bound = likelihood - 3.0 * kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(dim=1)
    assert method(data)["loss"].item() == pytest.approx(-bound.mean().item() / 64, rel=1e-4)


def test_vae_traversal_changes_one_latent_dimension():
    method, data = VAE(small(), latent_dim=3).eval(), one()
    sheets = method.figures(data)
    mean, _ = method.encode(data.views[0])
    column = int(mean.var(dim=0, unbiased=False).argmax())
    z = mean.clone()
    z[:, column] = -2.0
    assert torch.allclose(sheets["traversal"]["-2"], method.decoder(z), atol=1e-5)
    assert not torch.allclose(sheets["traversal"]["-2"], sheets["traversal"]["+2"])
    assert len(sheets["samples"]) == 4


# context encoder -----------------------------------------------------------------------------------------------------


def test_context_encoder_input_and_error_exclude_and_use_block():
    method, data = ContextEncoder(small()).eval(), one()
    x = data.views[0]
    painted, hidden = method.inpaint(x, data)
    assert hidden.sum(dim=(1, 2, 3)).tolist() == [16] * 4  # half of each side
    where = hidden.expand_as(x)
    assert method(data)["loss"].item() == pytest.approx((painted - x)[where].square().mean().item(), rel=1e-5)
    data.views[0] = torch.where(where, x + 5, x)
    assert torch.allclose(method.inpaint(data.views[0], data)[0], painted, atol=1e-6)


def test_context_encoder_without_adversary_has_no_critic():
    assert ContextEncoder(small()).critic is None
    assert not ContextEncoder(small()).adversarial
    assert ContextEncoder(small(), adversary=0.1).adversarial


def test_context_encoder_gradients_are_separate():
    method, data = ContextEncoder(small(), adversary=0.2, width=4), one()
    method(data)["loss"].backward()
    whole = {n: p.grad.clone() for n, p in method.named_parameters()}
    method.zero_grad()
    x = data.views[0]
    # batch statistics and the critic's power iteration move with each pass: compare directions, with both in eval mode
    method.eval()
    painted, hidden = method.inpaint(x, data)
    full = torch.where(hidden, painted, x)
    judge = critic_loss(method.critic(x), method.critic(full.detach()))
    own = torch.autograd.grad(judge, list(method.critic.parameters()))
    method.zero_grad()
    method(data)["loss"].backward()
    for wanted, p in zip(own, method.critic.parameters(), strict=True):
        assert torch.allclose(wanted, p.grad, atol=1e-5), "the critic hears nothing of the painter's wish"
    assert all(torch.isfinite(g).all() for g in whole.values())


# two players ---------------------------------------------------------------------------------------------------------


def test_frozen_parameters_pass_gradients_to_inputs():
    critic = Critic((1, 8, 8), 4).eval()
    x = draws(3, 1, 8, 8, count=1)[0].float().requires_grad_()
    with_frozen_parameters(critic, x).sum().backward()
    assert x.grad.abs().max() > 0
    assert all(p.grad is None for p in critic.parameters())
    assert torch.allclose(with_frozen_parameters(critic, x), critic(x), atol=1e-6)


def test_hinge_loss_matches_reference():
    real, made = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 0.5])
    assert critic_loss(real, made).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 1.5) / 3)


def test_bigan_gradients_are_separate():
    method, data = BiGAN(small(), latent_dim=5, width=4).eval(), one()
    method(data)["loss"].backward()
    x, z = data.views[0], data.normal("code", 5)
    code, made = method.to_code(method.backbone(x)), method.generator(z)
    judge = critic_loss(method.critic(x, code.detach()), method.critic(made.detach(), z))
    sides = {
        "critic": (judge, method.critic),
        "encoder": (method.critic(x, code).mean(), method.to_code),
        "generator": (-method.critic(made, z).mean(), method.generator),
    }
    for name, (loss, part) in sides.items():
        wanted = torch.autograd.grad(loss, list(part.parameters()), retain_graph=True)
        for grad, p in zip(wanted, part.parameters(), strict=True):
            assert torch.allclose(grad, p.grad, atol=1e-5), name
    assert judge.item() == pytest.approx(method(data)["critic"].item(), rel=1e-4)


# supervised ----------------------------------------------------------------------------------------------------------


def test_supervised_ignores_unlabeled_samples():
    logits, y = draws(4, 3)[0], torch.tensor([2, -1, 0, -1])
    wanted = F.cross_entropy(logits[[0, 2]], y[[0, 2]])
    assert labeled_cross_entropy(logits, y).item() == pytest.approx(wanted.item(), rel=1e-12)
    smooth = F.cross_entropy(logits[[0, 2]], y[[0, 2]], label_smoothing=0.1)
    assert labeled_cross_entropy(logits, y, 0.1).item() == pytest.approx(smooth.item(), rel=1e-12)
    nothing = torch.full((4,), -1)
    logits.requires_grad_()
    loss = labeled_cross_entropy(logits, nothing)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_supervised_accuracy_over_views_and_labeled_samples():
    method = Supervised(small(), DataInfo(10, 3, 1)).eval()
    data = images(5, views=2, labels=torch.tensor([0, 1, 2, -1, 1]))
    data.kinds = ["global", "weak"]
    right = [
        method.classifier(method.backbone(x)).argmax(dim=1)[[0, 1, 2, 4]] == torch.tensor([0, 1, 2, 1])
        for x in data.views
    ]
    assert method(data)["accuracy"].item() == pytest.approx(torch.cat(right).float().mean().item())
