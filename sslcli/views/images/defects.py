"""Images that show next to nothing: of one color, dark, bright, blurred."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.views.images.copies import LEAST_SIDE

ONE_COLOR = 0.01  # the standard deviation of pixels, 0..1
DARK, BRIGHT = 0.12, 0.92  # brightness, 0..1, that 98 % of the pixels stay below, or above
BLURRED = 0.04  # the share of fine contrast: that of neighboring pixels to that of the whole image


def defects(x: Tensor) -> dict[str, Tensor]:
    """Scores (B,) of images (B, C, H, W) in 0..1 by the name of a defect; NaN for images without it.

    one_color: the standard deviation of the pixels; dark, bright: the brightness of the 2 % brightest and darkest pixels; blurred:
    the contrast of neighboring pixels as a share of the contrast of the image, at the size of the view."""
    gray = x.mean(dim=1)
    contrast = x.flatten(2).std(dim=2, correction=0).amax(dim=1)
    ranked = gray.flatten(1).sort(dim=1).values
    at = round(0.02 * (ranked.shape[1] - 1))
    high, low = ranked[:, -1 - at], ranked[:, at]
    flat = contrast < ONE_COLOR
    scores = {
        "one_color": contrast.where(flat, torch.nan),
        "dark": high.where(~flat & (high < DARK), torch.nan),
        "bright": low.where(~flat & (low > BRIGHT), torch.nan),
    }
    if min(gray.shape[1:]) >= LEAST_SIDE:
        fine = fine_contrast(gray) / gray.flatten(1).std(dim=1, correction=0).clamp(min=1e-6)
        scores["blurred"] = fine.where(~flat & (fine < BLURRED), torch.nan)
    return scores


def fine_contrast(gray: Tensor) -> Tensor:
    """The root mean square (B,) of the Laplacian of images (B, H, W)."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], device=gray.device)[None, None] / 4
    return F.conv2d(gray[:, None], kernel).flatten(1).square().mean(dim=1).sqrt()
