"""The rules of `sslcli pick` beside random samples, by number of labels: docs/results/picks.json and .md.

    python benchmarks/picks.py NAME=RUN ... [--draws 10] [--samples 10000] [--out FILE.json]

NAME is the title of a data set, RUN a finished run on it. Samples are picked from at most `--samples` random training samples, the
labels of which only the measurement knows, and the linear probe is measured on at most half as many test samples. A draw is a
seed of the rule. `published` is TypiClust as published: k-means with as many clusters as picks (scikit-learn), of each cluster the
sample with the least mean distance to its nearest neighbors in it. What was measured of other data sets is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import report  # noqa: E402

OUT = ROOT / "docs" / "results" / "picks.json"
PER_CLASS = (1, 2, 5)
RULES = ("random", "typical", "cover", "kcenter", "uncertain")
TITLES = {
    "random": "random",
    "balanced": "random, equally many of each class",
    "published": "TypiClust as published",
    "typical": "typical",
    "cover": "cover",
    "kcenter": "kcenter",
    "uncertain": "uncertain",
}


def features(run: str, samples: int) -> tuple[Any, Any, Any]:
    """The training and test features with labels, and the data set."""
    import torch

    from sslcli.config import compose
    from sslcli.data.subset import Subset
    from sslcli.evals.base.evaluated_model import load_model
    from sslcli.evals.base.evaluation import open_run
    from sslcli.evals.base.features import EvalData
    from sslcli.rng import order
    from sslcli.training.configuration import resolve

    words = ["evaluator=knn", f"run={run}", f"device.threads={torch.get_num_threads()}", "device=cpu"]
    values = resolve(compose.compose("eval", words))
    opened, cfg = open_run(values)
    model = load_model(values, cfg, opened.path if opened is not None else None)
    dataset = model.dataset
    parts = {}
    for split, most in (("train", samples), ("test", samples // 2)):
        source = getattr(dataset, split)
        ids = order(0, 0, len(source))[:most].sort().values
        parts[split] = Subset(source, ids, source.labels[ids])
    small = replace(dataset, **parts, fingerprint=f"{dataset.fingerprint} {samples}")
    data = EvalData(small, cache=opened.path / "cache" if opened is not None else None, key=model.sha256)
    return data.features(model.backbone, "train"), data.features(model.backbone, "test"), small


def published(z: Any, n: int, seed: int) -> Any:
    """The picks of TypiClust as published, (n,); clusters of five samples or fewer are passed over."""
    import torch
    from sklearn.cluster import KMeans

    cluster = torch.from_numpy(KMeans(n, n_init=1, random_state=seed).fit_predict(z.numpy()))
    sizes = cluster.bincount(minlength=n)
    kept = [c for c in sizes.argsort(descending=True, stable=True).tolist() if sizes[c] > 5]
    picks: list[int] = []
    for turn in range(n):
        members = torch.nonzero(cluster == kept[turn % len(kept)]).flatten()
        distances = torch.cdist(z[members], z[members]).sort(dim=1).values[:, 1 : min(20, len(members) // 2) + 1]
        order = distances.mean(dim=1).argsort(stable=True)
        picks.append(next(int(members[i]) for i in order if int(members[i]) not in picks))
    return torch.tensor(picks)


def measure(run: str, draws: int, samples: int) -> dict[str, Any]:
    """For each rule and number of labels per class: the accuracy and the number of classes found, one of each for every draw."""
    import torch

    from sslcli.evals.active_learning.curve import PickedProbe, picked_sets
    from sslcli.evals.active_learning.pool import Pool
    from sslcli.evals.inputs.label_subsets import Amount, draw
    from sslcli.rng import derive

    (x, y), test, dataset = features(run, samples)
    classes = len(dataset.classes)
    totals = [n * classes for n in PER_CLASS]
    pool = Pool(x, torch.full_like(y, -1), dataset.classes, classes)
    probe = PickedProbe((x, y), test, 0)
    found: dict[str, dict[str, list[list[float]]]] = {}
    seconds: dict[str, list[float]] = {}
    for i in range(draws):
        for rule in (*RULES, "balanced", "published"):
            begun = time.perf_counter()
            if rule == "balanced":
                sets = [draw(y, Amount("per class", n), 0, i) for n in PER_CLASS]
            elif rule == "published":
                sets = [published(pool.unit, total, i) for total in totals]
            else:
                sets = picked_sets(rule, pool, y, totals, derive(0, "picks", i))
            seconds.setdefault(rule, []).append(time.perf_counter() - begun)
            for n, ids in zip(PER_CLASS, sets, strict=True):
                cell = found.setdefault(rule, {}).setdefault(str(n), [])
                cell.append([round(probe.accuracy(ids, i), 4), len(y[ids].unique())])
        print(f"draw {i + 1} of {draws}", file=sys.stderr, flush=True)
    return {
        "run": Path(run).name,
        "train": len(x),
        "test": len(test[0]),
        "dim": x.shape[1],
        "classes": classes,
        "all": probe.accuracy(torch.arange(len(x)), 0),
        "draws": draws,
        "found": found,
        "seconds": {rule: round(sum(s) / len(s), 2) for rule, s in seconds.items()},
    }


def page(known: dict[str, Any]) -> str:
    lines = [
        "# Samples picked for labeling",
        "",
        "Made by `benchmarks/picks.py`. Accuracy of the linear probe with picked samples: mean ± standard deviation over draws, in "
        "brackets the mean number of classes among the samples. `gain` is the difference from `random` with as many labels, paired "
        "over draws, with its 95 % interval (Student's t), in points.",
        "",
        "`random` chooses from all samples with equal probability, as one does without labels. Equally many of each class are what "
        "`labels=1/class` draws: nobody can choose them before the labels are known. `uncertain` begins with the random samples of "
        "1 a class.",
    ]
    for name, result in known.items():
        head = result["about"]
        lines += ["", f"## {name}", "", f"`{result['recipe']}`; picked from {result['train']:,} training samples, "]
        lines[-1] += (
            f"{result['test']:,} test samples, {result['draws']} draws. With the labels of all: {result['all']:.3f}. "
        )
        lines[-1] += f"{head['machine']}, torch {head['versions']['torch']}, {head['date']}."
        columns = [f"{n} a class ({n * result['classes']})" for n in PER_CLASS]
        lines += ["", "| rule | " + " | ".join(f"{c} | gain" for c in columns) + " |"]
        lines += ["|---" + "|--:|--:" * len(columns) + "|"]
        for rule, title in TITLES.items():
            cells = [cell for n in PER_CLASS for cell in _cells(result["found"], rule, str(n))]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
        if result.get("note"):
            lines += ["", result["note"]]
    return "\n".join(lines) + "\n"


def _cells(found: dict[str, Any], rule: str, n: str) -> list[str]:
    from sslcli.evals.metrics.interval import students_quantile

    values = [accuracy for accuracy, _ in found[rule][n]]
    classes = sum(c for _, c in found[rule][n]) / len(values)
    mean, std = _mean_std(values)
    text = f"{mean:.3f} ± {std:.3f} ({classes:.1f})"
    if rule == "random":
        return [text, ""]
    gains = [100 * (a - b) for a, (b, _) in zip(values, found["random"][n], strict=True)]
    gain, spread = _mean_std(gains)
    half = students_quantile(len(gains) - 1) * spread / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return [text, f"{gain:+.1f} ± {half:.1f}"]


def _mean_std(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, (sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)) ** 0.5


def main() -> None:
    import os

    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="NAME=RUN")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--recipe", default="", help="the command that trained the run")
    parser.add_argument("--note", default="", help="a sentence below the table")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    for word in given.runs:
        name, _, run = word.partition("=")
        result = measure(run, given.draws, given.samples)
        about = report.about(["NAME=RUN"], "picks.py")
        known[name] = {"about": about, "recipe": given.recipe, "note": given.note, **result}
        given.out.write_text(json.dumps(known, separators=(",", ":")) + "\n")
    given.out.with_suffix(".md").write_text(page(known))


if __name__ == "__main__":
    main()
