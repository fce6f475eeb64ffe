"""Every evaluator on runs over three data sets, and the label curves: makes docs/results/evaluations/.

    python scripts/evaluations.py [digits fashion_mnist cifar10] [NAME=RUN ...] [stages=probe,knn,...] [--keep]

`SSLCLI_DATA` holds CIFAR-10 and Fashion-MNIST (Debian's package dataset-fashion-mnist puts it below /usr/share/datasets). With
NAME=RUN a run that is there is measured instead of training one; with --keep what was measured of it is not measured again.
About an hour and a half on 2 cores.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from results import OUT, machine, markdown, pretrain, sslcli

from sslcli.runs.results import result_name

FOLDER = OUT / "evaluations"
RECIPES = {
    "digits": ["method=simsiam"],
    "fashion_mnist": [
        "method=simclr",
        "method.norm=false",
        "dataset=fashion_mnist",
        "backbone.blocks=1",
        "train.epochs=4",
    ],
    "cifar10": [
        "experiment=cifar10_cpu",
        "train.budget=null",
        "train.epochs=8",
        "train.batch_size=128",
        "method.norm=false",
        "augmentation.global.random_resized_crop.size=1.0",
    ],
}
TRAININGS = {  # of the label curve's supervised baseline: of a large set, five epochs or what five epochs of all of it are
    "digits": ["evaluator.supervised_seeds=5", "evaluator.budget=null"],
    "fashion_mnist": [
        "evaluator.supervised_seeds=3",
        "evaluator.budget=null",
        "evaluator.epochs=5",
        "evaluator.min_steps=300",
    ],
    "cifar10": ["evaluator.supervised_seeds=3", "evaluator.budget=null", "evaluator.max_steps=3900"],
}
TITLES = {"digits": "digits", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
NOTES = {
    "fashion_mnist": "The supervised baseline of the curve is trained for 5 epochs, 300 steps at least. With 50 epochs it has "
    ".810 at 100 labels a class (three draws): the factor 2.89 there is the short training's.",
}
STAGES: dict[str, list[str]] = {  # evaluator -> words; the same for each data set
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
BASELINES = ("untrained", "raw", "scratch", "random")


def kept(run: str, evaluator: str, words: list[str]) -> Path:
    labels = next((word.removeprefix("labels=") for word in words if word.startswith("labels=")), "all")
    return Path(run) / "eval" / f"{result_name(evaluator, labels)}.json"


def record(run: str, evaluator: str, words: list[str]) -> dict[str, Any]:
    return dict(json.loads(kept(run, evaluator, words).read_text()))


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


def curve(run: str) -> list[str]:
    """The label curve as a picture and two tables."""
    found = record(run, "labels", [])
    numbers, table = found["numbers"], found["details"]["labels_saved"]
    lines = ["", *(k for k in ("supervised", "untrained", "raw") if f"{k}.top1@{table[0]['amount']}" in numbers)]
    picture = next(f for f in found["artefacts"] if f.endswith(".png"))
    body, saved = [], []
    for row in table:
        key = f"top1@{row['amount']}"
        body.append(
            [f"{row['amount']} ({row['labels']:,})", *(cell(numbers, f"{k}.{key}" if k else key) for k in lines)]
        )
        needs = (row["needs"][k] for k in lines if k)
        saved.append([row["amount"], *(f"{'' if n['relation'] == '=' else '> '}{n['factor']:.2f}" for n in needs)])
    return [
        f"![{found['artefacts'][picture]}](NAME_labels.png)",
        markdown(["labels a class (in all)", "self-supervised, frozen", *lines[1:]], body),
        "Labels that a baseline needs to be as good, as a multiple (below 1: fewer; >: not reached with all there are):",
        markdown(["labels a class", *lines[1:]], saved),
    ]


def measure(name: str, run: str, stages: dict[str, list[str]], keep: bool) -> str:
    """The page of one data set."""
    status = json.loads((Path(run) / "status.json").read_text())
    body, times = [], []
    for stage, words in ({"labels": TRAININGS[name]} | stages).items():
        if not (keep and kept(run, stage, words).exists()):
            sslcli("eval", stage, f"run={run}", "-q", *words)
        found = record(run, stage, words)
        times.append([" ".join([stage, *words]), f"{found['seconds']:.1f}"])
        if stage != "labels":
            body += rows(" ".join([stage, *words]), found["numbers"])
    picture = next(f for f in record(run, "labels", [])["artefacts"] if f.endswith(".png"))
    shutil.copy(Path(run) / "eval" / f"labels_{picture}", FOLDER / f"{name}_labels.png")
    length = f"{status['step']:,} steps in {status['seconds']:.0f} s"
    return "\n\n".join(
        [
            f"# Evaluators on {TITLES[name]}",
            f"Made by `python scripts/evaluations.py {name}` on {machine()}.",
            f"`sslcli pretrain {' '.join(RECIPES[name])}`, {length}, seed 0, last epoch. Mean ± standard deviation over draws of "
            "labels (or over seeds, for what has no labels); five draws for the curve's probes.",
            "## Label efficiency",
            *[part.replace("NAME", name) for part in curve(run)],
            *([NOTES[name]] if name in NOTES else []),
            "## Metrics and baselines",
            markdown(["evaluator", "metric", "run", *BASELINES], body),
            "## Seconds",
            "Of each evaluation with its baselines; the first that needs features computes them, later ones use the cache.",
            markdown(["evaluator", "s"], times),
        ]
    )


def main(argv: list[str]) -> None:
    given = dict(word.split("=", 1) for word in argv if "=" in word)
    wanted = given.pop("stages", ",".join(STAGES)).split(",")
    stages = {name: words for name, words in STAGES.items() if name in wanted}
    names = [word for word in argv if word in RECIPES] or list(given) or list(RECIPES)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names:
        run = given.get(name) or pretrain(*RECIPES[name])[0]
        path = FOLDER / f"{name}.md"
        path.write_text(measure(name, run, stages, "--keep" in argv) + "\n")
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
