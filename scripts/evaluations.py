"""Every evaluator on runs over three data sets, and the label curves: makes docs/results/evaluations.md and its pictures.

    python scripts/evaluations.py [digits fashion_mnist cifar10] [NAME=RUN ...]

`SSLCLI_DATA` holds CIFAR-10 and Fashion-MNIST (Debian's package dataset-fashion-mnist puts it below /usr/share/datasets). With
NAME=RUN a run that is there is measured instead of training one. About an hour on 2 cores.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from results import OUT, machine, markdown, pretrain, sslcli

RECIPES = {
    "digits": ["method=simsiam"],
    "fashion_mnist": ["method=simclr", "dataset=fashion_mnist", "backbone.blocks=1", "train.epochs=4"],
    "cifar10": ["experiment=cifar10_cpu", "train.budget=null", "train.epochs=8"],
}
STAGES: dict[str, list[str]] = {  # evaluator -> words; the same for each data set
    "labels": [],
    "probe": [],
    "knn": [],
    "finetune": ["labels=10/class", "seeds=3"],
    "cluster": ["seeds=3"],
    "anomaly": [],
    "retrieval": [],
    "robustness": [],
    "quality": [],
    "explain": [],
}
MASKED = ["method=mae", "backbone=vit_micro", "backbone.patch=2"]  # for what only a method that reconstructs can show
BASELINES = ("untrained", "raw", "scratch", "linear")


def record(run: str, name: str) -> dict[str, Any]:
    return dict(json.loads((Path(run) / "eval" / f"{name}.json").read_text()))


def cell(numbers: dict[str, float], key: str) -> str:
    if key not in numbers:
        return ""
    value, std = numbers[key], numbers.get(f"{key}_std")
    text = f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return text + (f" ± {std:.3f}" if std is not None else "")


def rows(name: str, numbers: dict[str, float]) -> list[list[str]]:
    """One a number: the run's, and the baselines beside it."""
    own = [k for k in numbers if k.split(".")[0] not in BASELINES and not k.endswith("_std")]
    return [[name, key, *(cell(numbers, k) for k in (key, *(f"{b}.{key}" for b in BASELINES)))] for key in own]


def measure(name: str, run: str) -> str:
    """The section of one data set."""
    status = json.loads((Path(run) / "status.json").read_text())
    body, times = [], []
    for stage, words in STAGES.items():
        _, seconds = sslcli("eval", stage, f"run={run}", "-q", *words)
        found = record(run, stage)
        times.append([stage, f"{found['seconds']:.1f}", f"{seconds:.1f}"])
        if stage != "labels":
            body += rows(" ".join([stage, *words]), found["numbers"])
    curve = record(run, "labels")
    picture = next(f for f in curve["artefacts"] if f.endswith(".png"))
    shutil.copy(Path(run) / "eval" / f"labels_{picture}", OUT / f"labels_{name}.png")
    length = f"{status['step']:,} steps in {status['seconds']:.0f} s"
    about = f"`sslcli pretrain {' '.join(RECIPES[name])}`, {length}, seed 0, last epoch."
    return "\n\n".join(
        [
            f"## {name}",
            about,
            f"![{curve['artefacts'][picture]}](labels_{name}.png)",
            markdown(["label curve", "", "run", *BASELINES], rows("labels", curve["numbers"])),
            markdown(["evaluator", "number", "run", *BASELINES], body),
            markdown(["evaluator", "its own seconds", "with start and features"], times),
        ]
    )


def main(argv: list[str]) -> None:
    given = dict(word.split("=", 1) for word in argv if "=" in word)
    names = [word for word in argv if "=" not in word] or list(given) or list(RECIPES)
    parts = []
    for name in names:
        run = given.get(name) or pretrain(*RECIPES[name])[0]
        path = OUT / "evaluations" / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"Made by `python scripts/evaluations.py {name}` on {machine()}.\n\n{measure(name, run)}\n")
        parts.append(path)
    print(*parts, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
