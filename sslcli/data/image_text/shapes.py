"""Generated pictures of shapes with captions: six shapes in six colors, of different sizes, at different places."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.data.fingerprint import fingerprint
from sslcli.data.image_text.build import CaptionOptions, as_pairs, attach_captions, fit_captions
from sslcli.data.image_text.preprocessor import PairsPreprocessor
from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.data.public.build import labeled_images
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.errors import RequestError

COLORS = {
    "red": (214, 40, 40),
    "green": (44, 160, 70),
    "blue": (45, 90, 220),
    "yellow": (240, 210, 40),
    "purple": (140, 60, 170),
    "orange": (245, 130, 30),
}
BACKGROUNDS = {"black": 25, "gray": 120, "white": 230}
FINER = 3  # positions per pixel and axis at which a shape is evaluated
UNSEEN = 7  # combinations of color and shape that training does not have
CAPTIONS = 2  # of an image

Plane = np.ndarray


def _triangle(x: Plane, y: Plane) -> Plane:
    inside: Plane = (y < 0.6) & (np.abs(x) * 1.732 - y < 1.05)
    return inside


def _star(x: Plane, y: Plane) -> Plane:
    """Five points: the outline is straight between radii of 1 and .45, in turn."""
    angle = np.arctan2(x, -y) % (2 * np.pi / 5)
    angle = np.minimum(angle, 2 * np.pi / 5 - angle)  # 0 at a point, pi / 5 at a notch
    notch = 0.45 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    along, across = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
    inside: Plane = (1 - along) * notch[1] - (1 - notch[0]) * across > 0
    return inside


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {  # whether positions, in units of the radius, are inside
    "circle": lambda x, y: x**2 + y**2 < 0.8,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.8,
    "triangle": _triangle,
    "ring": lambda x, y: np.abs(x**2 + y**2 - 0.65) < 0.3,
    "cross": lambda x, y: (np.minimum(np.abs(x), np.abs(y)) < 0.28) & (np.maximum(np.abs(x), np.abs(y)) < 0.95),
    "star": _star,
}
CLASSES = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)


def shapes(
    name: str = "shapes",
    samples: int = 4000,
    test_samples: int = 1000,
    size: int = 32,
    combinations: str = "seen",
    tokenizer: str = "words",
    max_length: int = 24,
    like: ImagePreprocessor | None = None,
    like_captions: TextPreprocessor | None = None,
) -> Dataset:
    """Pictures (3, size, size) of a shape in a color with two captions each; the class is color and shape, such as "red circle".

    Training has 29 of the 36 combinations; every color and every shape occurs in it. `combinations`: of the test
    pictures: seen, the same; unseen,
    the seven others.
    `samples`, `test_samples`: numbers of pictures. `tokenizer`, `max_length`, `like`, `like_captions`: as in `pairs`.

    RequestError for values out of range."""
    for key, value, least in (("samples", samples, 64), ("test_samples", test_samples, 8), ("size", size, 16)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise RequestError(
                f"dataset.{key}={value}: expected an integer of at least {least}", f"dataset.{key}={least}"
            )
    if combinations not in ("seen", "unseen"):
        raise RequestError(
            f"dataset.combinations={combinations}: expected seen or unseen", "dataset.combinations=unseen"
        )
    options = CaptionOptions(tokenizer, max_length=max_length)
    held = unseen()
    seen = [i for i in range(len(CLASSES)) if i not in held]
    parts, texts = {}, {}
    for part, count, classes in (
        ("train", samples, seen),
        ("test", test_samples, seen if combinations == "seen" else held),
    ):
        draw = np.random.Generator(np.random.PCG64([part == "test", combinations == "unseen" and part == "test", size]))
        labels = np.array(classes)[np.arange(count) % len(classes)]
        pixels, texts[part] = _draw_all(labels, size, draw)
        parts[part] = torch.from_numpy(pixels), torch.from_numpy(labels)
    contents = [x.numpy().tobytes() for pair in parts.values() for x in pair]
    images = labeled_images(
        name, parts["train"], parts["test"], CLASSES, None, fingerprint(samples + test_samples, contents)
    )
    own = like_captions or (like.captions if isinstance(like, PairsPreprocessor) else None)
    own = own or fit_captions([caption for row in texts["train"] for caption in row], options, images.notes)
    assert isinstance(images.test, ArraySource), images.test
    attach_captions(images.train, texts["train"], own)
    attach_captions(images.test, texts["test"], own)
    images.notes.append(
        f"test: {combinations} combinations of color and shape (dataset.combinations); training has {len(seen)} of {len(CLASSES)}"
    )
    return as_pairs(images, texts, own)


def unseen() -> list[int]:
    """The classes without training samples: no two of them share both color and shape, and each color and shape has others."""
    return sorted((7 * i + 3 * (i // 6)) % len(CLASSES) for i in range(UNSEEN))


def _draw_all(labels: np.ndarray, size: int, draw: np.random.Generator) -> tuple[np.ndarray, list[list[str]]]:
    """Pictures (n, 3, size, size) uint8 of these classes, and the captions of each."""
    n = len(labels)
    shades, places = list(BACKGROUNDS), draw.uniform(0, 1, size=(n, 2))
    large, back = draw.uniform(size=n) < 0.5, draw.integers(len(shades), size=n)
    radius = np.where(large, draw.uniform(0.32, 0.42, n), draw.uniform(0.18, 0.24, n)) * size
    center = radius[:, None] + places * (size - 2 * radius[:, None])
    turn = draw.uniform(-0.3, 0.3, n)
    tint, noise = draw.normal(0, 14, (n, 3)), draw.normal(0, 9, (n, 3, size, size))
    axis = (np.arange(size * FINER) + 0.5) / FINER
    out = np.empty((n, 3, size, size), np.uint8)
    captions = []
    for i, label in enumerate(labels.tolist()):
        color, shape = CLASSES[label].split()
        x, y = (axis[None, :] - center[i, 0]) / radius[i], (axis[:, None] - center[i, 1]) / radius[i]
        c, s = np.cos(turn[i]), np.sin(turn[i])
        inside = SHAPES[shape](c * x + s * y, c * y - s * x).astype(np.float64)
        cover = inside.reshape(size, FINER, size, FINER).mean(axis=(1, 3))
        paint = np.array(COLORS[color])[:, None, None] + tint[i][:, None, None]
        picture = BACKGROUNDS[shades[back[i]]] * (1 - cover) + paint * cover + noise[i]
        out[i] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        captions.append(_captions(color, shape, bool(large[i]), shades[back[i]], places[i], draw))
    return out, captions


def _captions(
    color: str, shape: str, large: bool, background: str, place: np.ndarray, draw: np.random.Generator
) -> list[str]:
    """Two of the captions that a picture can have."""
    article = "an" if color[0] in "aeiou" else "a"
    size = "large" if large else "small"
    side = "left" if place[0] < 0.5 else "right"
    height = "top" if place[1] < 0.5 else "bottom"
    every = [
        f"{article} {color} {shape}",
        f"a {size} {color} {shape}",
        f"{article} {color} {shape} on a {background} background",
        f"a {size} {shape} in {color}",
        f"a picture of {article} {color} {shape} at the {height} {side}",
        f"{background} background with a {size} {color} {shape}",
    ]
    return [every[i] for i in sorted(draw.choice(len(every), CAPTIONS, replace=False).tolist())]
