"""The data pipelines of other libraries, each as an iterator of batches: a list of views (B, 3, S, S).

    PEERS[name](recipe, size, mean, std) -> what makes the views of one PIL picture     (ImportError: it is not installed)
    stream(...)                          -> batches of them, by a DataLoader as its documentation has it

A recipe is `simclr` or `mae`, with the strengths that configs/augmentation/simclr.yaml and mae.yaml have.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Transform = Callable[[Any], list[Tensor]]
JITTER = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}


class Pictures(Dataset[list[Tensor]]):
    """A source of sslcli's as other libraries want it: one picture at a time, as PIL."""

    def __init__(self, source: Any, transform: Transform):
        self.source, self.transform = source, transform
        self.x = None if source.resident is None else source.resident.tensor.permute(0, 2, 3, 1).contiguous().numpy()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> list[Tensor]:
        from PIL import Image

        if self.x is not None:
            return self.transform(Image.fromarray(self.x[index]))
        with Image.open(self.source.paths[index]) as picture:
            return self.transform(picture.convert("RGB"))


@contextlib.contextmanager
def stream(dataset: Pictures, batch: int, workers: int, device: torch.device) -> Iterator[Iterator[list[Tensor]]]:
    """Batches without end; the workers stop with the block."""

    def batches() -> Iterator[list[Tensor]]:
        on_gpu = device.type == "cuda"
        while True:
            loader = DataLoader(dataset, batch, shuffle=True, num_workers=workers, drop_last=True, pin_memory=on_gpu)
            for views in loader:
                yield [v.to(device, non_blocking=True) for v in views]

    made = batches()
    try:
        yield made
    finally:
        made.close()


def tutorial(recipe: str, size: int, mean: Any, std: Any) -> Transform:
    """torchvision's classic transforms on PIL pictures, as every tutorial has them."""
    from torchvision import transforms as t

    least = 0.08 if recipe == "simclr" else 0.2
    steps: list[Any] = [t.RandomResizedCrop(size, (least, 1.0), interpolation=t.InterpolationMode.BICUBIC)]
    steps += [t.RandomHorizontalFlip()]
    if recipe == "simclr":
        steps += [t.RandomApply([t.ColorJitter(**JITTER)], 0.8), t.RandomGrayscale(0.2), t.ToTensor()]
        steps += [t.RandomApply([t.GaussianBlur(size // 10 // 2 * 2 + 1, (0.1, 2.0))], 0.5), t.Normalize(mean, std)]
    else:
        steps += [t.ToTensor(), t.Normalize(mean, std)]
    return Views(t.Compose(steps), 2 if recipe == "simclr" else 1)


def lightly(recipe: str, size: int, mean: Any, std: Any) -> Transform:
    normalize = {"mean": list(mean), "std": list(std)}
    if recipe == "mae":
        from lightly.transforms.mae_transform import MAETransform

        return MAETransform(size, normalize=normalize)
    from lightly.transforms.simclr_transform import SimCLRTransform

    return SimCLRTransform(size, normalize=normalize)


def solo_learn(recipe: str, size: int, mean: Any, std: Any) -> Transform:
    """Its CIFAR or ImageNet transform, with its own mean and deviation."""
    found = importlib.util.find_spec("solo")  # the package as a whole wants much; this one file does not
    if found is None or not found.submodule_search_locations:
        raise ImportError("no module named solo")
    file = Path(found.submodule_search_locations[0], "utils", "pretrain_dataloader.py")
    spec = importlib.util.spec_from_file_location("solo_pretrain_dataloader", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind = module.CifarTransform if size <= 96 else module.ImagenetTransform
    if recipe == "simclr":
        return Views(kind(**JITTER, crop_size=size), 2)
    plain = {"color_jitter_prob": 0.0, "gray_scale_prob": 0.0, "gaussian_prob": 0.0, "min_scale": 0.2}
    return Views(kind(**JITTER, **plain, crop_size=size), 1)


def lightly_train(recipe: str, size: int, mean: Any, std: Any) -> Transform:
    """Its SimCLR; it has no MAE."""
    if recipe == "mae":
        raise ImportError("lightly-train has no MAE")
    from lightly_train._methods.simclr.simclr_transform import SimCLRTransform, SimCLRTransformArgs

    args = SimCLRTransformArgs(image_size=(size, size), num_channels=3)
    return FromArray(SimCLRTransform(args))


def stable_pretraining(recipe: str, size: int, mean: Any, std: Any) -> Transform:
    """As its examples for CIFAR-10 and ImageNet compose them."""
    from stable_pretraining.data import transforms as t

    least = 0.08 if recipe == "simclr" else 0.2
    steps: list[Any] = [t.RGB(), t.RandomResizedCrop((size, size), scale=(least, 1.0)), t.RandomHorizontalFlip(p=0.5)]
    if recipe == "simclr":
        steps += [t.ColorJitter(**JITTER, p=0.8), t.RandomGrayscale(p=0.2)]
        steps += [t.PILGaussianBlur(p=0.5)] if size > 32 else []
    return FromDict(Views(t.Compose(*steps, t.ToImage(mean=list(mean), std=list(std))), 2 if recipe == "simclr" else 1))


class Views:
    """`count` times the same transform."""

    def __init__(self, transform: Any, count: int):
        self.transform, self.count = transform, count

    def __call__(self, picture: Any) -> list[Any]:
        return [self.transform(picture) for _ in range(self.count)]


class FromArray:
    """For transforms that take {"image": array} and give such a dictionary for each view."""

    def __init__(self, transform: Any):
        self.transform = transform

    def __call__(self, picture: Any) -> list[Tensor]:
        import numpy as np

        return [view["image"] for view in self.transform({"image": np.asarray(picture)})]


class FromDict:
    """For transforms of {"image": picture}, which change the dictionary they are given."""

    def __init__(self, views: Views):
        self.views = views

    def __call__(self, picture: Any) -> list[Tensor]:
        return [self.views.transform({"image": picture})["image"] for _ in range(self.views.count)]


PEERS: dict[str, Callable[[str, int, Any, Any], Transform]] = {
    "tutorial": tutorial,
    "lightly": lightly,
    "solo-learn": solo_learn,
    "lightly-train": lightly_train,
    "stable-pretraining": stable_pretraining,
}
