"""Thumbnails of samples in one sprite image, of which the page shows one at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.evals.base.features import EvalData, Split
from sslcli.report.html.images import encode
from sslcli.views import clean

LARGEST = 40  # pixels a side
CURVE = (72, 40)  # width and height of the plot of a signal
COLORS = [(47, 102, 144), (209, 96, 61), (90, 147, 103)]


def read_thumbnails(data: EvalData, split: Split, ids: Tensor) -> tuple[Tensor, Tensor]:
    """(m,) ids of the readable samples and their thumbnails, (m, 1 or 3, h, w) uint8. Holds one batch at full size in memory."""
    readable_ids, images = [], []
    plain = clean(data.dataset)
    for part, x in data.batches(split, ids):
        x = plain.restore([x])[0].float().cpu()
        readable_ids.append(part.cpu())
        images.append(plot_signals(x) if x.ndim == 3 else resize_images(x))
    if not readable_ids:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, 1, 1, 1, dtype=torch.uint8)
    return torch.cat(readable_ids), torch.cat(images)


def resize_images(x: Tensor) -> Tensor:
    """Thumbnails of images (m, C, H, W) in 0..1; the first three channels, or the first of fewer than three."""
    x = x[:, :3] if x.shape[1] >= 3 else x[:, :1]
    size = (min(LARGEST, x.shape[2]), min(LARGEST, x.shape[3]))
    x = F.adaptive_avg_pool2d(x.nan_to_num(0.0), size)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def plot_signals(x: Tensor) -> Tensor:
    """Signals (m, C, T), the first three channels of each drawn between its own lowest and highest value."""
    import numpy as np
    from PIL import Image, ImageDraw

    wide, high = CURVE
    drawn = []
    for signal in x[:, :3]:
        if signal.shape[1] > 4 * wide:
            signal = F.adaptive_avg_pool1d(signal[None], 4 * wide)[0]
        canvas = Image.new("RGB", (2 * wide, 2 * high), "white")
        pen = ImageDraw.Draw(canvas)
        known = signal[signal.isfinite()]
        low, top = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
        for c, channel in enumerate(signal.tolist()):
            step = (2 * wide - 8) / max(1, len(channel) - 1)
            points = [
                (4 + i * step, 2 * high - 5 - (2 * high - 10) * (v - low) / ((top - low) or 1.0))
                for i, v in enumerate(channel)
                if v == v and abs(v) != float("inf")
            ]
            if len(points) > 1:
                pen.line(points, fill=COLORS[c], width=2)
        drawn.append(np.asarray(canvas.resize(CURVE, Image.Resampling.BOX)))
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)


def sprite(images: Tensor) -> tuple[bytes, dict[str, int]]:
    """Sprite image of thumbnails (m, C, h, w), and its layout. PNG for small gray thumbnails, else JPEG."""
    from PIL import Image

    m, channels, h, w = images.shape
    columns = max(1, min(m, 2000 // w))
    rows = -(-m // columns)
    page = torch.zeros(rows * columns, channels, h, w, dtype=torch.uint8)
    page[:m] = images
    page = page.view(rows, columns, channels, h, w).permute(2, 0, 3, 1, 4).reshape(channels, rows * h, columns * w)
    image = Image.fromarray((page[0] if channels == 1 else page.permute(1, 2, 0)).numpy())
    small = channels == 1 and w * h <= 1024
    return encode(image, "PNG" if small else "JPEG"), {"columns": columns, "rows": rows, "width": w, "height": h}
