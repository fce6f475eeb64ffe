"""How fast: the data path, training steps, evaluation and start-up, against the floor of the machine and against peers.

    python benchmarks/throughput.py                                all but w5's photographs
    python benchmarks/throughput.py w1 w5 --peers lightly,tutorial --photos FOLDER --repeats 5 --seconds 5
    python benchmarks/throughput.py w1 device=cuda train.batch_size=512

    w1 w2 w3   SimCLR and SimSiam (ResNet-18, small stem, batch 64), MAE (ViT-Tiny, patch 4, batch 256) at 32 x 32
    small tiny SimCLR on the small convolutional network at 32 x 32, batch 256; on the smallest, where views count most
    w5         two SimCLR views on one core: 32 x 32 from memory, 224 from JPEG files (--photos)
    evaluation 60,000 x 512 features, 10 classes, 10,000 queries: probe, kNN, k-means
    startup    --help, list, from the start of the process to the first optimizer step

CIFAR-10 where $SSLCLI_DATA has it, else random bytes. Contestants take turns; each number is the median of the rounds.
Peers that are not installed are left out and named. Each workload is a process of its own. What was measured goes into
docs/results/throughput.json, where it replaces what stood there of the same workload, and docs/results/throughput.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import report  # noqa: E402
from benchmarks.evaluation import evaluation  # noqa: E402

OUT = ROOT / "docs" / "results" / "throughput.json"
Row = dict[str, Any]  # name, value, low, high
Options = argparse.Namespace


# ------------------------------------------------------------------------------------------------------------ workloads


def training(words: list[str], floor: str | None, options: Options) -> list[Row]:
    """Our floor, floors written by hand, the trainer, and the same network fed by each peer, in turns."""
    from benchmarks import floors, peers
    from sslcli.methods.base import Batch
    from sslcli.training.benchmark import Part, Parts
    from sslcli.training.loop.trainer import Trainer
    from sslcli.training.run_training import NullRun
    from sslcli.training.state import State

    job = job_of([*data_words(options), *words, *options.overrides])
    device, batch, recipe = job.runtime.device, job.loader.batch_size, "mae" if floor == "mae" else "simclr"
    parts = Parts(job, Trainer(job, NullRun(options.folder), State()))
    parts.round(options.seconds)
    memory = job.runtime.peak_memory_mb()  # before others add theirs
    for own in (parts.model, parts.views, parts.whole):
        own.rates.clear()
    by_hand = {}
    for name, channels_last in (("contiguous", False), ("channels_last", True)) if floor else ():
        once = floors.step(str(floor), batch, channels_last, device)
        by_hand[f"by hand, model alone, {name}"] = Part(lambda _, once=once: once(), batch)

    def fed(stream: Iterator[list[Any]]) -> None:
        views = next(stream)
        parts.batches = [Batch(views, like.kinds, like.draw, like.labels)]
        parts.model_step()

    like = parts.batches[0]
    sets = peer_sets(job, recipe, options)
    of_peers = {name: (Part(fed, batch), Part(lambda stream: next(stream), batch)) for name in sets}
    workers = max(1, job.runtime.workers)
    for _ in range(options.repeats):
        for part in by_hand.values():
            part.run_round(None, options.seconds, device)
        for name, (whole, views) in of_peers.items():
            with peers.stream(sets[name], batch, workers, device) as stream:
                views.run_round(stream, options.seconds, device, warmup=1 + workers)
                whole.run_round(stream, options.seconds, device)
        parts.batches = [like]
        parts.round(options.seconds)
    rows = [row("sslcli, model alone (floor)", parts.model), *(row(name, part) for name, part in by_hand.items())]
    rows += [row("sslcli, end to end", parts.whole)]
    rows += [row(f"the same network fed by {name}", whole) for name, (whole, _) in of_peers.items()]
    rows += [row("sslcli, views alone", parts.views)]
    rows += [row(f"{name}, views alone, {workers} workers", views) for name, (_, views) in of_peers.items()]
    rows += [{"name": "peak memory of sslcli, model alone, MB", "value": parts.model_memory}]
    rows += [{"name": "peak memory of sslcli, end to end, MB", "value": memory}]
    return rows


RESNET = ["backbone=resnet18", "backbone.stem=small"]


def w1(options: Options) -> list[Row]:
    return training(["method=simclr", *RESNET, "train.batch_size=64"], "simclr", options)


def w2(options: Options) -> list[Row]:
    return training(["method=simsiam", *RESNET, "train.batch_size=64"], "simsiam", options)


def w3(options: Options) -> list[Row]:
    words = ["method=mae", "augmentation=mae", "backbone=vit_tiny", "backbone.patch=4", "train.batch_size=256"]
    return training(words, "mae", options)


def small(options: Options) -> list[Row]:
    return training(["method=simclr", "backbone=convnet", "train.batch_size=256"], None, options)


def tiny(options: Options) -> list[Row]:
    words = ["method=simclr", "backbone=convnet", "backbone.width=4", "backbone.blocks=1", "train.batch_size=256"]
    return training(words, None, options)


def w5(options: Options) -> list[Row]:
    """On one core: one thread, no worker; and libraries with threads of their own are held to it too."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = views_alone("32 x 32 from memory", data_words(options), 256, options)
    if options.photos is not None:
        photos = ["dataset=image_folder", f"dataset.path={options.photos}", "dataset.image_size=224"]
        rows += views_alone("224 from JPEG", [*photos, "dataset.resident=false"], 32, options)
    return rows


def views_alone(what: str, data: list[str], batch: int, options: Options) -> list[Row]:
    import torch

    from benchmarks import peers
    from sslcli.training.benchmark import Part

    one = ["device.threads=1", "device.workers=0", f"train.batch_size={batch}"]
    job = job_of(["method=simclr", "backbone=convnet", "augmentation=simclr", *data, *one, *options.overrides])
    device, sets = torch.device("cpu"), peer_sets(job, "simclr", options)
    ours = Part(lambda stream: next(stream), batch)
    parts = {name: Part(lambda stream: next(stream), batch) for name in sets}
    for _ in range(options.repeats):
        with contextlib.closing(job.loader.stream()) as stream:
            ours.take(stream, options.seconds, job.runtime.device)
        for name, part in parts.items():
            with peers.stream(sets[name], batch, 0, device) as stream:
                part.run_round(stream, options.seconds, device)
    return [row(f"{what}: sslcli", ours), *(row(f"{what}: {name}", part) for name, part in parts.items())]


def startup(options: Options) -> list[Row]:
    """Seconds, from the start of a process to its end, or to the first line of metrics.jsonl. With bytecode on the disk, as
    installed packages have it: torch's is there, and ours may be."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def run(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, env=kept, **quiet)

    def first_step(*own: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            words = ["-m", "sslcli", "pretrain", "train.epochs=null", "train.steps=1", "train.eval_every=0"]
            command = [sys.executable, *words, *own, *options.overrides]
            process = subprocess.Popen(command, env=kept | {"SSLCLI_RUNS": folder}, **quiet)
            while not any(p.stat().st_size for p in Path(folder).glob("*/metrics.jsonl")) and process.poll() is None:
                time.sleep(0.005)
            took.append(time.perf_counter())
            assert process.wait() == 0

    took: list[float] = []
    words = {"sslcli --help": ["--help"], "sslcli list methods": ["list", "methods"], "sslcli runs": ["runs"]}
    os.chdir(ROOT)
    contestants: dict[str, Callable[[], object]] = {"python -c 'import torch'": lambda: run("-c", "import torch")}
    for name, argv in words.items():
        contestants[name] = lambda argv=argv: run("-m", "sslcli", *argv)  # type: ignore[misc]
    contestants["sslcli pretrain (digits), to the end of the first step"] = first_step
    resnet = ["method=simclr", *RESNET, "train.batch_size=8", *data_words(options)]
    contestants["SimCLR, ResNet-18, batch 8, 32 x 32, likewise"] = lambda: first_step(*resnet)
    return report.seconds_of(contestants, options.repeats, ends=took)


WORKLOADS: dict[str, tuple[str, str, Callable[[Options], list[Row]]]] = {  # name -> title, unit, function
    "w1": ("W1: SimCLR, ResNet-18 with a small stem, 32 x 32, batch 64", "samples/s", w1),
    "w2": ("W2: SimSiam, ResNet-18 with a small stem, 32 x 32, batch 64", "samples/s", w2),
    "w3": ("W3: MAE, ViT-Tiny with patches of 4, 32 x 32, batch 256", "samples/s", w3),
    "small": ("SimCLR, the small convolutional network, 32 x 32, batch 256", "samples/s", small),
    "tiny": ("SimCLR, the same of width 4 with one convolution a stage", "samples/s", tiny),
    "w5": ("W5: two SimCLR views of a sample, on one core", "samples/s", w5),
    "evaluation": ("Evaluation: 60,000 x 512 features, 10 classes, 10,000 queries", "s", evaluation),
    "startup": ("Start-up", "s", startup),
}


# -------------------------------------------------------------------------------------------------------------- helpers


def data_words(options: Options) -> list[str]:
    """CIFAR-10, or random bytes of its shape."""
    root = Path(os.environ.get("SSLCLI_DATA", ".data"))
    if any(root.glob("**/cifar-10-batches-py")) or any(root.glob("**/cifar-10-python.tar.gz")):
        options.data = "CIFAR-10"
        return ["dataset=cifar10"]
    import numpy as np

    options.data = "random bytes"
    print("no CIFAR-10 below $SSLCLI_DATA: random bytes", file=sys.stderr)
    path = options.folder / "random.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (20_000, 32, 32, 3), dtype=np.uint8))
    return ["dataset=arrays", f"dataset.path={path}"]


def job_of(words: list[str]) -> Any:
    from sslcli.config.compose import compose
    from sslcli.training.configuration import resolve
    from sslcli.training.setup import prepare

    return prepare(resolve(compose("pretrain", words)))


def peer_sets(job: Any, recipe: str, options: Options) -> dict[str, Any]:
    """The data set as each installed peer reads it; tried on one sample."""
    from benchmarks.peers import PEERS, Pictures

    found: dict[str, Any] = {}
    for name in options.peers:
        try:
            transform = PEERS[name](recipe, job.dataset.shape[1], job.dataset.values.mean, job.dataset.values.std)
        except ImportError as e:
            print(f"{name} is left out: {e}", file=sys.stderr)
            continue
        found[name] = Pictures(job.dataset.pretrain, transform)
        views = found[name][0]
        assert [tuple(v.shape) for v in views] == job.views.shapes, (name, [v.shape for v in views])
    return found


def row(name: str, part: Any) -> Row:
    told = part.told()
    return {"name": name, "value": told["samples_per_s"], "low": told["min"], "high": told["max"]}


def main() -> None:
    from benchmarks.peers import PEERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help=f"{', '.join(WORKLOADS)} (default: all), and key=value for sslcli")
    parser.add_argument("--peers", default=",".join(PEERS), help="default: %(default)s; those installed are used")
    parser.add_argument("--photos", type=Path, help="a folder of photographs, for w5")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a contestant in a round")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args()
    options.overrides = [w for w in options.words if "=" in w]
    wanted = [w for w in options.words if "=" not in w] or list(WORKLOADS)
    options.peers = [p for p in options.peers.split(",") if p]
    for given, known in ((wanted, WORKLOADS), (options.peers, PEERS)):
        if unknown := set(given) - set(known):
            parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    if options.child is not None:
        with tempfile.TemporaryDirectory() as folder:
            options.folder = Path(folder)
            options.data = None
            rows = WORKLOADS[wanted[0]][2](options)
            options.child.write_text(json.dumps({"rows": rows, "data": options.data}))
        return
    flags = ["--peers", ",".join(options.peers), "--repeats", str(options.repeats), "--seconds", str(options.seconds)]
    flags += ["--photos", str(options.photos.resolve())] if options.photos else []
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            typed = ["FOLDER" if word == str(options.photos) else word for word in sys.argv[1:]]
            head, result = report.about(typed), Path(folder, f"{name}.json")
            words = [name, *options.overrides, *flags, "--child", str(result)]
            subprocess.run([sys.executable, __file__, *words], check=True)
            found[name] = {"about": head, **json.loads(result.read_text())}
            print("\n".join([f"\n{WORKLOADS[name][0]}", *report.table(found[name]["rows"])]), flush=True)
    report.write(OUT, found, {name: title_and_unit[:2] for name, title_and_unit in WORKLOADS.items()})


if __name__ == "__main__":
    main()
