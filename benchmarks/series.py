"""Self-supervised methods on seven data sets of the UCR and UEA archives, beside random weights, raw series and published results.

    python benchmarks/series.py FOLDER RUNS [--seeds 5] [--sets GunPoint ...] [--methods ts2vec ...] [--validation]

FOLDER holds NAME.npz, with x_train, y_train, x_test, y_test and, for series of several lengths, len_train and len_test. The
backbone is pretrained on the training split without labels and frozen; a linear classifier (`eval probe`) and the support-vector
machine of TS2Vec's protocol (`evaluator.kind=svm`) are fitted to the labels of the training split and judged on the test split.
Results are written after each measurement, and what is there is not measured again. `--validation`, for choices: instead of the
test split, the accuracy of a linear classifier in 5-fold cross-validation over the training split.
"""

from __future__ import annotations

import argparse
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
from benchmarks.few_labels import save  # noqa: E402
from benchmarks.series_page import page  # noqa: E402

OUT = ROOT / "docs" / "results" / "series_ucr.json"
SETS = ("ItalyPowerDemand", "GunPoint", "BasicMotions", "JapaneseVowels", "ArrowHead", "OSULeaf", "PLAID")
SHORT = ["train.epochs=null", "train.steps=200"]
METHODS: dict[str, list[str]] = {
    "ts2vec": ["method=ts2vec"],  # the default of dataset=series
    "simclr": ["method=simclr", "method.norm=false", *SHORT],
    "vicreg": ["method=vicreg", *SHORT],
    "byol": ["method=byol", *SHORT],
    "simsiam": ["method=simsiam", *SHORT],
    "autoencoder": ["method=autoencoder", *SHORT],
    "next_step": ["method=next_step", *SHORT],
    "cpc": ["method=cpc", *SHORT],
    "mae": ["method=mae", *SHORT],
    "data2vec": ["method=data2vec", *SHORT],
}
UNTRAINED = ("tcn", "dilated", "gru", "vit_micro")
FOLDS = 5


class Models:
    """The data of one set, and models on it. The probe's and the machine's cross-validation have seed 0."""

    def __init__(self, path: Path, runs: Path):
        import torch

        from sslcli.builders import load_dataset
        from sslcli.config import compose
        from sslcli.evals.base.features import EvalData
        from sslcli.training import configuration

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.torch, self.runs = torch, runs
        self.words = ["dataset=series", f"dataset.path={path.resolve()}", "device=cpu"]
        self.words.append(f"device.threads={torch.get_num_threads()}")
        self.cfg = configuration.resolve(compose.compose("pretrain", self.words))
        self.dataset = load_dataset(self.cfg)
        self.data = EvalData(self.dataset, seed=0, recipes=self.cfg["augmentation"])

    def untrained(self, backbone: str, seed: int) -> Any:
        from sslcli.builders import new_backbone
        from sslcli.config import compose
        from sslcli.training import configuration

        cfg = configuration.resolve(compose.compose("pretrain", [*self.words, f"backbone={backbone}"]))
        return new_backbone(cfg, self.dataset, seed).eval()

    def pretrained(self, words: list[str], seed: int) -> tuple[Any, float]:
        """The backbone of a finished run, which is trained where there is none, and its seconds of processor time."""
        import sslcli
        from sslcli.runs.encoder import load_encoder

        words = [*self.words, f"seed={seed}", "train.eval_every=0", *words]
        folder = self.runs / hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
        took = folder / "benchmark_seconds"
        if not took.exists():
            shutil.rmtree(folder, ignore_errors=True)
            began = time.process_time()
            sslcli.pretrain(*words, f"hydra.run.dir={folder}")
            took.write_text(f"{time.process_time() - began:.1f}")
        return load_encoder(folder)[0].eval(), float(took.read_text())

    def features(self, backbone: Any, part: str) -> Any:
        """(n, D): of a backbone, or the raw series."""
        if backbone is None:
            x = self.data.samples(part)[0]
            return x.flatten(1).nan_to_num()
        return self.data.compute_features(backbone, part)[0]

    def scores(self, backbone: Any) -> dict[str, float]:
        from sslcli.evals.finetuning.predictions import logistic_head
        from sslcli.evals.svm.fit import C_VALUES, fit_svm

        y, truth = self.data.labels("train"), self.data.labels("test")
        train, test = self.features(backbone, "train"), self.features(backbone, "test")
        svm = fit_svm(train, y, C_VALUES, 0, 0).predict(test)[0]
        found = {"svm": float((svm == truth).double().mean())}
        if backbone is not None:
            head = logistic_head(backbone, self.data)(self.torch.arange(len(y)), y)
            with self.torch.no_grad():
                found["probe"] = float((head(test).argmax(1) == truth).double().mean())
        return found

    def validation(self, backbone: Any) -> dict[str, float]:
        """Cross-validated accuracy of ridge classification over the labels of the training split."""
        import numpy as np
        from sklearn.linear_model import RidgeClassifierCV
        from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        model = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-3, 3, 10)))
        folds = RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=4, random_state=0)
        x, y = self.features(backbone, "train").double().numpy(), self.data.labels("train").numpy()
        return {"probe": float(cross_val_score(model, x, y, cv=folds).mean())}


def measure(models: Models, method: str, seed: int, validation: bool) -> dict[str, float]:
    judge = models.validation if validation else models.scores
    if method == "raw":
        return judge(None)
    if method.startswith("untrained/"):
        return judge(models.untrained(method.partition("/")[2], seed))
    words = METHODS[method] if method in METHODS else method.split()  # overrides, for choices
    backbone, seconds = models.pretrained(words, seed)
    return judge(backbone) | {"pretraining_seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--methods", nargs="*", default=["raw", *(f"untrained/{b}" for b in UNTRAINED), *METHODS])
    parser.add_argument("--validation", action="store_true")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    path = options.runs.resolve() / "validation.json" if options.validation else OUT
    start = {"about": report.about(["FOLDER", "RUNS"], "series.py"), "results": {}}
    known = json.loads(path.read_text()) if path.exists() else start
    for seed in range(options.seeds):
        for name in options.sets:
            models = None
            for method in options.methods:
                key = f"{name}/{method}/{seed}"
                if key in known["results"] or (method == "raw" and seed):
                    continue
                models = models or Models(options.folder / f"{name}.npz", options.runs.resolve())
                known["results"][key] = measure(models, method, seed, options.validation)
                save(path, known)
                if not options.validation:
                    OUT.with_suffix(".md").write_text(page(known["results"], known["about"]))
                print(key, known["results"][key], flush=True)


if __name__ == "__main__":
    main()
