"""Does it help to learn together? Multitask, a clustering head, a one-class objective, on digits: makes docs/results/joint.md.

    python scripts/joint.py [multitask clustering anomaly] [--seeds 3]

About half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from results import OUT, evaluate, machine, markdown, pretrain

EPOCHS = "train.epochs=60"
ALWAYS = ["device=cpu", "device.threads=1", "train.eval_every=0", "-q"]
TOGETHER = ["simclr", "vicreg", "autoencoder"]
PLAIN = "method.norm=false"  # the page was measured so
PLAIN_TASK = "method.settings={simclr: {norm: false}}"
MULTITASK = {
    **{name: [f"method={name}", *([PLAIN] if name == "simclr" else [])] for name in TOGETHER},
    "all three, fixed weights": ["method=multitask", f"method.tasks=[{','.join(TOGETHER)}]", PLAIN_TASK],
    "all three, vicreg at 0.1": [
        "method=multitask", f"method.tasks=[{','.join(TOGETHER)}]", PLAIN_TASK, "method.weights={vicreg: 0.1}"
    ],
    "all three, uncertainty": [
        "method=multitask", f"method.tasks=[{','.join(TOGETHER)}]", PLAIN_TASK, "method.weighting=uncertainty"
    ],
    "all three, gradnorm": ["method=multitask", f"method.tasks=[{','.join(TOGETHER)}]", PLAIN_TASK, "method.weighting=gradnorm"],
}  # fmt: skip
CLUSTERING = {
    "simclr": ["method=simclr", PLAIN],
    "clustering_head": ["method=clustering_head"],
    "simclr + clustering_head": ["experiment=joint_clustering", PLAIN_TASK],
}
ANOMALY = {"simclr": ["method=simclr", PLAIN], "simclr + deep_svdd": ["experiment=joint_anomaly", PLAIN_TASK]}


def cell(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def gathered(numbers: list[dict[str, float]], key: str) -> list[float]:
    return [n[key] for n in numbers if key in n]


def multitask(seeds: int) -> str:
    rows = []
    for name, words in MULTITASK.items():
        found = []
        for seed in range(seeds):
            run, _ = pretrain(*words, EPOCHS, f"seed={seed}", *ALWAYS)
            knn = evaluate("knn", run)
            probe = evaluate("probe", run, "labels=10/class", "seeds=5")
            found.append({"knn": knn["top1"], "probe": probe["top1"], "untrained": probe["untrained.top1"]})
        rows.append([name, *(cell(gathered(found, key)) for key in ("knn", "probe", "untrained"))])
    return markdown(["trained by", "kNN", "probe, 10/class", "untrained, probe"], rows)


def clustering(seeds: int) -> str:
    rows = []
    for name, words in CLUSTERING.items():
        found = []
        for seed in range(seeds):
            run, _ = pretrain(*words, EPOCHS, f"seed={seed}", *ALWAYS)
            found.append(evaluate("cluster", run, "seeds=3"))
        columns = [f"{who}{key}" for who in ("", "head.") for key in ("acc", "nmi", "ari")]
        rows.append([name, *(cell(gathered(found, key)) for key in columns)])
        raw = found[0]
    rows.append(["raw inputs", *(f"{raw[f'raw.{key}']:.3f}" for key in ("acc", "nmi", "ari")), "–", "–", "–"])
    titles = ["trained by", "k-means ACC", "NMI", "ARI", "head ACC", "NMI", "ARI"]
    return markdown(titles, rows)


def anomaly(seeds: int) -> str:
    scores = ("knn", "knn_l2", "mahalanobis", "objective")
    kinds: dict[str, list[dict[str, Any]]] = {name: [] for name in ANOMALY}
    for normal in range(10):
        for name, words in ANOMALY.items():
            for seed in range(seeds):
                own = [f"train.classes=[{normal}]", "train.batch_size=64", "train.epochs=300", f"seed={seed}"]
                run, _ = pretrain(*words, *own, *ALWAYS)
                kinds[name].append(evaluate("anomaly", run, f"evaluator.normal={normal}"))
    rows = [[name, *(cell(gathered(found, f"{s}.auroc")) for s in scores)] for name, found in kinds.items()]
    first = kinds["simclr"]
    for who in ("raw", "untrained"):
        rows.append([who, *(cell(gathered(first, f"{who}.{s}.auroc")) for s in scores)])
    return markdown(["trained by", *scores], rows)


PARTS = {
    "multitask": (
        multitask,
        "## Three methods on one backbone, beside each alone",
        "60 epochs each (660 steps), each method alone by its own recipe. On CIFAR-10 (one seed, 780 steps of batch "
        "128, convnet of width 32) the three together are above each alone, at the same number of steps, each of which costs as "
        "much as all three: probe .350 against .328 (simclr), .303 (vicreg) and .245 (autoencoder). At half that width and batch, "
        "one epoch, three seeds ([methods.md](methods.md)), only k-NN accuracy is above each alone, with each seed (.472 ± .005 "
        "against .450 ± .006 of simclr); the probe is not (.287 ± .015 against .290 ± .011).",
    ),
    "clustering": (
        clustering,
        "## A clustering head, beside k-means on frozen features",
        "60 epochs each. k-means with k = 10 on the frozen features (mean of 3 starts); the head's own clusters, no labels.",
    ),
    "anomaly": (
        anomaly,
        "## A one-class objective, beside distances",
        "Each class in turn is normal: 300 epochs of its training samples alone (`train.classes`), batch 64. AUROC over the "
        "test split, mean and standard deviation over the ten classes.",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    store = OUT / "joint.json"
    known: dict[str, dict[str, str]] = json.loads(store.read_text()) if store.exists() else {}
    for part in options.parts:
        seeds = 1 if part == "anomaly" else options.seeds  # ten classes are repetition enough
        known[part] = {"made": machine(), "table": PARTS[part][0](seeds)}
        store.write_text(json.dumps(known, indent=1) + "\n")
        lines = [
            "# Joint objectives",
            "Made by `python scripts/joint.py`; digits, last epoch, held-out split.",
        ]
        seeds = (
            f"{options.seeds} training seeds unless stated otherwise; one seed where there is no standard deviation."
        )
        lines.append(f"Mean and standard deviation over {seeds}")
        for name, (_, title, words) in PARTS.items():
            if name in known:
                lines += [title, words, f"On {known[name]['made']}.", known[name]["table"]]
        Path(OUT / "joint.md").write_text("\n\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
