"""The map of test samples in feature space: positions, classes, nearest neighbors, predictions, thumbnails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.errors import DataError
from sslcli.evals.base.features import EvalData, Split
from sslcli.evals.base.info import evaluator_info
from sslcli.evals.fit.neighbors import nearest_neighbors
from sslcli.report.feature_map import thumbnails
from sslcli.report.feature_map.projection import label_positions, project
from sslcli.report.run_contents import RunContents
from sslcli.rng import derive, order
from sslcli.runs import Record, results
from sslcli.runs.files import size_of

if TYPE_CHECKING:
    from torch import nn

MOST = 2_000  # samples on the map
FEWEST = 8
NEAREST = 5


@dataclass
class FeatureMap:
    """`points`: plain JSON for the page and its script. The samples: `sprite`, all thumbnails as one image, or `markup`, HTML of
    each, where a small image could not be recognized."""

    points: Record
    sprite: bytes | None = None
    markup: list[str] = field(default_factory=list)


def feature_map(run: RunContents, data: EvalData, backbone: nn.Module) -> FeatureMap | None:
    """At most `MOST` test samples (of a set without a test split: training samples) in two dimensions; None for fewer than
    `FEWEST`."""
    split: Split = "test" if data.dataset.test is not None else "train"
    x, y = data.features(backbone, split)
    ids = data.ids(split)
    chosen = order(derive(data.seed, "map"), 0, len(x))[:MOST].sort().values
    ids, small = thumbnails.read_thumbnails(data, split, ids[chosen])
    is_readable = torch.isin(data.ids(split)[chosen], ids)
    chosen = chosen[is_readable]
    if len(chosen) < FEWEST:
        return None
    unit = F.normalize(x[chosen].float(), dim=1)
    _, near = nearest_neighbors(unit, unit, min(NEAREST + 1, len(unit)))
    labels = y[chosen]
    classes = names(data.dataset.classes, labels)
    source = data.source(split)
    images = [x for x in small if not isinstance(x, str)]
    sprite, layout = thumbnails.sprite(images) if images else (None, None)
    projections = project(unit.numpy(), derive(data.seed, "map") % 2**31)
    predicted, by = predictions(run, ids) if split == "test" else (None, "")
    points = {
        "split": split,
        "of": len(x),
        "ids": ids.tolist(),
        "names": [short(source.names[int(i)]) for i in ids] if source.names is not None else None,
        "classes": classes,
        "labels": labels.tolist(),
        "predicted": predicted,
        "predicted_by": by,
        "near": [[j for j in row if j != i][:NEAREST] for i, row in enumerate(near.tolist())],
        "projections": [p | {"centres": label_positions(p["points"], labels, classes)} for p in projections],
        "sprite": layout,
    }
    return FeatureMap(points, sprite, [x for x in small if isinstance(x, str)])


def names(classes: Any, labels: Tensor) -> list[str]:
    """The names of the classes; [] without labels."""
    count = max(len(classes), int(labels.max()) + 1) if bool((labels >= 0).any()) else 0
    return [short(str(classes[i])) if i < len(classes) else str(i) for i in range(count)]


def short(name: str, most: int = 60) -> str:
    """The end of a long name: the part of a path that distinguishes files."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def predictions(run: RunContents, ids: Tensor) -> tuple[list[int] | None, str]:
    """The classes that the first evaluator with saved predictions assigned to these samples, in its first draw of labels, and
    its title; -1 for samples without a prediction."""
    from sslcli.evals.artefacts.predictions import FILE, read

    usable = [  # of this test split; of one evaluator all labels come before few
        result
        for result in results.saved_results(run.path).values()
        if evaluator_info(result.evaluator).ranks_runs
        and not result.dataset
        and not result.outdated
        and not result.labels.lower().endswith(".csv")
    ]
    for result in sorted(usable, key=lambda result: evaluator_info(result.evaluator).order):
        if size_of(run.path, result.artefact_path(FILE)) is None:
            continue
        try:
            class_predictions = read(run.path, result.artefact_path(FILE))
        except DataError as e:
            run.notes.append(e.message)
            continue
        known = dict(zip(class_predictions.ids.tolist(), class_predictions.predicted[0].tolist(), strict=True))
        return [known.get(i, -1) for i in ids.tolist()], evaluator_info(result.evaluator).title
    return None, ""
