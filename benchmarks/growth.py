"""Does the time of a sample, or memory, grow with the data set? Resident arrays, folders of small JPEGs and packs of these, of
1,000 to a million samples, in one process and in two.

    python benchmarks/growth.py [--large] [--sizes 1000,10000] [--seconds 3] [--data arrays,folder,packed]

Random pictures of 32 x 32 in a temporary folder; SimCLR, batch 256, a network small enough not to hide the rest. Each line is a
`sslcli bench` of its own. Memory is what its processes have together, shared pages counted once (PSS). Prints a table in Markdown:
docs/results/growth.md holds the last one.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import report  # noqa: E402

SIZES, LARGE = (1_000, 10_000, 100_000), 1_000_000
HEAD = ("data", "samples", "processes", "µs a sample, end to end", "µs, views alone", "memory, MB", "ready after, s")


def arrays(root: Path, n: int) -> list[str]:
    """One .npy, written in parts: a million pictures are 3 GB."""
    path = root / f"{n}.npy"
    file = np.lib.format.open_memmap(path, "w+", np.uint8, (n, 32, 32, 3))
    generator = np.random.default_rng(0)
    for start in range(0, n, 10_000):
        part = file[start : start + 10_000]
        part[:] = generator.integers(0, 256, part.shape, dtype=np.uint8)
    file.flush()
    return ["dataset=arrays", f"dataset.path={path}", "dataset.holdout=0"]


def folder(root: Path, n: int) -> list[str]:
    """JPEGs in folders of 1,000, a hundred different ones over and over."""
    generator = np.random.default_rng(0)
    contents = []
    for _ in range(100):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "JPEG")
        contents.append(buffer.getvalue())
    if not (root / f"{n}").exists():
        for i in range(n):
            path = root / f"{n}" / f"{i // 1000:04d}" / f"{i:07d}.jpg"
            if i % 1000 == 0:
                path.parent.mkdir(parents=True)
            path.write_bytes(contents[i % 100])
    path = f"dataset.path={root / str(n)}"
    return ["dataset=image_folder", path, "dataset.holdout=0", "dataset.resident=false", "dataset.image_size=32"]


def packed(root: Path, n: int) -> list[str]:
    """The folder's files in one pack."""
    words, out = folder(root, n), root / f"{n}.pack"
    subprocess.run(
        [sys.executable, "-m", "sslcli", "data", "pack", *words[:3], f"out={out}"],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return ["dataset=pack", f"dataset.path={out}", *words[3:]]


def measured(words: list[str], processes: int, seconds: float, root: Path) -> tuple[float, float, float, float]:
    """Microseconds a sample end to end and of the views, the peak of memory in MB, seconds until all was built."""
    words = [
        *words,
        "method=simclr",
        "backbone=convnet",
        "backbone.width=8",
        "augmentation=simclr",
        "train.batch_size=256",
        "device=cpu",
    ]
    words += [f"train.devices={processes}", f"seconds={seconds}", "--json"]
    out, peak = root / "bench.json", 0.0
    with open(out, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "sslcli", "bench", *words],
            stdout=file,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=ROOT,
        )
        while process.poll() is None:
            peak = max(peak, memory_of_group(process.pid))
            time.sleep(0.3)
    if process.returncode:
        sys.exit(f"sslcli bench {' '.join(words)} ended with {process.returncode}")
    found = json.loads(out.read_text())
    whole, views = (1e6 / found[part]["samples_per_s"] for part in ("end_to_end", "views"))
    return whole, views, peak, found["startup"]["prepare"]


def memory_of_group(group: int) -> float:
    """MB of the processes of a process group together (Linux)."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == group:
                lines = (path / "smaps_rollup").read_text().splitlines()
                total += sum(float(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        except (OSError, ValueError):  # it has ended
            continue
    return total


MAKERS = {"arrays": arrays, "folder": folder, "packed": packed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="default: %(default)s")
    parser.add_argument("--large", action="store_true", help=f"{LARGE:,} too")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each part in each of 3 rounds")
    parser.add_argument("--data", default=",".join(MAKERS), help="default: %(default)s")
    parser.add_argument(
        "--root", help="where the data is made and removed again; default: the system's temporary folder"
    )
    parser.add_argument("--processes", default="1,2", help="default: %(default)s")
    options = parser.parse_args()
    sizes = [int(s) for s in options.sizes.split(",")] + ([LARGE] if options.large else [])
    about = report.about(sys.argv[1:], "growth.py")
    print(f"`{about['command']}` on {about['machine']}, {about['date']}, torch {about['versions']['torch']}.\n")
    print(f"| {' | '.join(HEAD)} |\n|---|{'--:|' * (len(HEAD) - 1)}")
    for n in sizes:
        with tempfile.TemporaryDirectory(dir=options.root) as name:  # the pack is of the folder that is there already
            for make in (MAKERS[word] for word in options.data.split(",")):
                words = make(Path(name), n)
                for processes in map(int, options.processes.split(",")):
                    numbers = measured(words, processes, options.seconds, Path(name))
                    cells = [make.__name__, f"{n:,}", str(processes), *map(report.number, numbers)]
                    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
