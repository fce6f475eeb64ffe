"""The names of the rules, without an import of torch: for help and completion."""

from __future__ import annotations

RULE_NAMES = {
    "typical": "TypiClust, the densest sample of each cluster",
    "cover": "ProbCover, the samples whose neighborhoods cover the most others",
    "kcenter": "greedy k-center, the samples that are farthest from all others",
    "uncertain": "the smallest margin of a classifier fitted to have=",
    "random": "a random order",
}
