"""Every method by its own recipe on the same data: docs/results/methods.json, and methods.md drawn from it.

    python benchmarks/methods_table.py [digits cifar10] [--only simclr,mae] [--seeds 3] [--jobs 2] [--draw]

A row that is there is kept as long as its configuration is the same, so a table may be made in portions; `--draw` only draws
what is there. `jobs` runs go side by side, one thread each. SSLCLI_DATA holds CIFAR-10.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import report  # noqa: E402
from sslcli.config import compose, registry  # noqa: E402
from sslcli.runs.results import result_name  # noqa: E402

OUT = ROOT / "docs" / "results"
SIZES: dict[str, dict[str, list[str]]] = {
    # data set -> what is typed for every method; where the recipe has no backbone of its own ("backbone"); where it has one, of
    # tokens ("tokens"); where it has a decoder ("decoder"); for multitask, one of whose tasks has a decoder ("multitask")
    "digits": {"words": ["train.epochs=30"]},
    "cifar10": {
        "words": ["dataset=cifar10", "train.epochs=1", "train.batch_size=64"],
        "backbone": ["backbone=convnet", "backbone.width=16", "backbone.blocks=1"],
        "tokens": ["backbone.patch=8"],
        "decoder": ["method.width=16"],
        "multitask": ["method.settings={autoencoder: {width: 16}}"],
    },
}
PARTS = {
    "backbone": "where the recipe has no backbone of its own;",
    "tokens": "where it has one, a small transformer;",
    "decoder": "where it has a decoder or a generator;",
    "multitask": "for multitask.",
}
ALWAYS = ["device=cpu", "device.threads=1", "train.eval_every=0"]
LABELS = "10/class"
STAGES = ["stages=[probe,quality]", f"labels={LABELS}", "seeds=5", "report=false"]
KEPT = {"knn": "top1", "probe": "top1", "quality": "rankme"}
TEACHER = "simsiam"  # of the methods that learn from a trained run: its run of the same seed
FAMILIES = (
    "baseline",
    "contrastive",
    "non-contrastive",
    "clustering",
    "distillation",
    "masked",
    "generative",
    "predictive",
    "pretext",
    "combined",
)
FEW_STEPS = "likely too few steps, as for mae, whose 60 s (1,668 steps) give .809 (untrained .632)"
CLASSLESS = "likely because strokes of 8 x 8 pixels solve the task whatever the digit"
CRITIC = "likely because its encoder is trained by a critic alone, through a code of 32 values"
TEN = "likely because ten outputs need little; it is meant for use with another method (joint.md)"
ALONE = "alone it maps everything to one point (`spread`); it is meant for use with another method (joint.md)"
WHY: dict[str, dict[str, str]] = {  # where a method does not beat `untrained`; measured, or called likely
    "digits": {
        "mae": "too few steps: 60 s (1,668 steps) give .809 (untrained .632)",
        "simmim": FEW_STEPS,
        "data2vec": f"{FEW_STEPS}; features are nearly one direction by then (`spread`)",
        "i_jepa": f"{FEW_STEPS}; features are nearly one direction by then (`spread`)",
        "autoregressive": FEW_STEPS,
        "bigan": CRITIC,
        "jigsaw": CLASSLESS,
        "rotation": CLASSLESS,
        "patch_position": CLASSLESS,
        "clustering_head": TEN,
        "deep_svdd": ALONE,
    },
    "cifar10": {
        "bigan": CRITIC,
        "deep_svdd": ALONE,
        "clustering_head": TEN,
        "swav": "too few steps: three epochs give .305 (seed 1; untrained .229)",
        "jigsaw": "too few steps: three epochs give .234 (seed 0; untrained .202)",
        "instance_discrimination": "in one epoch each entry of its bank is met once: until then it is noise",
        **dict.fromkeys(
            ("simmim", "data2vec", "i_jepa", "autoregressive"),
            "likely too few steps: one epoch, where these methods take hundreds",
        ),
    },
}
TITLES = ["method", "steps", "samples/s", "MB", "kNN", "untrained", "probe", "untrained", "RankMe", "spread"]


def recipe(method: str) -> dict[str, Any]:
    return registry.describe(registry.choices("method")[method], "method")


def needs(method: str, word: str) -> bool:
    return word in recipe(method).get("needs", [])


def sized(data: str, method: str) -> list[str]:
    """What is typed so that a method's run is of the size of this table."""
    of = recipe(method)
    own = any("override /backbone" in line for line in of.get("defaults", []))
    parts = ["words", "tokens" if own else "backbone", *(["decoder"] if "width" in of["method"] else []), method]
    return [word for part in parts for word in SIZES[data].get(part, [])]


def words(data: str, method: str, seed: int) -> list[str]:
    return [f"method={method}", *sized(data, method), f"seed={seed}", *ALWAYS]


def mark(typed: list[str]) -> str:
    """The same for two runs that compute the same. Whatever cannot be composed raises."""
    from sslcli.runs.identity import config_hash
    from sslcli.training.configuration import resolve

    return config_hash(resolve(compose.compose("pretrain", typed)))


def run_one(word: str, typed: list[str], folder: Path) -> tuple[Path | None, str]:
    """The run folder of one command in a process of its own; None and what it said where it failed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SSLCLI_RUNS": str(folder)}
    command = [sys.executable, "-m", "sslcli", word, *typed, "-q"]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        return None, next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-200:])
    return Path(done.stdout.strip().splitlines()[-1]), ""


def measure(typed: list[str], folder: Path, raw: bool) -> dict[str, Any]:
    """One pretraining with its evaluations; `raw`: with the vote of raw inputs, which is the same for all and dear."""
    run, failed = run_one("pipeline", [*typed, *STAGES], folder)
    if run is None:
        return {"failed": failed}
    beside = f"evaluator.baselines={'true' if raw else 'untrained'}"  # of a vote with all labels
    _, failed = run_one("eval", ["knn", f"run={run}", "device=cpu", "device.threads=1", beside], folder)
    if failed:
        return {"failed": failed}
    status = json.loads((run / "status.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = sorted(line["train/samples_per_s"] for line in lines)
    found: dict[str, Any] = {
        "steps": status["step"],
        "seconds": round(status["seconds"], 1),
        "samples_per_s": rates[len(rates) // 2],
        "peak_memory_mb": status["peak_memory_mb"],
        "spread": lines[-1].get("train/spread"),
    }
    for stage, name in KEPT.items():
        kept = result_name(stage, LABELS if stage == "probe" else "all")
        numbers = json.loads((run / "eval" / f"{kept}.json").read_text())["numbers"]
        found |= {kind + stage: numbers[kind + name] for kind in ("", "untrained.", "raw.") if kind + name in numbers}
    return found


class Table:
    """What is known, on disk after each run: data set -> method -> seed -> figures."""

    def __init__(self, folder: Path):
        self.path, self.folder = OUT / "methods.json", folder
        self.known: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.about = report.about([], "methods_table.py")
        self.lock = threading.Lock()
        self.teacher: Callable[[str, int], Path | None] = functools.cache(self._teacher)

    def _teacher(self, data: str, seed: int) -> Path | None:
        return run_one("pretrain", words(data, TEACHER, seed), self.folder)[0]

    def one(self, data: str, method: str, seed: int) -> None:
        typed = words(data, method, seed)
        learns = needs(method, "a trained run")
        try:
            with self.lock:  # composing is not for threads
                now = mark([*typed, "method.teacher=RUN"] if learns else typed)
        except Exception as e:  # a row that says so
            self.keep(data, method, seed, {"failed": str(e)})
            return
        if self.known.get(data, {}).get(method, {}).get(str(seed), {}).get("key") != now:
            if learns:
                typed.append(f"method.teacher={self.teacher(data, seed)}")
            self.keep(data, method, seed, {**measure(typed, self.folder, method == TEACHER), "key": now})

    def keep(self, data: str, method: str, seed: int, found: dict[str, Any]) -> None:
        with self.lock:
            self.known.setdefault(data, {}).setdefault(method, {})[str(seed)] = found
            self.path.write_text(json.dumps(self.known, indent=1, sort_keys=True) + "\n")
            self.draw()
            told = found.get("failed") or f"kNN {found['knn']:.3f}, probe {found['probe']:.3f}"
            print(f"{data} {method} {seed}: {told}", flush=True)

    def draw(self) -> None:
        (OUT / "methods.md").write_text("\n".join(page(self.known, self.about)) + "\n")


# ------------------------------------------------------------------------------------------------------------------ page


def page(known: dict[str, Any], about: dict[str, Any]) -> list[str]:
    lines = [
        "# Methods",
        "",
        f"Made by `{about['command']}` ([methods.json](methods.json) has each run) on {about['machine']}, torch",
        f"{about['versions'].get('torch')}. Each method with its own recipe; last epoch, held-out split. Mean and standard "
        "deviation over training seeds of",
        "k-NN accuracy with all labels, of a linear probe with 10 labels per class (mean of 5 draws), and of RankMe.",
        "Without a standard deviation, there is one seed.",
        "`untrained` is the same backbone with its initial weights. Samples/s and memory (of CIFAR-10 most is for",
        "reading it): one thread, other programs beside it. \\*: the probe is not above `untrained` by more than twice the",
        "standard deviation of both (of one seed: by more than 0.01). (labels): uses all training labels, an upper bound.",
    ]
    for data, methods in known.items():
        done = {m: [r for r in seeds.values() if "failed" not in r] for m, seeds in methods.items()}
        raw = next((r for runs in done.values() for r in runs if "raw.knn" in r), None)
        lines += ["", f"## {data}", "", f"`sslcli pretrain method=... {' '.join(SIZES[data]['words'])}`"]
        lines += [
            f"and `{' '.join(SIZES[data][part])}` {where}" for part, where in PARTS.items() if part in SIZES[data]
        ]
        if raw:
            lines.append(f"Raw inputs: kNN {raw['raw.knn']:.3f}, probe {raw['raw.probe']:.3f}.")
        for family in FAMILIES:
            members = sorted(m for m, runs in done.items() if runs and recipe(m).get("family") == family)
            if members:
                rows = [TITLES, ["---", *["--:"] * (len(TITLES) - 1)], *(row(m, done[m]) for m in members)]
                lines += ["", f"### {family}", "", *("| " + " | ".join(r) + " |" for r in rows)]
        weak = [m for m, runs in sorted(done.items()) if runs and not better(runs)]
        notes = [f"- {m} does not beat `untrained`{weakness(data, m, done[m])}." for m in weak]
        failed = {m: r["failed"] for m, seeds in methods.items() for r in seeds.values() if "failed" in r}
        notes += [f"- {m} did not run: {reason}" for m, reason in sorted(failed.items())]
        lines += ["", *notes] if notes else []
    return lines


def weakness(data: str, method: str, runs: list[dict[str, Any]]) -> str:
    """How a method fails to beat `untrained`, and why where that is known."""
    known = WHY[data].get(method)
    if len(runs) > 1 and all(r["probe"] > r["untrained.probe"] for r in runs):
        vote = min(r["knn"] - r["untrained.knn"] for r in runs)
        also = f", and in k-NN accuracy by {vote:.3f} at least" if vote > 0 else ""
        return f" by that margin, though it does with each seed{also}" + (f": {known}" if known else "")
    return f": {known or 'not looked into'}"


def better(runs: list[dict[str, Any]]) -> bool:
    """Whether the probe is above `untrained` by more than twice the deviation of both over training seeds; of one seed, whose
    draws of labels are the same for both, by more than a hundredth."""
    own, untrained = ([r[name] for r in runs] for name in ("probe", "untrained.probe"))
    margin = 2 * sum(stdev(v) ** 2 for v in (own, untrained)) ** 0.5 if len(runs) > 1 else 0.01
    return mean(own) - mean(untrained) > margin


def row(method: str, runs: list[dict[str, Any]]) -> list[str]:
    def of(name: str) -> list[float]:
        return [r[name] for r in runs if r.get(name) is not None]

    def cell(name: str, digits: int = 3) -> str:
        values = of(name)
        if not values:
            return "–"
        return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")

    marks = " \\*" * (not better(runs)) + " (labels)" * needs(method, "labels")
    figures = [f"{runs[0]['steps']:,}", f"{mean(of('samples_per_s')):,.0f}", f"{max(of('peak_memory_mb')):,.0f}"]
    quality = ["knn", "untrained.knn", "probe", "untrained.probe"]
    return [method + marks, *figures, *(cell(name) for name in quality), cell("quality", 1), cell("spread", 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["digits"])
    parser.add_argument("--only", default="", help="methods, by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    methods = options.only.split(",") if options.only else sorted(registry.choices("method"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        table = Table(Path(folder))
        if options.draw:
            table.draw()
            return
        for data in options.data:
            list(pool.map(lambda job: table.one(*job), [(data, m, s) for s in range(options.seeds) for m in methods]))


if __name__ == "__main__":
    main()
