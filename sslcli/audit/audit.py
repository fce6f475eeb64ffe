"""All checks of an audit, in order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslcli.audit.copies import exact_copies, near_copies
from sslcli.audit.findings import CHECK, EXCLUDE, Finding, in_order
from sslcli.audit.labels import wrong_labels
from sslcli.audit.outliers import outliers
from sslcli.audit.pool import Pool, pool_of
from sslcli.audit.samples import Measured, clean_views, measure
from sslcli.console import escape
from sslcli.evals.base.features import EvalData
from sslcli.views.modality import modality

WORTHLESS = (
    "empty",
    "missing",
    "one_color",
    "constant",
)  # defects of samples without any content: the others are to be looked at


@dataclass(frozen=True)
class Audit:
    """findings: in the order of audit.csv. absent: name -> reason of files that hold no sample, such as empty ones. notes: how the
    findings were made, and what could not be judged."""

    pool: Pool
    data: EvalData
    findings: list[Finding]
    absent: dict[str, str]
    notes: list[str]

    def counts(self) -> dict[str, int]:
        """The number of findings of each issue that was found, in their order."""
        return dict(Counter([*(["unreadable"] * len(self.absent)), *(f.issue for f in self.findings)]))

    def rows(self) -> list[tuple[object, ...]]:
        """The rows of audit.csv, see HEADER."""
        names = self.pool.names
        absent = [
            (name, "unreadable", 1.0, "", f"{EXCLUDE}; {escape(why)}") for name, why in sorted(self.absent.items())
        ]
        return absent + [
            (names[f.sample], f.issue, round(f.score, 4), "" if f.partner is None else names[f.partner], f.suggestion)
            for f in self.findings
        ]


def audit(data: EvalData, backbone: nn.Module | None, seed: int) -> Audit:
    """Audits all splits of a data set. `backbone`: whose features are compared for outliers and labels; None for raw features.

    Raises DataError where no sample can be read."""
    pool = pool_of(data.dataset)
    kind = modality(data.dataset.modality)
    rule = kind.near_copies(data.dataset, data.raw_features)
    measured = measure(pool, data, backbone, rule)
    exact = exact_copies(pool, measured.ids, kind.doubts_copies(data.dataset))
    copied = torch.tensor(sorted({f.sample for f in exact}), dtype=torch.int64)
    alone = torch.nonzero(~torch.isin(measured.ids, copied)).flatten()  # one of each group of exact copies
    near = [] if rule is None else near_copies(pool, rule, *measured.rows(alone), lambda ids: _views(pool, data, ids))
    found = [*_unreadable(measured), *exact, *near, *_defects(measured)]
    bad = torch.tensor(sorted({f.sample for f in found}), dtype=torch.int64)
    rest = torch.nonzero(~torch.isin(measured.ids, bad)).flatten()
    ids, features = measured.ids[rest], measured.features[rest]
    wrong, notes = wrong_labels(pool, ids, features, seed)
    what = "raw features" if backbone is None else "features of the backbone"
    copies = "were not looked for: the samples have too little detail" if rule is None else f"are {rule.note}"
    about = [f"outliers and labels are judged by {what}", f"near copies {copies}"]
    known = set(pool.names)
    absent = {name: why for name, why in data.dataset.details.get("bad", {}).items() if name not in known}
    return Audit(pool, data, in_order([*found, *wrong, *outliers(ids, features)]), absent, [*about, *notes])


def _views(pool: Pool, data: EvalData, ids: Tensor) -> Tensor:
    return torch.cat([x for _, x in clean_views(pool, data, ids)])


def _unreadable(measured: Measured) -> list[Finding]:
    return [
        Finding(sample, "unreadable", 1.0, f"{EXCLUDE}; {escape(reason)}")
        for sample, reason in measured.unreadable.items()
    ]


def _defects(measured: Measured) -> list[Finding]:
    return [
        Finding(int(measured.ids[row]), name, float(scores[row]), EXCLUDE if name in WORTHLESS else CHECK)
        for name, scores in measured.defects.items()
        for row in torch.nonzero(~scores.isnan()).flatten().tolist()
    ]
