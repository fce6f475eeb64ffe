"""The training steps of W1 to W3 as one writes them by hand, on one batch that is there: no library, no data path.

Nothing of sslcli is imported. `step(workload, batch, channels_last)` gives a function that makes one optimizer step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def step(workload: str, batch: int, channels_last: bool, device: torch.device) -> Callable[[], None]:
    """The step of `simclr`, `simsiam` (ResNet-18 with a small stem, 32 x 32) or `mae` (ViT-Tiny, patch 4; needs timm)."""
    model = {"simclr": SimCLR, "simsiam": SimSiam, "mae": MAE}[workload]().to(device)
    views = [torch.randn(batch, 3, 32, 32, device=device) for _ in range(1 if workload == "mae" else 2)]
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        views = [v.to(memory_format=torch.channels_last) for v in views]
    parameters = model.parameters()
    optimizer = torch.optim.AdamW(parameters, 1e-5) if workload == "mae" else torch.optim.SGD(parameters, 1e-5, 0.9)
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()

    def once() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = model(*views)
        loss.backward()
        optimizer.step()

    return once


def resnet() -> nn.Module:
    from torchvision.models import resnet18

    net = resnet18()
    net.conv1, net.maxpool, net.fc = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity(), nn.Identity()
    return net


class SimCLR(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(resnet(), nn.Linear(512, 2048), nn.ReLU(inplace=True), nn.Linear(2048, 256))

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        z = F.normalize(torch.cat([self.net(x1), self.net(x2)]).float(), dim=1)
        n = len(z)
        similarity = (z @ z.T / 0.2).masked_fill(torch.eye(n, dtype=torch.bool, device=z.device), float("-inf"))
        return F.cross_entropy(similarity, (torch.arange(n, device=z.device) + n // 2) % n)


class SimSiam(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def block(i: int, o: int) -> list[nn.Module]:
            return [nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU(inplace=True)]

        last = [nn.Linear(2048, 2048, bias=False), nn.BatchNorm1d(2048, affine=False)]
        self.net = nn.Sequential(resnet(), *block(512, 2048), *block(2048, 2048), *last)
        self.predictor = nn.Sequential(*block(2048, 512), nn.Linear(512, 2048))

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        z1, z2 = self.net(x1), self.net(x2)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        both = F.cosine_similarity(p1, z2.detach()).mean() + F.cosine_similarity(p2, z1.detach()).mean()
        return -both / 2


class MAE(nn.Module):
    """timm's blocks; a quarter of 64 tokens is encoded, one block of the same width decodes all."""

    def __init__(self) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.embed = nn.Conv2d(3, 192, 4, 4)
        self.encoder = nn.Sequential(*(Block(192, 3, qkv_bias=True) for _ in range(12)), nn.LayerNorm(192))
        self.cls, self.mask = nn.Parameter(torch.zeros(1, 1, 192)), nn.Parameter(torch.zeros(1, 1, 192))
        self.positions = nn.Parameter(torch.randn(1, 65, 192) * 0.02, requires_grad=False)
        self.to_decoder, self.decoder = nn.Linear(192, 192), Block(192, 4, qkv_bias=True)
        self.to_pixels = nn.Sequential(nn.LayerNorm(192), nn.Linear(192, 48))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.positions[:, 1:]
        n, dim = len(x), tokens.shape[2]
        order = torch.rand(n, 64, device=x.device).argsort(dim=1)
        keep = order[:, :16, None].expand(-1, -1, dim)
        seen = torch.cat([(self.cls + self.positions[:, :1]).expand(n, -1, -1), tokens.gather(1, keep)], dim=1)
        seen = self.to_decoder(self.encoder(seen))
        full = self.mask.to(seen.dtype).expand(n, 64, -1).scatter(1, keep, seen[:, 1:])
        full = self.decoder(torch.cat([seen[:, :1], full], dim=1) + self.positions)
        predicted = self.to_pixels(full)[:, 1:]
        target = x.unflatten(3, (8, 4)).unflatten(2, (8, 4)).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
        error = (predicted - target).square().mean(dim=2)
        hidden = torch.ones_like(error).scatter(1, order[:, :16], 0.0)
        return (error * hidden).sum() / hidden.sum()
