"""Colorization: from the brightness of a picture, which colours has it?

Larsson, Maire & Shakhnarovich, "Learning Representations for Automatic Colorization", ECCV 2016.
https://arxiv.org/abs/1603.06668 (histograms of each colour coordinate by itself, Sec. 3.2)
Zhang, Isola & Efros, "Colorful Image Colorization", ECCV 2016. https://arxiv.org/abs/1603.08511 (rare colours weigh more)
B batch, C channels, K bins, (h, w) a quarter of the view. Deviations from both: colours are the differences of all channels but
the last to the brightness, of the normalised view and not in Lab; they are predicted from the backbone's vector, where
theirs have a map of features; the shares of colours, which rebalance the loss, are a moving average and not counted beforehand.
The backbone meets colours only after training, when it is measured.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.decoder import Decoder
from sslcli.nn.dist import all_reduce_mean
from sslcli.nn.precision import full_precision

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
FORGET = 0.01  # of the moving average


class Colorization(Method):
    modalities = ("image",)
    shares: Tensor
    held: Tensor
    count: Tensor

    def __init__(
        self, backbone: nn.Module, bins: int = 16, reach: float = 2.0, rebalance: float = 0.5, width: int = 32
    ):
        super().__init__(backbone)
        channels, *size = self.backbone.input_shape
        if channels < 2:
            raise ValueError("pictures of one channel have no colour to predict")
        if bins < 2 or reach <= 0 or not 0 <= rebalance <= 1:
            raise ValueError("at least 2 bins, a reach above 0 and a rebalance from 0 to 1 are needed")
        self.bins, self.reach, self.rebalance = bins, reach, rebalance
        self.colours = channels - 1
        luma = LUMA if channels == 3 else (1 / channels,) * channels
        self.luma: Tensor
        self.register_buffer("luma", torch.tensor(luma), persistent=False)
        small = tuple(max(1, s // 4) for s in size)
        self.decoder = Decoder(self.backbone.dim, (self.colours * bins, *small), width)
        self.register_buffer("shares", torch.full((self.colours, bins), 1 / bins))
        self.register_buffer("held", torch.zeros(self.colours, bins), persistent=False)
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        (x,) = batch.expect_views(1, "weak", "global")
        grey, colour = self.apart(x)
        logits = self.predict(grey)
        target = self.binned(F.adaptive_avg_pool2d(colour, (logits.shape[3], logits.shape[4])))  # (B, C - 1, h, w)
        if self.training and torch.is_grad_enabled():
            seen = F.one_hot(target, self.bins).flatten(2, 3).to(self.held.dtype).mean(dim=(0, 2))  # (C - 1, K)
            self.held.add_(seen)
            self.count.add_(1)
        accuracy = (logits.detach().argmax(dim=2) == target).float().mean()
        return {"loss": colour_loss(logits, target, self.weights()), "accuracy": accuracy}

    def apart(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Brightness (B, 1, H, W), and how far each channel but the last is from it (B, C - 1, H, W)."""
        grey = (x * self.luma[:, None, None].to(x.dtype)).sum(dim=1, keepdim=True)
        return grey, (x - grey)[:, :-1]

    def predict(self, grey: Tensor) -> Tensor:
        """(B, C - 1, K, h, w) logits."""
        drawn = self.decoder(self.backbone(grey.expand(-1, self.colours + 1, -1, -1).contiguous()))
        return drawn.unflatten(1, (self.colours, self.bins))

    def binned(self, colour: Tensor) -> Tensor:
        """The bin of each value, of K equal ones from -reach to reach; what is beyond lies in the outermost."""
        return ((colour / self.reach + 1) / 2 * self.bins).floor().clamp(0, self.bins - 1).long()

    def weights(self) -> Tensor:
        """(C - 1, K), Zhang et al., eq. (4): 1 / ((1 - l) p + l / K) of each bin, 1 on average over what is seen."""
        weights = 1 / ((1 - self.rebalance) * self.shares + self.rebalance / self.bins)
        return weights / (self.shares * weights).sum(dim=1, keepdim=True)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        seen, count = all_reduce_mean(self.held), all_reduce_mean(self.count)
        self.shares.lerp_(seen / count.clamp(min=1), FORGET * (count > 0))
        self.held.zero_()
        self.count.zero_()

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """The mean of each pixel's histogram, drawn on the brightness."""
        x = batch.views[0]
        grey, _ = self.apart(x)
        centres = (torch.arange(self.bins, device=x.device) + 0.5) / self.bins * 2 * self.reach - self.reach
        colour = (self.predict(grey).softmax(dim=2) * centres[:, None, None]).sum(dim=2)  # (B, C - 1, h, w)
        colour = F.interpolate(colour, size=x.shape[-2:], mode="bilinear", align_corners=False)
        last = -(colour * self.luma[:-1, None, None]).sum(dim=1, keepdim=True) / self.luma[-1]
        return {
            "colorization": {
                "source": x,
                "brightness": grey.expand_as(x),
                "predicted": grey + torch.cat([colour, last], dim=1),
            }
        }

    def details(self) -> dict[str, str]:
        return {"colours": f"{self.colours} differences in {self.bins} bins, at a quarter of the side"}


@full_precision
def colour_loss(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The cross-entropy of (B, C - 1, K, h, w) logits and (B, C - 1, h, w) bins, each weighed by `weights` (C - 1, K) of its bin,
    the mean over all."""
    each = F.cross_entropy(logits.transpose(1, 2), target, reduction="none")  # (B, C - 1, h, w)
    channel = torch.arange(len(weights), device=weights.device)[None, :, None, None]
    return (each * weights[channel, target].to(each.dtype)).mean()
