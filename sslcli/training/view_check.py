"""A check of the views of a method before training: whether they differ at all."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from sslcli import console
from sslcli.data.dataset import Source
from sslcli.errors import BadSample, listing
from sslcli.rng import Draw
from sslcli.views import Views

IN_MEMORY, READ = 256, 4  # samples whose views are compared where no operation declares random numbers


def are_identical(views: Views, source: Source) -> bool:
    """Whether all views of a sample are the same, because nothing about them is random. False for a single view."""
    if len(views) < 2 or views.random or len(set(views.shapes)) > 1:
        return False
    made = _first_views(views, source)  # an operation may also draw its numbers while it is applied
    return bool(made) and all(torch.equal(made[0].nan_to_num(), view.nan_to_num()) for view in made[1:])


def _first_views(views: Views, source: Source) -> list[Tensor]:
    """The views of the first samples that can be read."""
    count = READ if source.resident is None else IN_MEMORY
    ids = list(islice((i for i in range(len(source)) if i not in source.bad), count))
    if source.resident is not None:
        rows = torch.tensor(ids, dtype=torch.int64)
        return views(source.resident.batch(rows, torch.device("cpu")), Draw(0, 0, rows))
    samples: dict[int, Any] = {}
    for i in ids:
        try:
            samples[i] = source.read(i)
        except BadSample:
            continue
    draw = Draw(0, 0, torch.tensor(list(samples), dtype=torch.int64))
    return views.finish(views.frames(list(samples.values()), draw), draw) if samples else []


def warn_of_identical_views(views: Views, recipes: Mapping[str, Any], source: Source) -> None:
    """Warns where the views that a method compares are identical, and names the operations that null leaves out."""
    if not are_identical(views, source):
        return
    kinds = sorted(set(views.kinds))
    left_out = [
        f"augmentation.{kind}.{name}"
        for kind in kinds
        if isinstance(recipe := recipes.get(kind), Mapping)
        for name, given in recipe.items()
        if given is None or given is False
    ]
    hint = "sslcli list augmentations prints recipes with random operations"
    if left_out:
        hint = f"null leaves an operation out, {{}} gives it its defaults: '{left_out[0]}={{}}'"
    console.warn(
        f"the {len(views)} views of each sample are identical: {listing(f'augmentation.{kind}' for kind in kinds)} has no random "
        "operation, and the method compares the views",
        hint,
    )
