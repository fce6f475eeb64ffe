"""One pass over all samples: what the checks compare, and which samples cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslcli.audit.pool import Pool
from sslcli.data.loading.evaluation import iterate_batches
from sslcli.errors import DataError
from sslcli.evals.base.embedding import evaluating
from sslcli.evals.base.features import EvalData
from sslcli.nn.windows import mean_over_windows
from sslcli.runtime.progress import track
from sslcli.views import clean, whole
from sslcli.views.copies import NearCopies
from sslcli.views.modality import modality


@dataclass(frozen=True)
class Measured:
    """Of the n samples that can be read: ids (n,), features (n, d), descriptors (n, p) of near copies (p is 0 without a rule), and
    by name the scores (n,) of defects, NaN without. unreadable: sample -> reason."""

    ids: Tensor
    features: Tensor
    descriptors: Tensor
    defects: dict[str, Tensor]
    unreadable: dict[int, str]

    def rows(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """The ids (m,) and descriptors (m, p) of the rows `at` (m,)."""
        return self.ids[at], self.descriptors[at]


def measure(pool: Pool, data: EvalData, backbone: nn.Module | None, rule: NearCopies | None) -> Measured:
    """Reads each sample once. `backbone`: whose features are compared; None for the raw features of the modality.

    DataError where no sample can be read."""
    kind = modality(pool.dataset.modality)
    reasons: list[tuple[str, str]] = []
    rows: list[tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]] = []
    windows = backbone is not None and data.windowed
    batches = clean_views(pool, data, None, reasons, windows)
    for ids, inputs in track(batches, "samples", len(pool), size=lambda batch: len(batch[0])):
        x = inputs[:, 0] if windows else inputs
        defects = {name: scores.float().cpu() for name, scores in kind.defects(x, pool.dataset).items()}
        descriptors = torch.empty(len(x), 0) if rule is None else rule.describe(x).float().cpu()
        rows.append((ids, features_of(inputs, data, backbone), descriptors, defects))
    if not rows:
        raise DataError(f"no sample of {pool.dataset.name} can be read", "sslcli data inspect")
    ids = torch.cat([row[0] for row in rows])
    missing = sorted(set(range(len(pool))) - set(ids.tolist()))
    names = rows[0][3]
    return Measured(
        ids,
        torch.cat([row[1] for row in rows]),
        torch.cat([row[2] for row in rows]),
        {name: torch.cat([row[3][name] for row in rows]) for name in names},
        {sample: reason for sample, (_, reason) in zip(missing, reasons, strict=True)},
    )


def clean_views(
    pool: Pool,
    data: EvalData,
    ids: Tensor | None,
    reasons: list[tuple[str, str]] | None = None,
    windows: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids (B,) and clean views (B, *shape) of all samples, or of `ids`; unreadable ones are left out and listed in `reasons`. With
    `windows`, those of whole samples (B, W, *shape), of which the first is the clean view."""
    return iterate_batches(
        pool.source,
        whole(pool.dataset) if windows else clean(pool.dataset),
        batch_size=data.batch_size,
        device=data.device,
        workers=data.workers,
        ids=ids,
        bad=reasons,
    )


@torch.no_grad()
def features_of(x: Tensor, data: EvalData, backbone: nn.Module | None) -> Tensor:
    """Features (B, d) float32 on the CPU of clean views (B, *shape), or of windows (B, W, *shape)."""
    if backbone is None:
        return data.raw_features.transform(x).float().cpu()
    if data.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    with evaluating(backbone), data.autocast():
        return mean_over_windows(backbone, x, data.dataset.values).float().cpu()
