"""What an audit finds: one finding is one row of audit.csv."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

HEADER = ("path", "issue", "score", "partner", "suggestion")
EXCLUDE, CHECK = "exclude", "check"  # suggestions; `dataset.exclude` follows the first
ISSUES = {  # in the order of audit.csv; a defect of a modality has its own name
    "unreadable": "cannot be read",
    "exact_copy_across_splits": "a training sample with the same content as a test sample; score 1",
    "near_copy_across_splits": "a training sample that is a near copy of a test sample; score: their similarity",
    "exact_copy": "the same content as an earlier sample of its split; score 1",
    "near_copy": "a near copy of an earlier sample of its split; score: their similarity",
    "wrong_label": "a classifier that has not seen the sample predicts another class; score: its probability",
    "outlier": "far from its nearest neighbors; score: robust standard deviations above the median distance",
}


@dataclass(frozen=True)
class Finding:
    """sample, partner: indices into the pool. suggestion: `exclude`, `relabel: CLASS` or `check`, with a reason after a `;`."""

    sample: int
    issue: str
    score: float
    suggestion: str
    partner: int | None = None


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By issue, then the most suspicious first: the lowest scores of defects, the highest of all others, and the first samples."""
    known = list(ISSUES)

    def key(f: Finding) -> tuple[Any, ...]:
        listed = f.issue in ISSUES
        return (known.index(f.issue) if listed else len(known), f.issue, -f.score if listed else f.score, f.sample)

    return sorted(findings, key=key)
