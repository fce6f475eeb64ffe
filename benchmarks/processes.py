"""One process against two: loss, gradient, one optimizer step, and all buffers after a second, of every method.

    python benchmarks/processes.py [--write]        (--write: docs/results/processes.md)

Double precision, digits, batches of 16 (8 on each of two processes), gloo; the same seeds, so the same weights and views.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sslcli.config import compose, registry  # noqa: E402
from sslcli.runtime import processes  # noqa: E402
from sslcli.training.configuration import resolve  # noqa: E402
from tests.runtime import training_worker  # noqa: E402

COLUMNS = {
    "loss": "loss",
    "gradient": "gradient",
    "after one step": "step",
    "after two, with teachers and buffers": "after",
}


def configurations(world_size: int) -> dict[str, dict]:
    words = ["experiment=smoke", "device=cpu", "device.threads=1", "train.batch_size=16", f"train.devices={world_size}"]
    cfgs = {}
    for method in sorted(registry.choices("method")):
        size = [] if method == "mae" else ["backbone.width=8"]
        cfgs[method] = resolve(compose.compose("pretrain", [f"method={method}", *words, *size]))
        sharded = [
            *words,
            *size,
            "optimizer=adamw",
            "optimizer.lr=1e-3",
            *(["train.strategy=fsdp"] if world_size > 1 else []),
        ]
        cfgs[f"{method}, fsdp, AdamW"] = resolve(compose.compose("pretrain", [f"method={method}", *sharded]))
    return cfgs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for world_size in (1, 2):
            payload = {"cfgs": configurations(world_size), "out": f"{folder}/{world_size}.pt"}
            with processes.launch(
                processes.ProcessInfo(0, world_size, 0, world_size), torch.device("cpu"), payload, training_worker.work
            ):
                training_worker.work(payload)
            results[world_size] = torch.load(payload["out"], weights_only=True)
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---|" + "--:|" * len(COLUMNS)]
    for name, one in results[1].items():
        two = results[2][name]
        worst = {
            title: max(float((one[k].double() - two[k].double()).abs().max()) for k in one if k.startswith(prefix))
            for title, prefix in COLUMNS.items()
        }
        assert worst["loss"] <= 1e-12, (name, worst)
        assert worst["gradient"] <= 1e-11, (name, worst)
        lines.append(f"| {name} | " + " | ".join(f"{v:.1e}" for v in worst.values()) + " |")
    table = "\n".join(lines)
    print(table)
    if args.write:
        text = f"""# One and two processes

Made by `python benchmarks/processes.py --write`, torch {torch.__version__}, {date.today()}. The largest absolute
difference between one process and two (gloo, 8 of 16 samples each), in double precision. Losses, batch norm and queues
mean the global batch; `fsdp`: weights and optimizer are sharded. `tests/runtime/test_processes.py` holds the same for every
method, and that 1, 2 and 4 processes see the same pixels.

"""
        (ROOT / "docs" / "results" / "processes.md").write_text(text + table + "\n")


if __name__ == "__main__":
    main()
