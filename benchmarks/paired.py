"""Our training step against the one written by hand, step by step in turns, in one process.

    python benchmarks/paired.py [mae simclr simsiam] [--pairs 25]

Rounds of seconds (`throughput.py`) cannot tell a difference of a few percent on a machine whose speed wanders by thirty; the
ratio of two steps taken one after the other can. Writes docs/results/floors.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import floors, report, throughput  # noqa: E402

OUT = ROOT / "docs" / "results" / "floors.md"
WORDS = {
    "simclr": ["method=simclr", *throughput.RESNET, "train.batch_size=64"],
    "simsiam": ["method=simsiam", *throughput.RESNET, "train.batch_size=64"],
    "mae": ["method=mae", "augmentation=mae", "backbone=vit_tiny", "backbone.patch=4", "train.batch_size=256"],
}


def pairs(workload: str, count: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of each step, by contestant; the order is turned round each time."""
    from sslcli.training.benchmark import Parts
    from sslcli.training.loop.trainer import Trainer
    from sslcli.training.run_training import NullRun
    from sslcli.training.state import State

    options = argparse.Namespace(folder=folder, data="")
    job = throughput.job_of([*throughput.data_words(options), *WORDS[workload]])
    parts = Parts(job, Trainer(job, NullRun(folder), State()))
    contestants = {"sslcli": parts.model_step}
    for name, channels_last in (("contiguous", False), ("channels_last", True)):
        contestants[name] = floors.step(workload, job.loader.batch_size, channels_last, job.runtime.device)
    took: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(count + 1):
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            began = time.perf_counter()
            contestants[name]()
            if job.runtime.device.type == "cuda":
                import torch

                torch.cuda.synchronize()
            if turn:  # the first is a warm-up
                took[name].append(time.perf_counter() - began)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=list(WORDS))
    parser.add_argument("--pairs", type=int, default=25)
    options = parser.parse_args()
    about = report.about(sys.argv[1:], "paired.py")
    lines = [
        "# Step time",
        "",
        f"Made by `{about['command']}` on {about['machine']}, load of others {about['load'][0]}, {about['date']}; "
        f"torch {about['versions']['torch']}. One optimizer step on a batch in memory, in turns in one process;",
        "time by hand / time of sslcli (above 1: sslcli is faster), median and quartiles of the pairs. The hand-written steps are",
        "`benchmarks/floors.py`.",
        "",
        "| | sslcli, s per step | by hand, contiguous | by hand, channels_last |",
        "|---|--:|--:|--:|",
    ]
    for workload in options.workloads:
        with tempfile.TemporaryDirectory() as folder:
            took = pairs(workload, options.pairs, Path(folder))
        cells = [f"{median(took['sslcli']):.3f}"]
        for name in ("contiguous", "channels_last"):
            ratios = [other / own for own, other in zip(took["sslcli"], took[name], strict=True)]
            low, middle, high = quantiles(ratios, n=4)
            cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
        title = throughput.WORKLOADS[{"simclr": "w1", "simsiam": "w2", "mae": "w3"}[workload]][0]
        lines.append("| " + " | ".join([title, *cells]) + " |")
        print(lines[-1], flush=True)
    OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
