"""Whether a change is neutral: the bits of weights and the metrics of every evaluator, before and after.

    python benchmarks/neutral.py record before.json     (about five minutes on two cores)
    python benchmarks/neutral.py record after.json      (after the change)
    python benchmarks/neutral.py compare before.json after.json

`record` trains six methods with three seeds each for a few dozen steps on digits, on one thread of the processor: one on tokens
(mae), one with a queue (moco_v2), one with a momentum teacher (byol), one with a teacher and local views (dino), one with
negatives (simclr) and multitask. It keeps the SHA-256 of each encoder's tensors and of all weights of the last checkpoint. It
then runs every evaluator on a run that has what the evaluator needs, and keeps its metrics in full precision. `--times` also
measures the seconds of `--help`, `list` and of a first step. `compare` prints what differs and exits with 1 if anything does;
times are printed side by side and never fail.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
COMMON = [
    "dataset=digits",
    "device=cpu",
    "device.threads=1",
    "device.native=false",
    "train.batch_size=64",
    "train.eval_every=0",
    "train.epochs=null",
]
CONV = ["backbone=convnet", "backbone.width=8"]
TOKENS = ["backbone=vit_micro", "backbone.depth=2"]
METHODS = {
    "simclr": CONV,
    "moco_v2": [*CONV, "method.queue=256"],
    "byol": CONV,
    "dino": [*TOKENS, "method.prototypes=64"],
    "mae": TOKENS,
    "multitask": CONV,
}
SEEDS = (0, 1, 2)
STEPS = 40
EVALUATORS: dict[str, tuple[str, list[str]]] = {  # the run it measures, and its options
    "anomaly": ("simclr", []),
    "attentive": ("mae", ["evaluator.epochs=2", "evaluator.min_steps=300"]),
    "cluster": ("simclr", []),
    "explain": ("simclr", []),
    "finetune": ("simclr", ["labels=5/class", "evaluator.epochs=2", "evaluator.min_steps=300"]),
    "knn": ("simclr", []),
    "labels": ("simclr", ["evaluator.amounts=[1,10]", "evaluator.seeds=2", "evaluator.supervised=false"]),
    "probe": ("simclr", []),
    "quality": ("simclr", []),
    "reconstruct": ("mae", []),
    "retrieval": ("simclr", []),
    "robustness": ("simclr", []),
    "transfer": ("simclr", ["dataset=digits", "dataset.holdout=0.3"]),
}
VOLATILE = (
    "seconds",
    "time",
    "samples_per_s",
    "date",
    "path",
    "file",
    "sha256",
    "config_hash",
    "run",
    "command",
    "version",
    "host",
    "machine",
)


def sslcli(words: list[str], folder: Path) -> tuple[str, float]:
    """What it printed on stdout, and its seconds."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "sslcli", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"sslcli {' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout, time.perf_counter() - began


def digest(files: list[Path]) -> str:
    """SHA-256 of the names, types and bytes of all tensors in some safetensors files."""
    total = hashlib.sha256()
    for file in sorted(files):
        for name, tensor in sorted(load_file(file).items()):
            total.update(f"{file.name} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def metrics(node: Any, key: str = "") -> dict[str, float]:
    """All numbers of a result by their dotted keys, without those that depend on the machine or the clock."""
    if isinstance(node, bool) or node is None or isinstance(node, str):
        return {}
    if isinstance(node, int | float):
        return {key: float(node)}
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    kept = ((str(k), v) for k, v in pairs if not str(k).endswith(VOLATILE))
    return {inner: value for k, v in kept for inner, value in metrics(v, f"{key}.{k}" if key else k).items()}


def record(out: Path, with_times: bool) -> None:
    found: dict[str, Any] = {"torch": torch.__version__, "machine": platform.machine(), "weights": {}, "metrics": {}}
    with tempfile.TemporaryDirectory() as name:
        folder, runs = Path(name), {}
        for method, words in METHODS.items():
            for seed in SEEDS:
                command = [
                    "pretrain",
                    f"method={method}",
                    *COMMON,
                    *words,
                    f"train.steps={STEPS}",
                    f"seed={seed}",
                    "-q",
                ]
                run = folder / sslcli(command, folder)[0].strip().splitlines()[-1]
                runs.setdefault(method, run)
                last = max((run / "checkpoints").glob("step-*"))
                found["weights"][f"{method} seed {seed}"] = {
                    "encoder": digest([run / "encoder.safetensors"]),
                    "checkpoint": digest(list(last.glob("*.safetensors"))),
                }
                print(method, seed, found["weights"][f"{method} seed {seed}"]["encoder"][:16], flush=True)
        for evaluator, (method, words) in EVALUATORS.items():
            command = [
                "eval",
                evaluator,
                f"run={runs[method]}",
                "device=cpu",
                "device.threads=1",
                "device.native=false",
                *words,
                "--json",
                "-q",
            ]
            found["metrics"][evaluator] = metrics(json.loads(sslcli(command, folder)[0]))
            print(evaluator, len(found["metrics"][evaluator]), "metrics", flush=True)
        if with_times:
            found["seconds"] = times(folder)
    out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def times(folder: Path, rounds: int = 7) -> dict[str, float]:
    """Median seconds of commands that need no torch, and of a first step as a ratio to `import torch`."""
    taken: dict[str, list[float]] = {}
    step = [
        "pretrain",
        "backbone=resnet18",
        *COMMON[:3],
        "train.batch_size=64",
        "train.eval_every=0",
        "train.epochs=null",
        "train.steps=1",
        "-q",
    ]
    for _ in range(rounds):
        for name, words in {"--help": ["--help"], "list methods": ["list", "methods"], "one step": step}.items():
            taken.setdefault(name, []).append(sslcli(words, folder)[1])
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        taken.setdefault("import torch", []).append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return medians | {"one step / import torch": medians["one step"] / medians["import torch"]}


def compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Prints what differs; the number of differences."""
    flat = []
    for part in (before, after):
        flat.append({f"weights {k} {kind}": v for k, kinds in part["weights"].items() for kind, v in kinds.items()})
        flat[-1] |= {f"eval {name} {k}": v for name, values in part["metrics"].items() for k, v in values.items()}
    differing = [k for k in sorted(flat[0].keys() | flat[1].keys()) if flat[0].get(k) != flat[1].get(k)]
    for key in differing:
        print(f"{key}: {flat[0].get(key)} -> {flat[1].get(key)}")
    for name in sorted(before.get("seconds", {}).keys() & after.get("seconds", {}).keys()):
        print(f"{name}: {before['seconds'][name]:.2f} -> {after['seconds'][name]:.2f}")
    print(f"{len(flat[0])} values before, {len(flat[1])} after, {len(differing)} differ")
    return len(differing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    recording = parts.add_parser("record")
    recording.add_argument("out", type=Path)
    recording.add_argument("--times", action="store_true")
    comparing = parts.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    options = parser.parse_args()
    if options.part == "record":
        record(options.out, options.times)
    elif compare(json.loads(options.before.read_text()), json.loads(options.after.read_text())):
        sys.exit(1)


if __name__ == "__main__":
    main()
