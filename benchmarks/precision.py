"""Training in bf16 and in fp32 on a processor with AMX or AVX512-BF16: samples/s of the model, and accuracy.

    python benchmarks/precision.py [--rounds 3] [--seeds 3] [--parts speed accuracy] [--data cifar10 digits]

SSLCLI_DATA holds CIFAR-10. Speed: both precisions take turns, each figure is the median of the rounds of `sslcli bench`.
Accuracy: the same pretraining in both precisions, k-NN and a linear probe on the test images. Writes docs/results/precision.md
and precision.json, after each measurement; what is there of this processor is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import methods_table, report  # noqa: E402

OUT = ROOT / "docs" / "results" / "precision.json"
PRECISIONS = ("fp32", "bf16")
CPU = ["device=cpu", "device.threads=1"]
SPEED = [
    [
        "method=simclr",
        "experiment=cifar10_cpu",
        "train.batch_size=128",
        "method.norm=false",
        "augmentation.global.random_resized_crop.size=1.0",
    ],
    ["method=simclr", "dataset=cifar10", "backbone=resnet18", "train.batch_size=64"],
    ["method=simclr", "dataset=cifar10", "backbone=vit_tiny", "train.batch_size=64"],
    ["method=mae", "dataset=cifar10"],
    ["method=dino", "dataset=cifar10"],
    ["method=vae", "dataset=cifar10"],
    ["method=simsiam", "dataset=digits"],
    ["method=mlm", "dataset=capitals"],
    ["method=byol", "dataset=tones"],
    ["method=next_frame", "dataset=moving"],
    ["method=scarf", "dataset=breast_cancer"],
]
SMALL = ["dataset=cifar10", "train.epochs=1", "train.batch_size=64"]
CONVNET = ["backbone=convnet", "backbone.width=16", "backbone.blocks=1"]
ACCURACY = {
    "cifar10": {
        "simclr": ["method=simclr", *SMALL, *CONVNET],
        "mae": ["method=mae", *SMALL, "backbone.patch=8", "method.width=16"],
    },
    "digits": {name: [f"method={name}", "train.epochs=30"] for name in ("simclr", "byol", "vicreg", "dino")},
}


def speed(words: list[str], rounds: int) -> dict[str, float]:
    found: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for _ in range(rounds):
        for precision in PRECISIONS:
            asked = [*words, *CPU, f"device.precision={precision}", "repeats=1", "seconds=3", "--json"]
            result = json.loads(report.command("bench", *asked))
            found[precision].append(result["model"]["samples_per_s"])
    return {precision: median(values) for precision, values in found.items()}


def accuracy(words: list[str], precision: str, seed: int, folder: Path) -> dict[str, float]:
    """k-NN with all labels and a linear probe with ten labels per class (mean of 5 draws), on the test images."""
    typed = [*words, "train.eval_every=0", *CPU, f"device.precision={precision}", f"seed={seed}"]
    found = methods_table.measure(typed, folder, raw=False)
    if "failed" in found:
        raise SystemExit(f"{' '.join(typed)}: {found['failed']}")
    return {"knn": found["knn"], "probe": found["probe"], "minutes": found["seconds"] / 60}


def save(known: dict[str, Any]) -> None:
    OUT.write_text(json.dumps(known, indent=1) + "\n")
    OUT.with_suffix(".md").write_text(page(known))


def page(known: dict[str, Any]) -> str:
    measured = [found["about"] for found in known.values()]
    made = "; ".join(f"{about['machine']}, torch {about['versions']['torch']}, {about['date']}" for about in measured)
    lines = [
        "# bf16 on a processor",
        "",
        f"Made by `{measured[0]['command']}`, one thread: {made}.",
        "The first has AMX, the second AVX512-BF16 without AMX; on both `device.precision=auto` trains in bf16 (autocast) and",
        "computes features in fp32. Other programs used the machines too: ratios are of turns.",
        "",
        "## Speed",
        "",
        "Samples/s of the model alone (`sslcli bench`, without views). Both precisions took turns; the medians of the rounds.",
        "",
        "| `sslcli bench` | " + " | ".join(f"{name}: fp32 | bf16 | ratio" for name in known) + " |",
        "|---|" + "--:|--:|--:|" * len(known),
    ]
    for words in SPEED:
        row = f"| `{' '.join(words)}` |"
        for found in known.values():
            rates = found["speed"].get(" ".join(words))
            row += (
                f" {rates['fp32']:,.0f} | {rates['bf16']:,.0f} | {rates['bf16'] / rates['fp32']:.2f} |"
                if rates
                else " | | |"
            )
        lines.append(row)
    lines += [
        "",
        "## Accuracy",
        "",
        "CIFAR-10 after one epoch and digits after 30, last epoch, with the sizes of [methods](methods.md): k-NN with all",
        "labels, and a linear probe with ten labels per class (mean of 5 draws), on the test images. Mean ± standard deviation",
        "over the training seeds.",
        "",
        "| processor | data | method | precision | kNN | probe | seeds |",
        "|---|---|---|---|--:|--:|--:|",
    ]
    every = [(machine, data, name) for machine in known for data, methods in ACCURACY.items() for name in methods]
    for machine, data, name in every:
        for precision in PRECISIONS:
            found = known[machine]["accuracy"].items()
            rows = [row for key, row in found if key.startswith(f"{data}/{name}/{precision}/")]
            if rows:
                knn, probe = (spread([row[key] for row in rows]) for key in ("knn", "probe"))
                lines.append(f"| {machine} | {data} | `{name}` | {precision} | {knn} | {probe} | {len(rows)} |")
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def processor(machine: str) -> str:
    """`AMD EPYC` of `1 core (AMD EPYC)`."""
    return machine.partition("(")[2].removesuffix(")").replace("(R)", "").removesuffix(" Processor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="*", default=list(ACCURACY), help="of the accuracy")
    parser.add_argument("--parts", nargs="*", default=["speed", "accuracy"])
    options = parser.parse_args()
    every: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}
    about = report.about([], "precision.py")
    known = every.setdefault(processor(about["machine"]), {"about": about, "speed": {}, "accuracy": {}})
    if "speed" in options.parts:
        for words in SPEED:
            if " ".join(words) not in known["speed"]:
                known["speed"][" ".join(words)] = speed(words, options.rounds)
                save(every)
    if "accuracy" in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(options.seeds):
                for data in options.data:
                    for name, words in ACCURACY[data].items():
                        for precision in PRECISIONS:
                            key = f"{data}/{name}/{precision}/{seed}"
                            if key not in known["accuracy"]:
                                known["accuracy"][key] = accuracy(words, precision, seed, Path(folder))
                                save(every)


if __name__ == "__main__":
    main()
