"""Views: what a method sees of a sample. Batched, on the device, from uint8 images or float series.

A recipe (configs/augmentation/NAME.yaml) says for each kind of view (`global`, `local`, `weak`) which ops make it, in
order; a method's plan says how many views of which kind it wants. `clean` is the view that evaluation uses; it needs
no recipe. Every random number comes from a `Draw`, so the views of a sample depend on nothing but (seed, epoch,
sample id, number of the view).

A modality is one module with ops and a pipeline, and one line in `_MODALITIES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslcli.data.dataset import Dataset
from sslcli.data.images.crop import to_array
from sslcli.errors import RequestError, listing, nearest
from sslcli.rng import Draw
from sslcli.views import image, native, series
from sslcli.views.contact_sheet import sheet
from sslcli.views.native_check import matches_tensor_code
from sslcli.views.op import Op, make_ops
from sslcli.views.resample import exact_products

__all__ = ["Views", "clean", "sheet"]

_MODALITIES: dict[str, tuple[dict[str, type[Op]], Any]] = {
    "image": (image.OPS, image.ImageView),
    "series": (series.OPS, series.SeriesView),
}

native.use_check(matches_tensor_code)

MOST_VIEWS = 1_000  # of a kind


class Views:
    """The views of a plan, such as `{"global": 2, "local": 6}`.

    `recipes`: kind -> op name -> parameters. RequestError for a kind without a recipe, an unknown op or parameter, a
    value that cannot be, or an op of another modality.

    kinds: the kind of each view, in the plan's order. shapes: of one sample of each view. notes: what the recipe asks
    for and these data cannot have.
    """

    def __init__(self, plan: Mapping[str, int], recipes: Mapping[str, Any], dataset: Dataset):
        assert dataset.modality in _MODALITIES, dataset.modality
        table, pipeline = _MODALITIES[dataset.modality]
        others = {op: name for name, (ops, _) in _MODALITIES.items() for op in ops if op not in table}
        offered = {kind: recipe for kind, recipe in recipes.items() if kind != "summary"}
        offered.setdefault("clean", {})
        self.kinds: list[str] = []
        self.notes: list[str] = []
        self._views: list[Any] = []
        for kind, count in plan.items():
            if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_VIEWS:
                raise RequestError(f"plan.{kind} must be a number of views up to {MOST_VIEWS:,}, it is {count!r}")
            if kind not in offered:
                near = nearest(kind, offered)
                raise RequestError(
                    f"the method asks for views of kind {kind}, which the augmentation does not have",
                    (f"did you mean {near}? " if near else "") + f"the augmentation has {listing(sorted(offered))}",
                )
            for place in range(count):
                ops, notes = make_ops(offered[kind], kind, place, dataset.shape, table, others)
                self._views.append(pipeline(ops, dataset.shape, dataset.mean, dataset.std))
                self.kinds.append(kind)
                self.notes.extend(note for note in notes if note not in self.notes)
        if not self._views:
            raise RequestError("the plan has no views", "ask for one, such as plan: {global: 1}")
        self.shapes: list[tuple[int, ...]] = [tuple(view.shape) for view in self._views]

    def __len__(self) -> int:
        return len(self._views)

    @torch.no_grad()
    def __call__(self, raw: Tensor, draw: Draw) -> list[Tensor]:
        """Raw samples (B, C, H, W) uint8 or (B, C, T) float32, on any device -> one (B, *shape) float32 a view,
        there."""
        draw = _for_device(draw, raw)
        with exact_products(raw.device):
            return [view.resident(raw, draw.of_view(i)) for i, view in enumerate(self._views)]

    @torch.no_grad()
    def frames(self, images: Sequence[Any], draw: Draw) -> list[Tensor]:
        """Decoded pictures (PIL or (H, W, C) uint8 arrays, of the data set's channels, of any sizes) -> for each view the
        part it needs, at its size: (B, C, s, s) uint8. For worker processes: little work, few bytes; `finish` does the
        rest."""
        assert len(images) == len(draw.ids), (len(images), len(draw.ids))
        arrays = [to_array(image) for image in images]  # once for all views
        return [view.frame(arrays, draw.of_view(i)) for i, view in enumerate(self._views)]

    @torch.no_grad()
    def finish(self, frames: Sequence[Tensor], draw: Draw) -> list[Tensor]:
        """What `frames` gave, on the device, with the same draw -> as `__call__`."""
        draw = _for_device(draw, frames[0])
        with exact_products(frames[0].device):
            return [
                view.finish(frame, draw.of_view(i))
                for i, (view, frame) in enumerate(zip(self._views, frames, strict=True))
            ]

    def restore(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The views without the normalisation, for pictures: images in about 0..1, series in their own units."""
        return [view.restore(x) for view, x in zip(self._views, views, strict=True)]


def clean(dataset: Dataset) -> Views:
    """The one deterministic view of evaluation: the largest centred part of an image at the data set's size; a series
    as it is. Normalised."""
    return Views({"clean": 1}, {}, dataset)


def _for_device(draw: Draw, x: Tensor) -> Draw:
    """Float64 and 64-bit arithmetic where the device has both, else (Apple's) on the processor."""
    return draw.to(x.device if x.device.type in ("cpu", "cuda") else "cpu")
