"""What is to be measured on a GPU, in order: speed, published recipes, the tests that need one. Takes what fits into some minutes.

    python benchmarks/gpu_queue.py DATA RUNS [--minutes 13] [--rows simclr,speed] [--photos FOLDER] [--list] [--draw]

DATA holds CIFAR-10, RUNS receives run folders and must be kept between calls, PHOTOS is a folder of class folders with
train and val. A row is written to docs/results/gpu.json as soon as it is measured, and the page gpu.md is drawn from it. A row
that is there is not measured again as long as its configuration is the same, unless it failed and `--rows` names it. A
pretraining that does not end in time is interrupted, which saves it, and resumed by the next call. `--list` shows what is open
with expected times, and runs nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import report  # noqa: E402
from benchmarks.gpu_page import page  # noqa: E402

OUT = ROOT / "docs" / "results" / "gpu.json"
STOP_S = 20  # for an interrupted run to save itself
LEAST_S = 90  # a training is not begun for less
METHOD_WORDS = ["dataset=cifar10", "train.batch_size=256", "repeats=1"]
WIDE = ["dataset=image_folder", "augmentation=symmetric", "backbone=resnet18", "train.batch_size=256"]


@dataclass(frozen=True)
class Row:
    """kind: `accuracy` (words of `sslcli pretrain`), `speed` (words of `sslcli bench`), or `tests`. seconds: expected."""

    name: str
    kind: str
    seconds: int
    words: list[str] = field(default_factory=list)
    photos: bool = False


def recipe(name: str, seconds: int, *words: str, label: str = "", seed: int = 0) -> Row:
    return Row(f"{label or name}/{seed}", "accuracy", seconds, [f"experiment={name}", *words, f"seed={seed}"])


def rows() -> list[Row]:
    """Everything, the most useful first."""
    small = ["dataset=cifar10", "backbone=resnet18", "optimizer=sgd", "train.batch_size=512"]
    head = ["train.epochs=60"]
    found = [
        Row("speed/simclr 32 px", "speed", 60, ["method=simclr", *small, "device.compile=true"]),
        Row("speed/simclr 224 px", "speed", 90, ["method=simclr", *WIDE, "device.compile=true"], photos=True),
        recipe("cifar10_gpu", 345),
        recipe("cifar10_gpu", 115, *head, "method.norm=false", label="head: no norm, T .5"),
        recipe("cifar10_gpu", 115, *head, label="head: norm, T .5"),
        recipe("cifar10_gpu", 115, *head, "method.temperature=0.2", label="head: norm, T .2"),
        recipe("cifar10_gpu", 115, *head, "method.temperature=0.1", label="head: norm, T .1"),
        recipe("cifar10_gpu", 345, seed=1),
        recipe("cifar10_gpu", 345, seed=2),
        recipe("cifar10_byol", 480),
        recipe("cifar10_moco_v2", 430),
        recipe("cifar10_fastsiam", 660),
        recipe("cifar10_dcl", 420),
        recipe("cifar10_barlow_twins", 600),
        recipe("cifar10_nnclr", 420),
        recipe("cifar10_dino", 480),
        recipe("cifar10_swav", 360),
        recipe("cifar10_simsiam", 360),
        recipe("cifar10_vicreg", 540),
        recipe("cifar10_emp_ssl", 240),
        recipe("cifar10_lejepa", 540),
        recipe("cifar10_smog", 780),
        recipe("cifar10_moco_v3", 2160),
        recipe("cifar10_mixed_barlow", 5100),
        Row("tests", "tests", 240),
    ]
    vit = ["backbone=vit_small", "train.batch_size=256", "dataset.image_size=224", "device.compile=true"]
    for method in ("simclr", "mae", "dino", "ibot", "dino_v2"):
        crops = ["method.plan.local=6"] if method in ("dino", "ibot", "dino_v2") else []
        words = [f"method={method}", "dataset=image_folder", *vit, *crops]
        found.append(Row(f"speed/{method} vit_small 224 px", "speed", 120, words, photos=True))
    return found + every_method()


def every_method() -> list[Row]:
    """The speed of each method for images at 32 pixels, as written and compiled."""
    from sslcli.config import modalities, registry

    paths = registry.choices("method")
    found = []
    for name in sorted(modalities.methods_for("image")):
        node = registry.describe(paths[name], "method")
        if node.get("needs"):
            continue
        backbone = "vit_tiny" if "positions" in node.get("requires", ()) else "resnet18"
        words = [f"method={name}", f"backbone={backbone}", *METHOD_WORDS]
        found.append(Row(f"method/{name} as written", "speed", 30, [*words, "device.compile=false"]))
        found.append(Row(f"method/{name} compiled", "speed", 75, [*words, "device.compile=true"]))
    return found


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "sslcli", *words]


def identity(row: Row) -> str:
    """Changes when what a row computes does."""
    from sslcli.config import compose
    from sslcli.runs.identity import config_hash
    from sslcli.training.configuration import resolve

    if row.kind != "accuracy":
        return " ".join(row.words)
    return config_hash(resolve(compose.compose("pretrain", [*row.words, "dataset.path=DATA", "device=cpu"])))


def pretrain(row: Row, options: argparse.Namespace, seconds: float) -> Path | None:
    """The finished run of a row; None where the time was over before it ended. RuntimeError where it failed."""
    folder = options.runs.resolve() / row.name.replace("/", "_").replace(" ", "_").replace(":", "")
    state = json.loads((folder / "status.json").read_text()) if (folder / "status.json").exists() else {}
    if state.get("status") == "done":
        return folder
    words = [*row.words, f"dataset.path={options.data.resolve()}", "train.save_every=2m", f"hydra.run.dir={folder}"]
    if any((folder / "checkpoints").glob("*/manifest.json")):
        words = []
    typed = command("resume", str(folder)) if not words else command("pretrain", *words)
    process = subprocess.Popen(typed, stdout=subprocess.DEVNULL)
    try:
        code = process.wait(max(seconds - STOP_S, 1))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        process.kill()
        return None
    if code:
        raise RuntimeError(f"exit code {code} ({folder.name}/log.txt)")
    return folder


def accuracies(folder: Path) -> dict[str, float]:
    """k-NN (k = 200 and 20, temperature 0.1) and linear probe, of the last epoch, on the test images and on a tenth of the training
    images that is held out of the classifiers (not of the pretraining)."""
    import torch
    from torch.nn import functional as F

    from sslcli.builders import load_dataset
    from sslcli.evals.base.features import EvalData
    from sslcli.evals.fit.linear_probe import fit_linear_probe
    from sslcli.evals.fit.neighbors import classify
    from sslcli.evals.inputs import label_subsets
    from sslcli.runs.encoder import load_encoder
    from sslcli.runs.run import Run

    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = Run.open(folder)
    data = EvalData(load_dataset(run.config), device, seed=0)
    backbone = load_encoder(folder)[0].eval().to(device)
    (x, y), (test, truth) = data.features(backbone, "train"), data.features(backbone, "test")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held, kept = order[: len(x) // 10], order[len(x) // 10 :]
    found = {}
    parts = {"test": (x, y, test, truth), "held_out": (x[kept], y[kept], x[held], y[held])}
    for part, (bank, labels, queries, classes) in parts.items():
        for k in (200, 20):
            voted = classify(F.normalize(bank, dim=1), labels, F.normalize(queries, dim=1), k, 0.1, device)
            found[f"{part}.knn{k}"] = float((voted == classes).double().mean())
        head = fit_linear_probe(bank, labels, label_subsets.parse("all", data.dataset), 0, device=device)
        found[f"{part}.probe"] = float((head.predict(queries) == classes).double().mean())
    return found


def measure(row: Row, options: argparse.Namespace, seconds: float) -> dict[str, Any] | None:
    """The figures of a row; None where the time was over."""
    began = time.time()
    if row.kind == "tests":
        typed = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
        done = subprocess.run(typed, cwd=ROOT, capture_output=True, text=True, check=False)
        return {"outcome": done.stdout.strip().splitlines()[-1], "seconds": round(time.time() - began)}
    if row.kind == "speed":
        path = options.photos / "train" if row.photos else options.data
        done = subprocess.run(
            command("bench", "--json", *row.words, f"dataset.path={path.resolve()}", "device=cuda"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return {"failed": done.stderr.strip().splitlines()[-1][:200]}
        result = json.loads(done.stdout)
        rates = {part: result[part]["samples_per_s"] for part in ("views", "model", "end_to_end") if part in result}
        return {**rates, "lost": result.get("lost"), "peak_memory_mb": result.get("peak_memory_mb")}
    try:
        folder = pretrain(row, options, seconds)
    except RuntimeError as error:
        return {"failed": str(error)}
    if folder is None:
        return None
    status = json.loads((folder / "status.json").read_text())
    figures = {"pretraining_seconds": round(status["seconds"], 1), "peak_memory_mb": status.get("peak_memory_mb")}
    return accuracies(folder) | figures


def save(known: dict[str, Any]) -> None:
    temporary = OUT.with_suffix(".tmp")
    temporary.write_text(json.dumps(known, indent=1) + "\n")
    os.replace(temporary, OUT)
    OUT.with_suffix(".md").write_text(page(known))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path(".data"))
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs/gpu_queue"))
    parser.add_argument("--minutes", type=float, default=13.0)
    parser.add_argument("--rows", default="", help="only rows whose names contain one of these, by commas")
    parser.add_argument("--photos", type=Path, help="a folder with train/CLASS/FILE, of rows at 224 pixels")
    parser.add_argument("--list", action="store_true", help="show what is open, and run nothing")
    parser.add_argument("--draw", action="store_true", help="draw the page again, and run nothing")
    options = parser.parse_args()
    known = json.loads(OUT.read_text()) if OUT.exists() else {"about": report.about([], "gpu_queue.py"), "rows": {}}
    if options.draw:
        return save(known)
    end = time.time() + 60 * options.minutes
    wanted = [part for part in options.rows.split(",") if part]
    for row in rows():
        if (wanted and not any(part in row.name for part in wanted)) or (row.photos and options.photos is None):
            continue
        key = identity(row)
        measured = known["rows"].get(row.name, {})
        if measured.get("identity") == key and not (wanted and "failed" in measured):
            continue
        left = end - time.time()
        if options.list:
            print(f"{row.seconds:>5} s  {row.name}")
        elif left > (LEAST_S if row.kind == "accuracy" else row.seconds):
            print(f"{row.name}: expected {row.seconds} s, {left:.0f} s left", flush=True)
            figures = measure(row, options, left)
            if figures is not None:
                known["rows"][row.name] = {"identity": key, "words": row.words, "kind": row.kind, **figures}
                save(known)
                print(f"{row.name}: {figures}", flush=True)
    return None


if __name__ == "__main__":
    main()
