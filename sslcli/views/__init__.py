"""Augmented views of samples, computed in batches on the device, from uint8 images or float series.

A recipe (configs/augmentation/NAME.yaml) maps each kind of view (`global`, `local`, `weak`) to a sequence of ops; a method's plan
maps kinds to numbers of views. `clean` is the deterministic view of evaluation and needs no recipe. All random numbers come from
a `Draw`, so the views of a sample depend on (seed, epoch, sample id, view index) only.

A modality (modality.py) defines the ops and the pipeline of its views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslcli.config.modalities import modalities
from sslcli.data.dataset import Dataset, Source
from sslcli.errors import RequestError, listing, nearest
from sslcli.rng import Draw
from sslcli.views.contact_sheet import sheet
from sslcli.views.images import native, triton_views
from sslcli.views.images.native_check import kernels_match_tensor_code, matches_tensor_code
from sslcli.views.images.resample import exact_products
from sslcli.views.modality import View, modality
from sslcli.views.op import make_ops
from sslcli.views.preview.base import Preview

__all__ = ["Views", "clean", "detailed", "previews", "sheet", "whole"]

native.use_check(matches_tensor_code)
triton_views.use_check(kernels_match_tensor_code)

MAX_VIEWS = 1_000  # of one kind


class Views:
    """The views of a plan, such as `{"global": 2, "local": 6}`.

    `recipes`: kind -> op name -> parameters. RequestError for a kind without a recipe, an unknown op or parameter, an invalid
    value, or an op of another modality.

    kinds: the kind of each view, in the order of the plan. shapes: of one sample of each view. notes: ops of the recipe that do
    not apply to these data. random: whether an op of a view declares random numbers.
    """

    def __init__(self, plan: Mapping[str, int], recipes: Mapping[str, Any], dataset: Dataset):
        self._modality = modality(dataset.modality)
        table = self._modality.ops
        unknown = any(op not in table for recipe in recipes.values() if isinstance(recipe, Mapping) for op in recipe)
        others = {op: name for name in _owners() for op in modality(name).ops if op not in table} if unknown else {}
        offered = {kind: recipe for kind, recipe in recipes.items() if kind != "summary"}
        offered.setdefault("clean", {})
        self.kinds: list[str] = []
        self.notes: list[str] = []
        self.random = False
        self._views: list[View] = []
        for kind, count in plan.items():
            if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_VIEWS:
                raise RequestError(f"plan.{kind}: expected an integer from 0 to {MAX_VIEWS:,}, got {count!r}")
            if kind not in offered:
                near = nearest(kind, offered)
                raise RequestError(
                    f"the method requires views of kind {kind}, which the augmentation does not define",
                    (f"did you mean {near}? " if near else "")
                    + f"the augmentation defines {listing(sorted(offered))}; '+augmentation.{kind}={{OP: {{}}}}' adds one",
                )
            for index in range(count):
                ops, notes = make_ops(offered[kind], kind, index, dataset.shape, table, others)
                self.random |= any(op.p < 1 or bool(op.uniforms()) for op in ops)
                self._views.append(self._modality.view(ops, dataset))
                self.kinds.append(kind)
                self.notes.extend(note for note in notes if note not in self.notes)
        if not self._views:
            raise RequestError("the plan has no views", "add one, such as plan: {global: 1}")
        self.shapes: list[tuple[int, ...]] = [tuple(view.shape) for view in self._views]

    def __len__(self) -> int:
        return len(self._views)

    @torch.no_grad()
    def __call__(self, raw: Any, draw: Draw) -> list[Tensor]:
        """Raw samples on any device, as `Storage.batch` returns them, such as (B, C, H, W) uint8 or (B, C, T) float32 -> one
        (B, *shape) tensor per view, on the same device."""
        draw = _for_device(draw, raw)
        with exact_products(raw.device):
            return [view.resident(raw, draw.of_view(i)) for i, view in enumerate(self._views)]

    @torch.no_grad()
    def frames(self, samples: Sequence[Any], draw: Draw) -> list[Tensor]:
        """Samples that are read one by one, such as images (PIL, or (H, W, C) uint8 arrays with the data set's channels) of any
        sizes -> per view a compact batch, such as the cropped and resized region (B, C, s, s) uint8. For worker processes:
        little work, few bytes; `finish` applies the other ops."""
        assert len(samples) == len(draw.ids), (len(samples), len(draw.ids))
        decoded = self._modality.decoded(samples)
        return [view.frame(decoded, draw.of_view(i)) for i, view in enumerate(self._views)]

    @torch.no_grad()
    def finish(self, frames: Sequence[Tensor], draw: Draw) -> list[Tensor]:
        """Apply the remaining ops to the output of `frames`, on the device, with the same draw -> as `__call__`."""
        draw = _for_device(draw, frames[0])
        with exact_products(frames[0].device):
            return [
                view.finish(frame, draw.of_view(i))
                for i, (view, frame) in enumerate(zip(self._views, frames, strict=True))
            ]


def _owners() -> list[str]:
    """The modalities, of those that share their ops the first."""
    first = {id(modality(name).ops): name for name in reversed(modalities())}
    return [name for name in modalities() if name in first.values()]


def clean(dataset: Dataset) -> Views:
    """The deterministic, normalized view of evaluation: the largest center crop of an image, resized to the data set's size; an
    unchanged series."""
    return Views({"clean": 1}, {}, dataset)


def whole(dataset: Dataset) -> Views:
    """As `clean`; of samples that are longer, all windows, (B, W, *shape): see `nn/windows.py`."""
    views, windows = clean(dataset), modality(dataset.modality).windows(dataset)
    if windows is not None:
        views._views = [windows]
        views.shapes = [(-1, *windows.shape)]
    return views


def detailed(source: Source, dataset: Dataset) -> Views:
    """The deterministic view of samples that people look at: as `clean`, with more detail where the samples have it."""
    return Views({"clean": 1}, {"clean": modality(dataset.modality).detail(source, dataset)}, dataset)


def whole_previews(dataset: Dataset, x: Tensor, source: Source, ids: Tensor) -> list[Preview]:
    """As `previews`, for pages on which people label or search: with what views leave out, such as the sides of a wide image."""
    return modality(dataset.modality).uncrop(previews(dataset, x, source, ids), source, ids, dataset)


def previews(dataset: Dataset, x: Tensor, source: Source | None = None, ids: Tensor | None = None) -> list[Preview]:
    """How the views x (B, *shape) of a data set's samples, as `Views` makes them, are shown to people. `source`, `ids` (B,): the
    samples themselves, where these can be presented beside their views."""
    kind = modality(dataset.modality)
    shown = kind.preview(x, dataset)
    return shown if source is None or ids is None else kind.present(shown, source, ids, dataset)


def _for_device(draw: Draw, x: Any) -> Draw:
    """The draw on the device of `x` if that supports float64 and 64-bit integers, else (MPS) on the CPU."""
    return draw.to(x.device if x.device.type in ("cpu", "cuda") else "cpu")
