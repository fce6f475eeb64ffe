"""Self-supervised methods on a table (Adult, UCI): accuracy and AUROC by the number of labels, beside training from scratch,
random weights, logistic regression and gradient boosting.

    python benchmarks/tables.py DATA RUNS [--seeds 5] [--backbones mlp] [--methods scarf] [--labels 100] [--validation]

DATA is a folder with the files adult.data and adult.test of https://archive.ics.uci.edu/dataset/2/adult, RUNS one for runs. Writes
docs/results/tables.json after each measurement, and tables.md; what is there is not measured again. A seed is one pretraining, one
draw of labels and one order of fine-tuning; all models of a seed have the same labeled rows. With `--validation`, on a fifth of the
training rows instead of the test rows, into another file: learning rates, lengths and views were chosen so.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import report  # noqa: E402
from benchmarks.tables_page import page  # noqa: E402

OUT = ROOT / "docs" / "results" / "tables.json"
NAMES = [
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship", "race", "sex",
    "capital_gain", "capital_loss", "hours_per_week", "native_country", "income",
]  # fmt: skip
LABELS = ("100", "1000", "all")
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
    "100": {"lr": {"scratch": 3e-4, "run": 1e-4}, "epochs": 50, "augment": "weak+global"},
    "1000": {"lr": {"scratch": 3e-4, "run": 1e-4}, "epochs": 30, "augment": "weak+global"},
    "all": {
        "lr": {"scratch": 1e-3, "run": 1e-3},
        "batch_size": 256,
        "weight_decay": 0.01,
        "augment": "weak",
    },
}


# ------------------------------------------------------------------------------------------------------------------ data


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


# --------------------------------------------------------------------------------------------------------------- measure


class Models:
    """Models of one seed."""

    def __init__(self, folder: Path, seed: int, backbone: str, runs: Path):
        import torch

        import sslcli
        from sslcli.builders import load_dataset
        from sslcli.config import compose
        from sslcli.evals.base.features import EvalData
        from sslcli.training import configuration

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.torch, self.sslcli, self.seed, self.runs = torch, sslcli, seed, runs
        self.words = [
            "dataset=table",
            f"dataset.path={folder.resolve()}",
            "dataset.label=income",
            "device=cpu",
            "device.threads=1",
        ]
        self.words += [f"seed={seed}", "train.eval_every=0"]
        self.backbone, self.backbone_words = backbone, WORDS[backbone]
        cfg = configuration.resolve(
            compose.compose("pretrain", [*self.words, *self.backbone_words, f"backbone={backbone}"])
        )
        self.cfg, self.dataset = cfg, load_dataset(cfg)
        self.data = EvalData(self.dataset, seed=seed, recipes=cfg["augmentation"])

    def ids(self, labels: str) -> Any:
        from sslcli.evals.inputs import label_subsets

        amount = label_subsets.parse(labels, self.dataset)
        return label_subsets.draw(self.data.labels("train"), amount, self.seed, 0, self.dataset.classes)

    def untrained(self) -> Any:
        from sslcli.builders import new_backbone

        return new_backbone(self.cfg, self.dataset, self.seed).eval()

    def pretrained(self, method: str) -> tuple[Any, float]:
        """The backbone of a finished run, which is trained where there is none, and its seconds."""
        from sslcli.runs.encoder import load_encoder

        words = [*self.words, f"method={method}", *self.backbone_words, *METHODS[method]]
        folder = self.runs / hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
        took = folder / "benchmark_seconds"
        if not took.exists():
            shutil.rmtree(folder, ignore_errors=True)
            began = time.time()
            self.sslcli.pretrain(*words, f"hydra.run.dir={folder}")
            took.write_text(f"{time.time() - began:.1f}")
        return load_encoder(folder)[0].eval(), float(took.read_text())

    def scores(self, logits: Any) -> dict[str, float]:
        """Accuracy and AUROC on the test rows."""
        from sslcli.evals.metrics.anomaly_metrics import auroc

        y = self.data.labels("test")
        return {
            "accuracy": float((logits.argmax(1) == y).double().mean()),
            "auroc": auroc(logits[:, 1] - logits[:, 0], y == 1),
        }

    def probe(self, backbone: Any, labels: str) -> dict[str, float]:
        from sslcli.evals.finetuning.predictions import logistic_head

        ids = self.ids(labels)
        head = logistic_head(backbone, self.data)(ids, self.data.labels("train")[ids])
        with self.torch.no_grad():
            return self.scores(head(self.data.features(backbone, "test")[0]))

    def finetune(self, backbone: Any, labels: str, start: str, **options: Any) -> dict[str, float]:
        from sslcli.evals.finetuning.predictions import logistic_head
        from sslcli.evals.finetuning.recipe import Recipe
        from sslcli.evals.finetuning.training import train
        from sslcli.rng import derive

        ids = self.ids(labels)
        head = logistic_head(backbone, self.data) if start == "run" else None
        given = FINETUNE[labels] | ({"epochs": ALL_EPOCHS[self.backbone]} if labels == "all" else {})
        recipe = Recipe(**{**given, "lr": FINETUNE[labels]["lr"][start], **options})
        trained = train(backbone, self.data, ids, recipe, derive(self.seed, "finetune"), head=head)
        with self.torch.no_grad():
            return self.scores(trained.head(self.data.compute_features(trained.backbone, "test")[0]))

    def baseline(self, name: str, labels: str) -> dict[str, float]:
        from sslcli.views.modality import modality

        train, test = self.dataset.train.resident, self.dataset.test.resident
        y, ids = self.data.labels("train"), self.ids(labels)
        predict = modality("table").baselines(self.dataset)[name].fit(train.take(ids), y[ids], self.seed)
        return self.scores(predict(test.take(self.torch.arange(len(test)))).log())


def measurements(seeds: int, backbones: list[str]) -> list[tuple[str, str, int, str, str]]:
    """What is measured, in order: (backbone, method, seed, labels, kind)."""
    every = [("", name, s, n, "baseline") for name in ("linear", "boosting") for s in range(seeds) for n in LABELS]
    few = [n for n in LABELS if n != "all"]
    for backbone in backbones:
        methods = ["scratch", "untrained", *(m for m in METHODS if backbone != "mlp" or m != "mae")]
        for amounts in (few, ["all"]):
            for seed in range(seeds):
                for method in methods:
                    kinds = {"scratch": ["finetune"], "untrained": ["probe"]}.get(method, ["probe", "finetune"])
                    every += [(backbone, method, seed, n, kind) for n in amounts for kind in kinds]
    return every


def measure(models: Models, method: str, labels: str, kind: str) -> dict[str, float]:
    if kind == "baseline":
        return models.baseline(method, labels)
    if method == "scratch":
        return models.finetune(models.untrained(), labels, "scratch")
    if method == "untrained":
        return models.probe(models.untrained(), labels)
    backbone, seconds = models.pretrained(method)
    found = models.probe(backbone, labels) if kind == "probe" else models.finetune(backbone, labels, "run")
    return found | {"pretraining_seconds": seconds}


def save(path: Path, known: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(known, indent=1) + "\n")
    os.replace(temporary, path)


# ------------------------------------------------------------------------------------------------------------------ main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--backbones", nargs="*", default=list(WORDS))
    parser.add_argument("--methods", nargs="*", help="only these, also scratch, untrained, linear, boosting")
    parser.add_argument("--labels", nargs="*", default=list(LABELS))
    parser.add_argument("--validation", action="store_true")
    options = parser.parse_args()
    path = OUT.with_name("tables_validation.json") if options.validation else OUT
    words = ["DATA", "RUNS"]  # portions add up to the whole table
    known = (
        json.loads(path.read_text()) if path.exists() else {"about": report.about(words, "tables.py"), "results": {}}
    )
    folder = options.runs / ("validation" if options.validation else "test")
    folder.mkdir(parents=True, exist_ok=True)
    prepare(options.data, folder, options.validation)
    current: tuple[int, str] | None = None
    for backbone, method, seed, labels, kind in measurements(options.seeds, options.backbones):
        key = f"{backbone}/{method}/{seed}/{labels}/{kind}"
        chosen = (options.methods is None or method in options.methods) and labels in options.labels
        if key in known["results"] or not chosen:
            continue
        if current != (seed, backbone or "mlp"):
            current = (seed, backbone or "mlp")
            models = Models(folder, seed, current[1], options.runs.resolve())
        began = time.time()
        known["results"][key] = measure(models, method, labels, kind) | {"seconds": round(time.time() - began, 1)}
        save(path, known)
        if not options.validation:
            OUT.with_suffix(".md").write_text(page(known, WORDS, METHODS, LABELS))
        print(key, known["results"][key], flush=True)


if __name__ == "__main__":
    main()
