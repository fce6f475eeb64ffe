"""Self-supervised methods on a table (Adult, UCI): accuracy and AUROC by the number of labels, beside training from scratch,
random weights, logistic regression and gradient boosting.

    python benchmarks/tables.py DATA RUNS [--seeds 5] [--backbones mlp] [--methods scarf] [--labels 100] [--validation]

DATA is a folder with the files adult.data and adult.test of https://archive.ics.uci.edu/dataset/2/adult, RUNS one for runs. Writes
docs/results/tables.json after each measurement, and tables.md; what is there is not measured again. A seed is one pretraining, one
draw of labels and one order of fine-tuning; all models of a seed have the same labeled rows. With `--validation`, on a fifth of the
training rows instead of the test rows, into another file: learning rates, lengths and views were chosen so.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.few_labels import Study, run  # noqa: E402

NAMES = [
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship", "race", "sex",
    "capital_gain", "capital_loss", "hours_per_week", "native_country", "income",
]  # fmt: skip
WORDS = {  # of a pretraining: chosen on validation rows
    "mlp": ["backbone=mlp", "train.epochs=10", "train.batch_size=256"],
    "ft_transformer": [
        "backbone=ft_transformer",
        "backbone.width=64",
        "backbone.pool=mean",
        "train.epochs=8",
        "train.batch_size=256",
    ],
}
METHODS: dict[str, list[str]] = {
    "scarf": [],
    "vime": [],
    "mae": ["method.mask_ratio=0.5", "optimizer.lr=0.001"],
    "denoising_autoencoder": [],
}
ALL_EPOCHS = {"mlp": 10, "ft_transformer": 6}  # of fine-tuning with all labels
FINETUNE: dict[str, dict[str, Any]] = {  # by number of labels; otherwise the same for both starts
    "100": {"lr": {"scratch": 3e-4, "run": 1e-4}, "epochs": 50, "min_steps": 300, "augment": "weak+global"},
    "1000": {"lr": {"scratch": 3e-4, "run": 1e-4}, "epochs": 30, "min_steps": 300, "augment": "weak+global"},
    "all": {
        "lr": {"scratch": 1e-3, "run": 1e-3},
        "batch_size": 256,
        "weight_decay": 0.01,
        "augment": "weak",
    },
}


def prepare(data: Path, folder: Path, validation: bool) -> None:
    """Write train.csv and test.csv; with `validation`, every fifth training row is the test split."""

    def rows(name: str) -> list[list[str]]:
        with open(data / name, newline="") as file:
            read = [[cell.strip().rstrip(".") for cell in row] for row in csv.reader(file)]
        return [row for row in read if len(row) == len(NAMES)]

    train, test = rows("adult.data"), rows("adult.test")
    if validation:
        train, test = [r for i, r in enumerate(train) if i % 5], train[::5]
    for name, part in (("train.csv", train), ("test.csv", test)):
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows([NAMES, *part])


def finetune(labels: str, start: str, backbone: str) -> dict[str, Any]:
    """The recipe of fine-tuning."""
    epochs = {"epochs": ALL_EPOCHS[backbone]} if labels == "all" else {}
    return {**FINETUNE[labels], **epochs, "lr": FINETUNE[labels]["lr"][start]}


STUDY = Study(
    out=ROOT / "docs" / "results" / "tables.json",
    script="tables.py",
    title="Tables",
    facts="Adult (UCI): 32,561 training rows, 16,281 test rows, 14 columns; the majority class is .764 of the test rows.",
    notes=["Recipes were chosen on a fifth of the training rows. A seed is also that of the pretraining."],
    dataset=lambda folder: ["dataset=table", f"dataset.path={folder.resolve()}", "dataset.label=income"],
    backbones=WORDS,
    methods=METHODS,
    finetune=finetune,
    baselines={"linear": "logistic regression", "boosting": "gradient boosting"},
    metric="auroc",
    skip=frozenset({("mlp", "mae")}),
)

if __name__ == "__main__":
    run(STUDY, prepare, __doc__)
