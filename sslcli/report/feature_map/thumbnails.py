"""Thumbnails of samples in one sprite image, of which the page shows one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sslcli.evals.base.features import EvalData, Split
from sslcli.report.html.images import encode
from sslcli.views import previews
from sslcli.views.preview.base import Preview

if TYPE_CHECKING:
    from PIL import Image

SHARE = 2  # a thumbnail is at most this fraction of a cell of a sheet
COLUMNS_WIDTH = 2000  # pixels of the sprite


def read_thumbnails(data: EvalData, split: Split, ids: Tensor) -> tuple[Tensor, list[Image.Image | str]]:
    """(m,) ids of the readable samples, and their thumbnails: small images, or HTML where these could not be recognized. Holds
    one batch at full size in memory."""
    readable_ids = [torch.empty(0, dtype=torch.int64)]
    thumbnails: list[Image.Image | str] = []
    for part, x in data.batches(split, ids):
        readable_ids.append(part.cpu())
        thumbnails += map(thumbnail, previews(data.dataset, x))
    return torch.cat(readable_ids), thumbnails


def thumbnail(sample: Preview) -> Image.Image | str:
    if not sample.graphic:
        return sample.html()
    width, height = (min(side, most // SHARE) for side, most in zip(sample.size, sample.cell, strict=True))
    return sample.image(width, height)


def sprite(images: list[Image.Image]) -> tuple[bytes, dict[str, int]]:
    """Sprite image of thumbnails, and its layout. PNG for small gray thumbnails, else JPEG."""
    from PIL import Image

    width, height = (max(image.size[axis] for image in images) for axis in (0, 1))
    columns = max(1, min(len(images), COLUMNS_WIDTH // width))
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * width, rows * height))
    for i, image in enumerate(images):
        left, top = (width - image.width) // 2, (height - image.height) // 2
        page.paste(image, (i % columns * width + left, i // columns * height + top))
    red, green, blue = page.split()
    gray = red.tobytes() == green.tobytes() == blue.tobytes()
    small = gray and width * height <= 1024
    layout = {"columns": columns, "rows": rows, "width": width, "height": height}
    return encode(red if gray else page, "PNG" if small else "JPEG"), layout
