"""Self-supervised methods by the number of labels, beside training from scratch, random weights and the baselines of the kind of
data: what `tables.py` and `reviews.py` have in common.

A seed is one draw of labels and one order of fine-tuning; all models of a seed have the same labeled samples. Results are written
after each measurement, and what is there is not measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.few_labels_page import page


@dataclass(frozen=True)
class Study:
    """What is measured, and how it is described.

    out: the JSON file; the page is beside it. title, facts, notes: of the page. dataset: overrides, given the folder of the data.
    backbones, methods: overrides of each. skip: pairs of backbone and method that are left out. finetune: the recipe, given the
    number of labels, the start (run or scratch) and the backbone. baselines: name -> title. metric: the one that is compared.
    pretraining_seed: of all pretrainings; None for that of the labels. windows: of documents, over which features are averaged in
    the kinds `probe@N` and `finetune@N`, beside the start alone."""

    out: Path
    script: str
    title: str
    facts: str
    dataset: Callable[[Path], list[str]]
    backbones: Mapping[str, list[str]]
    methods: Mapping[str, list[str]]
    finetune: Callable[[str, str, str], dict[str, Any]]
    baselines: Mapping[str, str]
    metric: str
    metrics: tuple[str, ...] = ("accuracy", "auroc")
    labels: tuple[str, ...] = ("100", "1000", "all")
    skip: frozenset[tuple[str, str]] = frozenset()
    pretraining_seed: int | None = None
    windows: int | None = None
    notes: list[str] = field(default_factory=list)


class Models:
    """Models of one seed."""

    def __init__(self, study: Study, folder: Path, seed: int, backbone: str, runs: Path):
        import torch

        import sslcli
        from sslcli.builders import load_dataset
        from sslcli.config import compose
        from sslcli.evals.base.features import EvalData
        from sslcli.training import configuration

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.torch, self.sslcli, self.study, self.seed, self.runs = torch, sslcli, study, seed, runs
        self.words = [*study.dataset(folder), "device=cpu", f"device.threads={torch.get_num_threads()}"]
        self.backbone, self.backbone_words = backbone, study.backbones[backbone]
        words = [*self.words, f"seed={seed}", *self.backbone_words]
        self.cfg = configuration.resolve(compose.compose("pretrain", words))
        self.dataset = load_dataset(self.cfg)
        self.views: dict[int, EvalData] = {}
        self.read(1)

    def read(self, windows: int) -> None:
        """Average features over so many windows of a document from now on."""
        from sslcli.evals.base.features import EvalData

        if windows not in self.views:
            read = self.dataset
            if windows > 1:
                read = replace(read, preprocessor=replace(read.preprocessor, windows=windows))
            self.views[windows] = EvalData(
                read, cache=self.runs / "features", seed=self.seed, recipes=self.cfg["augmentation"]
            )
        self.data = self.views[windows]

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

        seed = self.seed if self.study.pretraining_seed is None else self.study.pretraining_seed
        words = [*self.words, f"seed={seed}", "train.eval_every=0", f"method={method}"]
        words += [*self.backbone_words, *self.study.methods[method]]
        folder = self.runs / hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
        took = folder / "benchmark_seconds"
        if not took.exists():
            shutil.rmtree(folder, ignore_errors=True)
            began = time.time()
            self.sslcli.pretrain(*words, f"hydra.run.dir={folder}")
            took.write_text(f"{time.time() - began:.1f}")
        return load_encoder(folder)[0].eval(), float(took.read_text())

    def scores(self, logits: Any) -> dict[str, float]:
        """Accuracy and AUROC on the test samples."""
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

    def finetune(self, backbone: Any, labels: str, start: str) -> dict[str, float]:
        from sslcli.evals.finetuning.predictions import logistic_head
        from sslcli.evals.finetuning.recipe import Recipe
        from sslcli.evals.finetuning.training import train
        from sslcli.rng import derive

        ids = self.ids(labels)
        head = logistic_head(backbone, self.data) if start == "run" else None
        recipe = Recipe(**self.study.finetune(labels, start, self.backbone))
        trained = train(backbone, self.data, ids, recipe, derive(self.seed, "finetune"), head=head)
        with self.torch.no_grad():
            return self.scores(trained.head(self.data.compute_features(trained.backbone, "test")[0]))

    def baseline(self, name: str, labels: str) -> dict[str, float]:
        from sslcli.views.modality import modality

        (train, _), (test, _) = self.data.samples("train"), self.data.samples("test")
        y, ids = self.data.labels("train"), self.ids(labels)
        predict = modality(self.dataset.modality).baselines(self.dataset)[name].fit(train[ids], y[ids], self.seed)
        return self.scores(predict(test).log())


def measurements(study: Study, seeds: int, backbones: list[str]) -> list[tuple[str, str, int, str, str]]:
    """What is measured, in order: (backbone, method, seed, labels, kind)."""
    every = [("", name, s, n, "baseline") for name in study.baselines for s in range(seeds) for n in study.labels]
    few = [n for n in study.labels if n != "all"]
    for backbone in backbones:
        methods = ["scratch", "untrained", *(m for m in study.methods if (backbone, m) not in study.skip)]
        for amounts in (few, ["all"]):
            for seed in range(seeds):
                for method in methods:
                    kinds = {"scratch": ["finetune"], "untrained": ["probe"]}.get(method, ["probe", "finetune"])
                    kinds += [f"{kind}@{study.windows}" for kind in kinds if study.windows]
                    every += [(backbone, method, seed, n, kind) for n in amounts for kind in kinds]
    return every


def measure(models: Models, method: str, labels: str, kind: str) -> dict[str, float]:
    kind, _, windows = kind.partition("@")
    models.read(int(windows or 1))
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


def run(study: Study, prepare: Callable[[Path, Path, bool], None], description: str | None) -> None:
    """The script. `prepare`: writes the files of the data set to a folder, given the downloaded ones and whether some of the
    training samples are the test split, for choices."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--backbones", nargs="*", default=list(study.backbones))
    parser.add_argument("--methods", nargs="*", help="only these, also scratch, untrained and the baselines")
    parser.add_argument("--labels", nargs="*", default=list(study.labels))
    parser.add_argument("--kinds", nargs="*", default=["baseline", "probe", "finetune"])
    parser.add_argument("--validation", action="store_true")
    options = parser.parse_args()
    path = study.out.with_name(f"{study.out.stem}_validation.json") if options.validation else study.out
    words = ["DATA", "RUNS"]  # portions add up to the whole table
    known = (
        json.loads(path.read_text()) if path.exists() else {"about": report.about(words, study.script), "results": {}}
    )
    folder = options.runs / ("validation" if options.validation else "test")
    folder.mkdir(parents=True, exist_ok=True)
    prepare(options.data, folder, options.validation)
    current: tuple[int, str] | None = None
    for backbone, method, seed, labels, kind in measurements(study, options.seeds, options.backbones):
        key = f"{backbone}/{method}/{seed}/{labels}/{kind}"
        chosen = (options.methods is None or method in options.methods) and labels in options.labels
        chosen = chosen and kind in options.kinds
        if key in known["results"] or not chosen:
            continue
        if current != (seed, backbone or options.backbones[0]):
            current = (seed, backbone or options.backbones[0])
            models = Models(study, folder, seed, current[1], options.runs.resolve())
        began = time.time()
        known["results"][key] = measure(models, method, labels, kind) | {"seconds": round(time.time() - began, 1)}
        save(path, known)
        if not options.validation:
            study.out.with_suffix(".md").write_text(page(known, study))
        print(key, known["results"][key], flush=True)
