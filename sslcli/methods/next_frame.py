"""Prediction of the next frames of a clip from the first ones, with the mean squared error.

Gao et al., "SimVP: Simpler yet Better Video Prediction", CVPR 2022. https://arxiv.org/abs/2206.05099
Tan et al., "SimVPv2: Towards Simple yet Powerful Spatiotemporal Predictive Learning", 2022. https://arxiv.org/abs/2211.12509
B batch, T frames of a clip, K given ones, S predicted at a time, D channels of a map of h x w. The backbone encodes each frame, a
translator turns the maps of K frames into those of the next S, and a decoder makes frames of them. With fewer than T - K frames at
a time, predictions are given for the next ones, also in training. Deviations from the papers: the error of normalized pixels; the
decoder makes pixels of a map by one rearrangement, without a skip connection, so that other numbers of frames than K can be
predicted; blocks of the convolutional translator are ConvNeXt's with dilated kernels, theirs are gated.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.nn.transformer import Block, sine_positions


class NextFrame(Method):
    requires = frozenset({"values", "continuous", "order", "frames"})
    min_batch = 1

    def __init__(
        self,
        backbone: nn.Module,
        given: int | str = "auto",
        step: int | str = "auto",
        translator: str = "conv",
        width: int = 256,
        depth: int = 4,
    ):
        super().__init__(backbone)
        if not hasattr(self.backbone, "maps"):
            raise ValueError("next_frame takes a backbone with a map for each frame: backbone=clip_convnet")
        channels, frames, *self.size = self.backbone.input_shape
        self.given = count("given", given, frames // 2, frames - 1)
        self.ahead = frames - self.given
        self.step = count("step", step, self.ahead, self.ahead)
        if translator not in ("conv", "transformer"):
            raise ValueError(f"translator must be conv or transformer, got {translator!r}")
        dim = self.backbone.map_dim
        with torch.no_grad():
            h, w = self.backbone.maps(torch.zeros(2, channels, 1, *self.size)).shape[3:]
        kind = ConvTranslator if translator == "conv" else TransformerTranslator
        self.translator = kind(self.given * dim, self.step * dim, width, depth, (h, w))
        self.zoom = -(-self.size[0] // h), -(-self.size[1] // w)
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(dim, channels * self.zoom[0] * self.zoom[1], 3, padding=1),
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "clean")
        error = F.mse_loss(self.predict(x[:, :, : self.given]).float(), x[:, :, self.given :])
        std = torch.tensor(self.backbone.values.std, device=x.device)
        return {"loss": error, "frame_error": error.detach() * std.square().mean() * x[0, :, 0].numel()}

    def predict(self, x: Tensor) -> Tensor:
        """The `ahead` frames (B, C, T - K, H, W) after the given ones (B, C, K, H, W)."""
        out: list[Tensor] = []
        for at in range(0, self.ahead, self.step):
            new = self._next(x)
            out.append(new[:, :, : self.ahead - at])
            x = torch.cat([x, new], dim=2)[:, :, -self.given :]
        return torch.cat(out, dim=2)

    def _next(self, x: Tensor) -> Tensor:
        """(B, C, K, H, W) -> (B, C, S, H, W)."""
        maps = self.backbone.maps(x)  # (B, K, D, h, w)
        after = self.translator(maps.flatten(1, 2)).unflatten(1, (self.step, -1))  # (B, S, D, h, w)
        pixels = self.decoder(after.flatten(0, 1))
        frames = rearrange(pixels, self.zoom)[:, :, : self.size[0], : self.size[1]]
        return frames.unflatten(0, (len(x), self.step)).transpose(1, 2)

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.expect_views(1, "weak", "clean")
        predicted = torch.cat([x[:, :, : self.given], self.predict(x[:, :, : self.given]).to(x.dtype)], dim=2)
        hidden = torch.zeros_like(x, dtype=torch.bool)
        hidden[:, :, self.given :] = True
        return Reconstruction(x, predicted, hidden, values=self.backbone.values)

    def details(self) -> dict[str, str]:
        times = "all at once" if self.step == self.ahead else f"{self.step} at a time"
        return {"frames": f"{self.given} given, {self.ahead} predicted {times}"}


def count(name: str, value: int | str, auto: int, most: int) -> int:
    """A number of frames; ValueError unless it is `auto` or an integer from 1 to `most`."""
    if value == "auto":
        return auto
    if isinstance(value, str | bool) or not 1 <= value <= most:
        raise ValueError(f"{name} must be auto or an integer from 1 to {most}, got {value!r}")
    return value


def rearrange(x: Tensor, zoom: tuple[int, int]) -> Tensor:
    """(B, C a b, h, w) -> (B, C, h a, w b): channels become pixels (Shi et al., CVPR 2016)."""
    b, _, h, w = x.shape
    x = x.view(b, -1, *zoom, h, w).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(b, x.shape[1], h * zoom[0], w * zoom[1])


class ConvTranslator(nn.Module):
    """(B, before, h, w) -> (B, after, h, w): blocks of depthwise convolutions of 7, with dilations 3 and 1 in turn, and an MLP
    (Liu et al., "A ConvNet for the 2020s", CVPR 2022)."""

    def __init__(self, before: int, after: int, width: int, depth: int, size: tuple[int, int]):
        super().__init__()
        self.start = nn.Conv2d(before, width, 1)
        self.blocks = nn.ModuleList(ConvBlock(width, 1 if i % 2 else 3) for i in range(depth))
        self.end = nn.Conv2d(width, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        for block in self.blocks:
            h = block(h)
        return self.end(h)


class ConvBlock(nn.Module):
    """x + MLP(norm(depthwise(x)))."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3 * dilation, dilation=dilation, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.mlp = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.mlp(self.norm(self.depthwise(x)))
        return out


class TransformerTranslator(nn.Module):
    """(B, before, h, w) -> (B, after, h, w): transformer blocks on the h x w places."""

    positions: Tensor

    def __init__(self, before: int, after: int, width: int, depth: int, size: tuple[int, int], heads: int = 4):
        super().__init__()
        if width % (4 * heads):
            raise ValueError(f"width must be a multiple of {4 * heads} for a transformer, got {width}")
        self.start = nn.Linear(before, width)
        self.register_buffer("positions", sine_positions(size, width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.end = nn.Linear(width, after)

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x.flatten(2).transpose(1, 2)) + self.positions
        for block in self.blocks:
            h = block(h)
        return self.end(self.norm(h)).transpose(1, 2).unflatten(2, x.shape[2:])
