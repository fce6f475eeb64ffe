"""SIGKILL at random instants of the commands that write beside a training: evaluations, report, export, pack, select, pipeline.

    python benchmarks/kill_commands.py --kills 200 [--commands knn,labels,report,export,pack,select,pipeline] [--seed 0]

Each command runs once undisturbed; what it printed and every file it left is the reference. Then it runs again from the same start,
is killed after a random part of its life, and after each kill every file that has its final name must be equal to the reference's:
a reader never takes a part for the whole. It is run again until it ends by itself (three kills at most), and everything it printed
and left must equal the reference. Times, process ids and host names are left out. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch is imported
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from zygote import preload, spawn  # noqa: E402

SMALL = ["experiment=smoke", "device=cpu", "device.threads=1", "backbone.width=8", "train.save_every=2"]
COMMANDS = {
    "knn": ["eval", "knn", "run=trained"],
    "probe": ["eval", "probe", "run=trained", "evaluator.baselines=false"],
    "labels": ["eval", "labels", "run=trained", "evaluator.epochs=1", "evaluator.min_steps=2", "evaluator.max_steps=2"],
    "cluster": ["eval", "cluster", "run=trained"],
    "report": ["runs", "report", "trained"],
    "export": ["export", "trained", "out=exported"],
    "pack": ["data", "pack", "dataset=image_folder", "dataset.path=photos", "out=photos.pack", "size=24"],
    "select": ["select", "trained"],
    "pipeline": ["pipeline", *SMALL, "seed=1", "stages=[knn,cluster]", "resume=auto"],
}
VOLATILE_FILES = ("log.txt", "events.jsonl", "status.json", ".lock", "metrics.jsonl", "state.json", "manifest.json")
VOLATILE_KEYS = ("time", "seconds", "metrics_bytes", "made", "wall_s", "train/samples_per_s", "train/data_wait")
STAMP = re.compile(r"\d{4}-\d\d-\d\d[_T ]\d\d[-:]\d\d(?:[-:]\d\d)?(?:[-.]\d+)?")
NUMBER = re.compile(r"\d[\d.,]*")
DURATION = re.compile(r"\b\d+(?:\.\d+)? ?(?:s|ms|seconds|samples/s)\b|\b\d+m\d\ds\b")


@dataclass
class Tally:
    command: str
    tries: int = 0
    kills: int = 0
    partial: int = 0  # files under their final name that differ from the reference
    unlike: int = 0  # ends that differ from the reference
    failed: int = 0  # exit codes other than 0 when run again
    where: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------------ what a command left


def stable(value: Any) -> Any:
    """JSON without what differs from one run to the next."""
    if isinstance(value, dict):
        return {k: stable(v) for k, v in value.items() if k not in VOLATILE_KEYS}
    return [stable(v) for v in value] if isinstance(value, list) else value


def text_without_times(text: str, home: Path) -> str:
    text = text.replace(str(home), "HOME").replace(home.name, "HOME")
    return DURATION.sub("T", STAMP.sub("D", text))


def digest(path: Path, home: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".json":
        try:
            value = stable(json.loads(content))
        except ValueError:
            return "unreadable"
        content = text_without_times(json.dumps(value, sort_keys=True), home).encode()
    elif path.suffix == ".html":  # it shows measured speeds and times: every number is left out
        content = NUMBER.sub("0", text_without_times(content.decode("utf-8", "replace"), home)).encode()
    elif path.suffix in (".yaml", ".jsonl"):
        content = text_without_times(content.decode("utf-8", "replace"), home).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def left(home: Path) -> dict[str, str]:
    """Digest of each file that has its final name: not hidden, not in a folder of parts."""
    found = {}
    for path in sorted(home.rglob("*")):
        parts = path.relative_to(home).parts
        temporary = any(p.startswith(".") or p.endswith((".part", ".tmp")) or p.startswith(".bad") for p in parts)
        if path.is_file() and not path.is_symlink() and not temporary and path.name not in VOLATILE_FILES:
            found["/".join(STAMP.sub("D", p) for p in parts)] = digest(path, home)
    return found


def printed(home: Path) -> str:
    return text_without_times((home / ".stdout").read_text(errors="replace"), home)


# ---------------------------------------------------------------------------------------------------------------- the hunt


def start(home: Path, command: str) -> int:
    (home / ".stdout").unlink(missing_ok=True)

    def split_streams() -> None:
        """stdout, which is data, into a file of its own."""
        fd = os.open(home / ".stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(fd, 1)

    return spawn(COMMANDS[command], home, home / ".log", split_streams)


def run(home: Path, command: str) -> tuple[int, float]:
    """Exit code and seconds of the undisturbed command."""
    began = time.monotonic()
    _, status = os.waitpid(start(home, command), 0)
    return os.waitstatus_to_exitcode(status), time.monotonic() - began


def killed(home: Path, command: str, delay: float) -> bool:
    """Whether the kill came before the end."""
    pid = start(home, command)
    time.sleep(delay)
    ended, _ = os.waitpid(pid, os.WNOHANG)
    if ended:
        return False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def template(root: Path) -> Path:
    """A folder with a trained run and photographs of noise."""
    import numpy as np
    from PIL import Image

    home = root / "template"
    (home / "photos" / "a").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for i in range(80):
        Image.fromarray(draw.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(home / "photos" / "a" / f"{i}.png")
    pid = spawn(["pretrain", *SMALL, "hydra.run.dir=runs/trained"], home, home / ".log")
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit((home / ".log").read_text()[-3000:])
    pid = spawn(["eval", "cluster", "run=trained"], home, home / ".log")  # something for the report to show
    os.waitpid(pid, 0)
    return home


def fresh(root: Path, start_of: Path, name: str) -> Path:
    home = root / name
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(start_of, home, symlinks=True)
    return home


def hunt(root: Path, base: Path, tally: Tally, kills: int, dice: random.Random) -> None:
    home = fresh(root, base, "home")
    code, life = run(home, tally.command)
    if code:
        raise SystemExit(f"{tally.command}: exit {code}\n{(home / '.log').read_text()[-3000:]}")
    reference, said = left(home), printed(home)
    while tally.kills < kills:
        home = fresh(root, base, "home")
        tally.tries += 1
        for _ in range(3):
            if tally.kills >= kills or not killed(home, tally.command, dice.uniform(0, 1.05 * life)):
                break
            tally.kills += 1
            for path, found in left(home).items():
                if reference.get(path) != found:
                    tally.partial += 1
                    tally.where.append(path)
        code, _ = run(home, tally.command)
        tally.failed += code != 0
        if code:
            tally.where.append((home / ".log").read_text()[-600:])
        elif left(home) != reference or printed(home) != said:
            tally.unlike += 1
            after = left(home)
            tally.where += [p for p in sorted({*after, *reference}) if after.get(p) != reference.get(p)] or ["stdout"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    preload()
    chosen = options.commands.split(",")
    dice = random.Random(options.seed)
    tallies = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        root = Path(folder)
        base = template(root)
        for i, command in enumerate(chosen):
            share = options.kills // len(chosen) + (i < options.kills % len(chosen))
            tallies.append(Tally(command))
            hunt(root, base, tallies[-1], share, dice)
            print(tallies[-1], file=sys.stderr, flush=True)
    heads = [
        "command",
        "tries",
        "kills",
        "partial files under a final name",
        "failed when run again",
        "unlike the reference",
    ]
    print("| " + " | ".join(heads) + " |\n|---|" + "--:|" * (len(heads) - 1))
    for t in tallies:
        print(f"| {t.command} | {t.tries} | {t.kills} | {t.partial} | {t.failed} | {t.unlike} |")
    keys = ("tries", "kills", "partial", "failed", "unlike")
    print("| all | " + " | ".join(str(sum(getattr(t, k) for t in tallies)) for k in keys) + " |")
    return int(any(t.partial or t.unlike or t.failed for t in tallies))


if __name__ == "__main__":
    sys.exit(main())
