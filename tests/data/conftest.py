"""Small files, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslcli.data import notify


def make_image(seed: int = 0, width: int = 24, height: int = 20, mode: str = "RGB") -> Image.Image:
    """Smooth noise, different for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """make_folder({"cat": 3, "dog": 2}, name="photos") -> a folder of PNG class folders; "" puts images at the top."""

    def make(counts: dict[str, int], name: str = "photos", size: tuple[int, int] = (24, 20), ext: str = ".png") -> Path:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        seed = sum(map(ord, name)) * 1000
        for folder, n in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                seed += 1
                make_image(seed, *size).save(root / folder / f"{i:03d}{ext}")
        return root

    return make


@pytest.fixture
def messages():
    """What the data floor says while it works."""
    lines: list[str] = []
    notify.set_hooks(log=lines.append)
    yield lines
    notify.set_hooks()
