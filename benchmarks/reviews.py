"""Self-supervised methods on film reviews (IMDB): accuracy by the number of labels, beside training from scratch, random weights, a
bag of words and TF-IDF with logistic regression.

    python benchmarks/reviews.py DATA RUNS [--seeds 5] [--backbones bert_tiny] [--methods mlm] [--labels 100]
    [--kinds probe] [--validation]

DATA is a folder with imdb.jsonl, of objects with the keys `split` (train, test), `label` and `text`, and imdb_unlabelled.txt, a
review on each line. RUNS is a folder for runs. Writes docs/results/reviews.json after each measurement, and reviews.md. A method is
pretrained once, on the training and the unlabeled reviews; a seed is a draw of labels and an order of fine-tuning. With
`--validation`, on a fifth of the training reviews instead of the test reviews, into another file: recipes were chosen so.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.few_labels import Study, run  # noqa: E402

BACKBONES = {
    "bert_tiny": ["backbone=bert_tiny", "backbone.dropout=0"],
    "bag": ["backbone=bag"],
}
SMALL = ["train.batch_size=16", "optimizer.lr_batch=16", "optimizer.lr=2e-3"]
METHODS: dict[str, list[str]] = {
    "mlm": [*SMALL, "train.epochs=8"],
    "bert": [*SMALL, "train.epochs=8"],
    "electra": [*SMALL, "train.epochs=6"],
    "simcse": ["backbone.dropout=0.1", "train.epochs=1"],
    "simclr": [
        "method.norm=false",
        "train.batch_size=128",
        "optimizer=adamw",
        "optimizer.lr=2e-3",
        "optimizer.lr_batch=128",
        "train.epochs=2",
    ],
    "tsdae": [*SMALL, "train.epochs=1"],
    "autoregressive": [*SMALL, "train.epochs=1"],
}
EPOCHS = {"100": 30, "1000": 20, "all": 5}


def prepare(data: Path, folder: Path, validation: bool) -> None:
    """Write reviews.jsonl and unlabelled.txt; with `validation`, every fifth training review is in the test split."""
    train = 0
    with open(data / "imdb.jsonl", encoding="utf-8") as file, open(folder / "reviews.jsonl", "w") as out:
        for line in file:
            row = json.loads(line)
            if validation and row["split"] == "test":
                continue
            if validation:
                row["split"], train = "test" if train % 5 == 0 else "train", train + 1
            out.write(json.dumps({k: row[k] for k in ("split", "label", "text")}) + "\n")
    shutil.copy(data / "imdb_unlabelled.txt", folder / "unlabelled.txt")


def dataset(folder: Path) -> list[str]:
    folder = folder.resolve()
    return [
        "dataset=text_table",
        f"dataset.path={folder / 'reviews.jsonl'}",
        f"dataset.unlabelled={folder / 'unlabelled.txt'}",
        "dataset.max_length=256",
        "dataset.tokenizer=words",
        "dataset.windows=1",
    ]


def finetune(labels: str, start: str, backbone: str) -> dict[str, Any]:
    """The recipe of fine-tuning, the same for both starts."""
    return {
        "epochs": EPOCHS[labels],
        "min_steps": 300,
        "lr": 1e-3,
        "batch_size": 32,
        "weight_decay": 0.01,
        "augment": "weak",
    }


STUDY = Study(
    out=ROOT / "docs" / "results" / "reviews.json",
    script="reviews.py",
    title="Reviews",
    facts="A part of IMDB (Maas et al., 2011): 8,000 training reviews, half of each class, 2,000 test reviews and 9,000 reviews "
    "without a label.",
    notes=[
        "Each method is pretrained once, for 7 to 37 minutes of one core; seeds are draws of labels. Models read the first",
        "256 tokens of a review; with `8 windows` (`dataset.windows=8`, the default of text) the features are means over",
        "windows of 256 tokens of the whole review, which TF-IDF reads too. The probes of `simclr` and `tsdae`, the rows of",
        "`8 windows` and the fine-tuning of `simclr` were measured in bf16 on an Intel Xeon with AMX; fine-tuning of `bert`",
        "with 1,000 and all labels and of `tsdae` in fp32 on an AMD EPYC with AVX2 alone, from pretrainings of their own;",
        "the others in bf16 on an AMD EPYC. The pretraining counts, too: an earlier one of `mlm`, with the same settings,",
        "had 0.616 and 0.691 (probe, 100 and 1,000 labels).",
    ],
    dataset=dataset,
    backbones=BACKBONES,
    methods=METHODS,
    finetune=finetune,
    baselines={"tfidf": "TF-IDF, logistic regression"},
    metric="accuracy",
    skip=frozenset(("bag", method) for method in METHODS),
    pretraining_seed=0,
    windows=8,
)

if __name__ == "__main__":
    run(STUDY, prepare, __doc__)
