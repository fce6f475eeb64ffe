"""Recipes for a processor and some minutes: the experiments `*_cpu`, beside an untrained backbone, raw inputs and training from
scratch.

    python benchmarks/cpu_recipes.py RUNS [--only cifar10_cpu] [--seeds 3] [--photos FOLDER] [--words device.threads=1] [--draw]

RUNS is a folder for runs. SSLCLI_DATA holds CIFAR-10 and Fashion-MNIST; FOLDER holds class folders below train and val. Each seed
is a pretraining, evaluated on the test split at the last epoch: k-NN, a linear probe with all labels and with ten labels per class
(mean of 5 draws). The label curve with the supervised baseline is that of seed 0. One thread. Writes docs/results/cpu_recipes.json
after each measurement, and cpu_recipes.md; what is there is not measured again as long as the configuration is the same.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import methods_table, report  # noqa: E402

OUT = ROOT / "docs" / "results" / "cpu_recipes.json"
EVALUATIONS = {
    "knn": ["knn"],
    "probe": ["probe"],
    "probe10": ["probe", "labels=10/class", "seeds=5"],
}
COLUMNS = {"knn": "kNN", "probe": "probe, all labels", "probe10": "probe, 10 labels a class"}
CURVE = ["labels", "evaluator.amounts=[1,5,10,20,50,100]", "evaluator.supervised_seeds=3", "evaluator.max_steps=2000"]
RECIPES = ("digits_cpu", "fashion_mnist_cpu", "cifar10_cpu", "photos_cpu")


def typed(recipe: str, seed: int, options: argparse.Namespace) -> list[str]:
    photos = [f"dataset.path={options.photos.resolve()}"] if recipe == "photos_cpu" else []
    return [f"experiment={recipe}", *photos, f"seed={seed}", "device=cpu", *options.words]


def measure(recipe: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One pretraining and its evaluations."""
    run = options.runs.resolve() / f"{recipe}-{seed}"
    began = time.monotonic()
    report.command("pretrain", *typed(recipe, seed, options), f"hydra.run.dir={run}")
    found: dict[str, Any] = {"minutes": (time.monotonic() - began) / 60}
    found["steps"] = json.loads((run / "status.json").read_text())["step"]
    for name, words in EVALUATIONS.items():
        numbers = json.loads(report.command("eval", *words, f"run={run}", "device=cpu", "--json"))["numbers"]
        found[name] = {kind: numbers[f"{kind}top1"] for kind in ("", "untrained.", "raw.") if f"{kind}top1" in numbers}
    return found


def curve(recipe: str, options: argparse.Namespace) -> dict[str, Any]:
    """The label curve of the run of seed 0."""
    run = options.runs.resolve() / f"{recipe}-0"
    return json.loads(report.command("eval", *CURVE, f"run={run}", "device=cpu", "--json"))


def page(known: dict[str, Any]) -> str:
    about = known["about"]
    lines = [
        "# Recipes for a processor",
        "",
        f"Made by `{about['command']}` on {about['machine']}, one thread; torch {about['versions']['torch']}, {about['date']}.",
        "The recipes were chosen on a held-out part of the training split ([experiment log](../explanation/experiment_log.md));",
        "the figures are of the test split, last epoch, mean ± standard deviation over training seeds.",
    ]
    for recipe in (name for name in RECIPES if name in known["recipes"]):
        rows = [row for row in known["recipes"][recipe].values() if "minutes" in row]
        steps, minutes = ({f"{row[key]:,.0f}" for row in rows} for key in ("steps", "minutes"))
        length = f"{' to '.join(sorted(steps))} steps, {' to '.join(sorted(minutes))} minutes."
        lines += ["", f"## `experiment={recipe}`", "", length, ""]
        lines += [f"| {len(rows)} seeds | pretrained | untrained | raw inputs |", "|---|--:|--:|--:|"]
        for name, title in COLUMNS.items():
            cells = [
                spread([row[name][kind] for row in rows if kind in row[name]]) for kind in ("", "untrained.", "raw.")
            ]
            lines.append(f"| {title} | {' | '.join(cells)} |")
        if "curve" in known["recipes"][recipe]:
            lines += ["", *curve_lines(known["recipes"][recipe]["curve"])]
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def curve_lines(found: dict[str, Any]) -> list[str]:
    """The label curve as a table, and the factor of labels saved with ten per class."""
    curves, quoted = found["curve"], found["quoted"]
    names = ["self-supervised", "supervised", "untrained", "raw"]
    amounts = curves[names[0]]["amounts"]
    lines = ["| labels a class, seed 0 | " + " | ".join(names) + " |", "|--:|--:|--:|--:|--:|"]
    for i, amount in enumerate(amounts):
        cells = [f"{curves[name]['mean'][i]:.3f} ± {curves[name]['std'][i]:.3f}" for name in names]
        lines.append(f"| {amount} | {' | '.join(cells)} |")
    low, high = quoted["interval"]
    factor = f"{quoted['relation']} {quoted['factor']:.2f}" if quoted["relation"] != "=" else f"{quoted['factor']:.2f}"
    lines += [
        "",
        f"Labels saved at ten a class, beside `{quoted['baseline']}`: {factor} (95 % interval {low:.2f} to {high:.2f}).",
    ]
    return lines


def save(known: dict[str, Any]) -> None:
    OUT.write_text(json.dumps(known, indent=1) + "\n")
    OUT.with_suffix(".md").write_text(page(known))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--only", nargs="*", default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--words", nargs="*", default=[], help="for each pretraining")
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    known: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"recipes": {}}
    known.setdefault("about", report.about(["RUNS"], "cpu_recipes.py"))
    for recipe in [] if options.draw else options.only:
        rows = known["recipes"].setdefault(recipe, {})
        for seed in range(options.seeds):
            key = methods_table.mark(typed(recipe, seed, options))
            if rows.get(str(seed), {}).get("key") != key:
                rows[str(seed)] = {**measure(recipe, seed, options), "key": key}
                if seed == 0:
                    rows.pop("curve", None)
                save(known)
            if seed == 0 and "curve" not in rows:
                rows["curve"] = curve(recipe, options)["details"]
                save(known)
    save(known)


if __name__ == "__main__":
    main()
