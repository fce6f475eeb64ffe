"""Colorization: cross-entropy of histograms of color, predicted from luminance.

Larsson, Maire & Shakhnarovich, "Learning Representations for Automatic Colorization", ECCV 2016.
https://arxiv.org/abs/1603.06668 (a histogram per color coordinate, Sec. 3.2)
Zhang, Isola & Efros, "Colorful Image Colorization", ECCV 2016. https://arxiv.org/abs/1603.08511 (rebalancing of rare colors)
B batch, C channels, K bins, (h, w) a quarter of the view. Deviations from both: color coordinates are the differences of all
channels but the last from the luminance, of the normalized view and not in Lab; they are predicted from the backbone's feature
vector, theirs from a feature map; the color frequencies that rebalance the loss are a moving average, not counted in advance.
The backbone sees color only in evaluation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.decoder import ConvDecoder
from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.precision import full_precision

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
UPDATE_RATE = 0.01  # of the moving average


class Colorization(Method):
    requires = frozenset({"pixels"})
    shares: Tensor
    sums: Tensor
    count: Tensor

    def __init__(
        self, backbone: nn.Module, bins: int = 16, reach: float = 2.0, rebalance: float = 0.5, width: int = 32
    ):
        super().__init__(backbone)
        channels, *size = self.backbone.input_shape
        if channels < 2:
            raise ValueError("images of one channel have no color to predict")
        if bins < 2 or reach <= 0 or not 0 <= rebalance <= 1:
            raise ValueError("bins must be at least 2, reach above 0, rebalance from 0 to 1")
        self.bins, self.reach, self.rebalance = bins, reach, rebalance
        self.colors = channels - 1
        luma = LUMA if channels == 3 else (1 / channels,) * channels
        self.luma: Tensor
        self.register_buffer("luma", torch.tensor(luma), persistent=False)
        small = tuple(max(1, s // 4) for s in size)
        self.decoder = ConvDecoder(self.backbone.dim, (self.colors * bins, *small), width)
        self.register_buffer("shares", torch.full((self.colors, bins), 1 / bins))
        self.register_buffer("sums", torch.zeros(self.colors, bins), persistent=False)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "global")
        gray, color = self.split_color(x)
        logits = self.predict(gray)
        target = self.to_bins(F.adaptive_avg_pool2d(color, (logits.shape[3], logits.shape[4])))  # (B, C - 1, h, w)
        if self.training and torch.is_grad_enabled():
            frequency = F.one_hot(target, self.bins).flatten(2, 3).to(self.sums.dtype).mean(dim=(0, 2))  # (C - 1, K)
            self.sums.add_(frequency)
            self.count.add_(1)
        accuracy = (logits.detach().argmax(dim=2) == target).float().mean()
        return {"loss": color_loss(logits, target, self.weights()), "accuracy": accuracy}

    def split_color(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Luminance (B, 1, H, W), and the difference of each channel but the last from it (B, C - 1, H, W)."""
        gray = (x * self.luma[:, None, None].to(x.dtype)).sum(dim=1, keepdim=True)
        return gray, (x - gray)[:, :-1]

    def predict(self, gray: Tensor) -> Tensor:
        """(B, C - 1, K, h, w) logits."""
        out = self.decoder(self.backbone(gray.expand(-1, self.colors + 1, -1, -1).contiguous()))
        return out.unflatten(1, (self.colors, self.bins))

    def to_bins(self, color: Tensor) -> Tensor:
        """Bin index of each value, of K equal bins from -reach to reach; values beyond are in the outermost."""
        return ((color / self.reach + 1) / 2 * self.bins).floor().clamp(0, self.bins - 1).long()

    def weights(self) -> Tensor:
        """(C - 1, K), Zhang et al., eq. (4): 1 / ((1 - l) p + l / K) of each bin, with mean 1 under the frequencies p."""
        weights = 1 / ((1 - self.rebalance) * self.shares + self.rebalance / self.bins)
        return weights / (self.shares * weights).sum(dim=1, keepdim=True)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        frequency, count = all_reduce_mean(self.sums), all_reduce_mean(self.count)
        self.shares.lerp_(frequency / count.clamp(min=1), UPDATE_RATE * (count > 0))
        self.sums.zero_()
        self.count.zero_()

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """The mean of each pixel's histogram, out on the brightness."""
        x = batch.views[0]
        gray, _ = self.split_color(x)
        centers = (torch.arange(self.bins, device=x.device) + 0.5) / self.bins * 2 * self.reach - self.reach
        color = (self.predict(gray).softmax(dim=2) * centers[:, None, None]).sum(dim=2)  # (B, C - 1, h, w)
        color = F.interpolate(color, size=x.shape[-2:], mode="bilinear", align_corners=False)
        last = -(color * self.luma[:-1, None, None]).sum(dim=1, keepdim=True) / self.luma[-1]
        return {
            "colorization": {
                "source": x,
                "brightness": gray.expand_as(x),
                "predicted": gray + torch.cat([color, last], dim=1),
            }
        }

    def details(self) -> dict[str, str]:
        return {"color": f"{self.colors} differences in {self.bins} bins, at a quarter of the side"}


@full_precision
def color_loss(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Mean cross-entropy of (B, C - 1, K, h, w) logits and (B, C - 1, h, w) bins, weighted by `weights` (C - 1, K) of the bin."""
    each = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")  # (B, C - 1, h, w)
    channel = torch.arange(len(weights), device=weights.device)[None, :, None, None]
    return (each * weights[channel, target].to(each.dtype)).mean()
