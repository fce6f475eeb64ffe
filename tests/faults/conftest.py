"""A folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of 16 x 16 pixels in two classes; 32 are in the training split."""
    root = tmp_path_factory.mktemp("photos")
    dice = np.random.default_rng(0)
    for i in range(40):
        folder = root / ("cat", "dog")[i % 2]
        folder.mkdir(exist_ok=True)
        small = Image.fromarray(dice.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        small.resize((16, 16), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.png")
    return root
