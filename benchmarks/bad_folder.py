"""A folder of image files of which some are bad in every way we know of: what is found, how fast, and what a training does.

    python benchmarks/bad_folder.py [--files 10000] [--share 0.05] [--mutations 2000]

Prints a table in Markdown: docs/results/bad_data.md holds the last one. Fails (exit code 1) where a count is wrong.
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
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sslcli.data.sources.image_folder import image_folder
from tests.data.bad_files import BAD, decode_in_child, make_folder, mutated

SMALL = ["method=simsiam", "dataset=image_folder", "backbone=convnet", "backbone.width=8", "device=cpu"]
ROWS: list[tuple[str, str, str]] = []


def row(what: str, wanted: str, got: str, right: bool = True, exact: bool = True) -> None:
    """`exact`: a wrong one ends the script (a time may be missed on a busy machine)."""
    ROWS.append((what, wanted, got if right else f"**{got}**"))
    print(f"{'  ' if right else '! '}{what}: {got} (wanted: {wanted})", file=sys.stderr, flush=True)
    if exact and not right:
        sys.exit(f"{what} is wrong")


def sslcli(*words: str) -> tuple[int, str, str, float]:
    """Exit code, stdout, stderr and seconds of one command, started as a user starts it."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "sslcli", *words], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr, time.perf_counter() - began


def forget(root: Path) -> bool:
    """Asks the system to drop the folder's contents from its cache: a cold start, where that is allowed."""
    os.sync()
    for path in root.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("2")
        return True
    return False


def index(root: Path, truth: dict[str, str], files: int) -> None:
    dropped = forget(root)
    for state in ("cold", "warm"):
        for resident in (False, True):
            began, cpu = time.perf_counter(), time.process_time()
            d = image_folder(str(root), resident=resident, max_bad_fraction=1.0)
            took, cpu = time.perf_counter() - began, time.process_time() - cpu
            how = "all decoded into memory" if resident else "listed, a sample of headers read"
            note = "" if state == "warm" or dropped else ", names still cached"
            row(
                f"index {files:,} files, {state}, {how}",
                "< 5 s",
                f"{took:.1f} s ({cpu:.1f} s of processor time){note}",
                took < 5,
                exact=False,
            )
            if resident and state == "warm":
                found = len(d.details["bad"])
                row("bad found while indexing into memory", f"{len(truth):,}", f"{found:,}", found == len(truth))


def inspect(root: Path, truth: dict[str, str], files: int) -> None:
    for resident in ("false", "true"):
        code, out, _, took = sslcli(
            "data",
            "inspect",
            "dataset=image_folder",
            f"dataset.path={root}",
            f"dataset.resident={resident}",
            "--strict",
            "--json",
        )
        report = json.loads(out)
        found = {b["name"] for b in report["bad"]}
        row(
            f"`data inspect --strict`, resident={resident}",
            f"{len(truth):,} bad of {files:,}, the names equal",
            f"{len(found):,} of {report['limit']['of']:,}, {'equal' if found == set(truth) else 'different'}, "
            f"{len(report['reasons'])} reasons, {took:.1f} s with start-up",
            found == set(truth) and report["limit"]["of"] == files,
        )
        row(f"its exit code, resident={resident}", "7", str(code), code == 7)


def pretrain(root: Path, files: int, share: float, runs: Path) -> None:
    os.environ["SSLCLI_RUNS"] = str(runs)
    batch = min(256, files // 8)
    for resident in ("false", "true"):
        words = [
            *SMALL,
            f"dataset.path={root}",
            f"dataset.resident={resident}",
            f"train.batch_size={batch}",
            "dataset.image_size=32",
        ]
        code, _, err, took = sslcli("pretrain", *words, "train.epochs=1", "device.workers=2")
        row(
            f"pretrain, default limit, resident={resident}", "exit code 7", f"exit code {code}, {took:.1f} s", code == 7
        )
        assert "cannot be read, more than 1.0%" in err, err
        limit = f"dataset.max_bad_fraction={share * 1.5:g}"
        code, out, err, took = sslcli("pretrain", *words, limit, "train.epochs=1", "device.workers=2")
        row(
            f"pretrain, {limit}, one epoch, resident={resident}",
            "exit code 0",
            f"exit code {code}, {took:.1f} s",
            code == 0,
        )
        status = json.loads((Path(out.strip().splitlines()[-1]) / "status.json").read_text())
        assert status["status"] == "done", status


def fuzz(n: int, folder: Path) -> None:
    began = time.perf_counter()
    results = decode_in_child(mutated(folder, n, seed=1), timeout=60 + n / 5)
    counts = Counter(result for _, _, result, _ in results)
    slowest = max(seconds for *_, seconds in results)
    row(
        f"{n:,} mutated JPEG, PNG, GIF, TIFF, WebP, BMP, header and pixels, in a child",
        "no crash, nothing but BadImage",
        ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
        + f", {time.perf_counter() - began:.1f} s",
        set(counts) <= {"good", "bad"} and len(results) == 2 * n,
    )
    row("the slowest of them", "< 2 s", f"{slowest:.2f} s", slowest < 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--mutations", type=int, default=2_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root, runs = Path(name) / "images", Path(name) / "runs"
        truth = make_folder(root, given.files, given.share)
        row("files, of which bad, in how many ways", "", f"{given.files:,}, {len(truth):,}, {len(BAD)}")
        index(root, truth, given.files)
        inspect(root, truth, given.files)
        pretrain(root, given.files, given.share, runs)
        fuzz(given.mutations, Path(name) / "mutated")
    print("| quantity | expected | measured |\n|---|---|---|")
    for cells in ROWS:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
