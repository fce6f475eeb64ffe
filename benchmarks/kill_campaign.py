"""SIGKILL at random instants of real pretrainings that save every step; each is resumed until done and compared, bit for bit,
with a run that nobody interrupted.

    python benchmarks/kill_campaign.py --kills 200 [--methods moco_v2,byol,mae,simsiam] [--seed 0] [--json FILE]
    python benchmarks/kill_campaign.py --kills 100 --methods mlm@capitals,byol@tones,scarf@breast_cancer,ts2vec@series

A method is trained on digits, or on the data set after `@`; `series` are random walks that the script writes.

A try is a fork of a process that has imported torch and computed nothing (see zygote.py), killed after a delay drawn
from a seeded generator: anywhere in its life, or, three times in four, anywhere in its training. After each kill: a
checkpoint verifies, status.json is whole, every line of metrics.jsonl but a torn last one parses. At the end: weights,
teacher, optimizer, counters, metrics (without times and rates) and the encoder equal the unbroken run's. Exit code 1 if
anything does not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch is imported
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

from zygote import outcome, preload, spawn  # noqa: E402

COMMON = ["device=cpu", "device.threads=1", "train.save_every=1", "logger.log_every=4"]
SMALL = {
    "mae": ["backbone.width=32", "backbone.depth=2"],
    "moco_v2": ["backbone.width=8", "method.queue=256"],  # filled after 8 steps of 32
    "mlm": ["backbone.width=32", "backbone.depth=1", "backbone.dropout=0.1"],
    "ts2vec": ["backbone.width=8", "backbone.depth=3", "backbone.out=16"],
    "scarf": ["backbone.width=32"],
}
BATCH = {"digits": 478, "capitals": 900, "tones": 150, "breast_cancer": 150, "series": 150}  # three steps an epoch
SHAPES = {  # of a run
    "steps": ["train.steps=24", "train.batch_size=32", "train.eval_every=0"],
    "evaluations": ["train.steps=12", "train.eval_every=1"],
    "accumulation": ["train.steps=24", "train.batch_size=32", "train.eval_every=0", "train.accumulate=2"],
    "short": ["train.steps=6", "train.eval_every=1"],
}


@dataclass
class Tally:
    method: str
    shape: str
    runs: int = 0
    kills: int = 0
    before_the_first_save: int = 0
    in_a_save: int = 0
    in_an_evaluation: int = 0
    unreadable: int = 0  # newest checkpoint does not verify
    lost: int = 0  # none verifies, though there was one
    torn: int = 0  # status or metrics that cannot be read
    identical: int = 0


class Whole(NamedTuple):
    """The run that nobody interrupts."""

    outcome: dict[str, Any]
    life: float  # seconds, from the fork to its end
    training: float  # seconds of steps, saves and evaluations


def words(kind: str, shape: str, root: Path) -> list[str]:
    """`kind`: a method, or METHOD@DATASET."""
    method, _, data = kind.partition("@")
    given = [f"method={method}", f"dataset={data or 'digits'}", *COMMON, *SMALL.get(method, ["backbone.width=8"])]
    if data == "series":
        given += [f"dataset.path={walks(root)}", "train.epochs=null"]
    if not any(word.startswith("train.batch_size") for word in SHAPES[shape]):
        given.append(f"train.batch_size={BATCH[data or 'digits']}")
    return [*given, *SHAPES[shape]]


def walks(root: Path) -> Path:
    """A file of 480 random walks of two channels and 40 steps, in four classes of different drift."""
    import numpy as np

    path = root / "walks.npz"
    if not path.exists():
        y = np.arange(480) % 4
        steps = np.random.default_rng(0).normal(size=(480, 2, 40)) + 0.2 * y[:, None, None]
        np.savez(path, x=steps.cumsum(axis=2).astype(np.float32), y=y)
    return path


# -------------------------------------------------------------------------------------------------------- what a run left


def run_folder(home: Path) -> Path | None:
    """The run that has begun, if one has: with a configuration, so that it can be resumed."""
    found = sorted((home / "runs").glob("2*/config.yaml"))
    return found[-1].parent if found else None


def inspect(run: Path, tally: Tally) -> None:
    """After a kill: what lies there must do."""
    from sslcli.runs import checkpoint

    folder = run / "checkpoints"
    found = [checkpoint.verify(path) for path in checkpoint.existing(folder)]
    tally.unreadable += bool(found) and found[0] is not None
    tally.lost += bool(found) and all(found)
    tally.before_the_first_save += not found
    tally.in_a_save += any(any(run.glob(p)) for p in ("checkpoints/.t*", "checkpoints/.last*", ".encoder*"))
    try:
        json.loads((run / "status.json").read_bytes())
        lines = (run / "metrics.jsonl").read_bytes().split(b"\n")[:-1] if (run / "metrics.jsonl").exists() else []
        parsed = [json.loads(line) for line in lines]
    except ValueError:
        tally.torn += 1
        return
    if (
        tally.shape in ("evaluations", "short") and parsed and found
    ):  # saved, and the numbers of that epoch are not there yet
        step = int(checkpoint.existing(folder)[0].name.removeprefix("step-"))
        measured = any("eval/spread" in line and line["step"] == step for line in parsed)
        tally.in_an_evaluation += step > 0 and step % 3 == 0 and not measured


# ---------------------------------------------------------------------------------------------------------------- the hunt


def attempt(home: Path, method: str, shape: str, delay: float = math.inf, late: bool = False) -> int:
    """One command, as a user would type it, killed after `delay` seconds: of its life, or (`late`) of its training."""
    run = run_folder(home)
    argv = ["resume", str(run)] if run else ["pretrain", *words(method, shape, home.parent)]
    before = traces(home)
    pid = spawn(argv, home, home / "words.txt")
    began = math.inf if late else time.monotonic()
    while time.monotonic() - began < delay:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
        if began == math.inf and traces(home) != before:
            began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def traces(home: Path) -> Any:
    """What changes when a run begins or goes on: its folder, or the line that says `resumed`."""
    run = run_folder(home)
    events = run / "events.jsonl" if run else None
    return run, events.stat().st_size if events and events.exists() else 0


def finish(home: Path, method: str, shape: str) -> None:
    code = attempt(home, method, shape)
    if code:
        raise SystemExit(f"{method}, {shape}: exit {code}\n{(home / 'words.txt').read_text()[-3000:]}")


def hunt(root: Path, tally: Tally, kills: int, whole: Whole, dice: random.Random) -> None:
    """One run, killed until it gets through or the kills are spent, and compared. One kill in four may come while it starts."""
    home = root / f"{tally.method}-{tally.shape}-{tally.runs}"
    home.mkdir()
    tally.runs += 1
    for _ in range(kills):
        late = dice.random() < 0.75
        delay = dice.uniform(0.0, 0.7 * whole.training if late else whole.life)
        code = attempt(home, tally.method, tally.shape, delay, late)
        if code == 0:
            break
        if code != -signal.SIGKILL:
            raise SystemExit(f"{tally.method}, {tally.shape}: exit {code}\n{(home / 'words.txt').read_text()[-3000:]}")
        tally.kills += 1
        if run := run_folder(home):
            inspect(run, tally)
    else:
        finish(home, tally.method, tally.shape)
    run = run_folder(home)
    assert run is not None
    same = outcome(run) == whole.outcome
    tally.identical += same
    if same:
        shutil.rmtree(home)
    else:
        print(f"NOT IDENTICAL: {home} is kept", file=sys.stderr)


def campaign(root: Path, kinds: list[tuple[str, str]], kills: int, seed: int) -> list[Tally]:
    tallies, wholes = [], []
    for method, shape in kinds:
        home = root / f"whole-{method}-{shape}"
        home.mkdir()
        began = time.monotonic()
        finish(home, method, shape)
        run = run_folder(home)
        assert run is not None
        tallies.append(Tally(method, shape))
        wholes.append(
            Whole(outcome(run), time.monotonic() - began, json.loads((run / "status.json").read_bytes())["seconds"])
        )
    dice = random.Random(seed)
    while (spent := sum(t.kills for t in tallies)) < kills:
        i = min(range(len(kinds)), key=lambda i: tallies[i].kills)
        share = min(kills - spent, max(1, -(-kills // len(kinds)) - tallies[i].kills), 10)
        hunt(root, tallies[i], share, wholes[i], dice)
    return tallies


def table(tallies: list[Tally]) -> str:
    heads = ["runs", "kills", "before the first save", "in a save", "in an evaluation"]
    heads += ["unreadable newest checkpoint", "none verifies", "damaged status or metrics", "bit-identical finishes"]
    keys = ["runs", "kills", "before_the_first_save", "in_a_save", "in_an_evaluation"]
    keys += ["unreadable", "lost", "torn", "identical"]
    rows = [[t.method, t.shape, *(getattr(t, k) for k in keys)] for t in tallies]
    rows.append(["all", "", *(sum(getattr(t, k) for t in tallies) for k in keys)])
    lines = ["| method | run | " + " | ".join(heads) + " |", "|---|---|" + "--:|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--methods", default="moco_v2,byol,mae,simsiam")
    parser.add_argument("--shapes", default="steps,evaluations,accumulation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    methods, shapes = args.methods.split(","), args.shapes.split(",")
    pairs = [(m, shapes[(i + k) % len(shapes)]) for k in range(2) for i, m in enumerate(methods)]
    kinds = list(dict.fromkeys(pairs))  # each method in two shapes
    preload()
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    tallies = campaign(root, kinds, args.kills, args.seed)
    took = time.monotonic() - began
    print(table(tallies))
    print(f"\n{took:.0f} s")
    if args.json:
        figures = {"seed": args.seed, "seconds": round(took, 1), "runs": [asdict(t) for t in tallies]}
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    good = all(t.identical == t.runs and not (t.unreadable or t.lost or t.torn) for t in tallies)
    if good:
        shutil.rmtree(root)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
