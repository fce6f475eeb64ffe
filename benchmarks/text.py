"""Tokens per second of masked language modeling, beside a hand-written loop and the Trainer of transformers.

    python benchmarks/text.py reviews.txt [--rounds 5] [--steps 12] [--batch 64] [--length 128] [--threads 1] [--clock wall]

All train the same network (`bert_micro`) on the same documents, with the same batch size, dropout, share of masked tokens and
AdamW. They take turns in one process, so that other load on the machine affects all of them; the first steps of a turn are not
counted. Tokens are those that are present. Padding is its share of what linear layers compute on. `--clock cpu` counts processor
time, for a machine that is not idle. Memory is the peak of a process of its own with one turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from text_peers import WARMUP, Clock, Documents, HandWritten, HuggingFace
from torch import Tensor, nn

from sslcli.config import compose
from sslcli.training.configuration import resolve
from sslcli.training.loop.trainer import Trainer
from sslcli.training.run_training import NullRun
from sslcli.training.setup import TrainingSetup, prepare
from sslcli.training.state import Horizon, State

CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


class Ours:
    """A step of `sslcli pretrain method=mlm`: views, masks, forward and backward pass, optimizer, logged numbers."""

    def __init__(self, setup: TrainingSetup, clock: Clock):
        self.clock, self.present, self.computed = clock, 0, 0
        self.trainer = Trainer(setup, NullRun(Path("nowhere")), State())
        setup.method.train()
        self.stream = setup.loader.stream(0)
        self.pad = setup.dataset.values.pad  # type: ignore[attr-defined]
        backbone: Any = setup.method.backbone
        setup.method.masking.register_forward_pre_hook(self.count_present)  # type: ignore[operator, union-attr]
        backbone.layers[0].intermediate["dense"].register_forward_pre_hook(self.count_computed)

    def count_present(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.present += int((args[0] != self.pad).sum())

    def count_computed(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.computed += len(args[0].flatten(0, -2))

    def turn(self, steps: int) -> tuple[int, float]:
        for i in range(steps):
            if i == WARMUP:
                before, start = self.present, self.clock()
            self.trainer.step(self.stream, Horizon(10**9), self.trainer.meter)
            self.trainer.state.step += 1
        return self.present - before, self.clock() - start

    @property
    def padding(self) -> float:
        return 1 - self.present / self.computed


def make_setup(args: argparse.Namespace) -> TrainingSetup:
    words = ["method=mlm", "backbone=bert_micro", "dataset=text_lines", f"dataset.path={args.path}", "device=cpu"]
    words += [f"dataset.max_length={args.length}", f"dataset.tokenizer={args.tokenizer}", "schedule=constant"]
    words += [f"device.threads={args.threads}", f"train.batch_size={args.batch}", "train.epochs=1000"]
    return prepare(resolve(compose.compose("pretrain", words)), rehearsal=False)


def documents(setup: TrainingSetup, length: int) -> Documents:
    """[CLS], the first tokens of each document, [SEP]."""
    source, values = setup.dataset.pretrain, setup.dataset.values
    ends = [torch.tensor([values.start]), torch.tensor([values.separator])]  # type: ignore[attr-defined]
    return [torch.cat([ends[0], source.read(i)[: length - 2].long(), ends[1]]) for i in range(len(source))]


def make(name: str, setup: TrainingSetup, args: argparse.Namespace) -> Any:
    clock = CLOCKS[args.clock]
    if name == "sslcli":
        return Ours(setup, clock)
    kind = {"hand-written": HandWritten, "transformers": HuggingFace}[name]
    return kind(documents(setup, args.length), setup.dataset.values, args.length, args.batch, clock)


def memory(name: str) -> float:
    """Peak memory in MB of a process with one turn of one of them."""
    words = [sys.executable, __file__, *sys.argv[1:], "--only", name]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["memory"])


def peak_memory() -> float:
    """MB. Not `ru_maxrss`, which a process inherits from the one that started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    for key, default in (("rounds", 5), ("steps", 12), ("batch", 64), ("length", 128), ("threads", 1)):
        parser.add_argument(f"--{key}", type=int, default=default)
    parser.add_argument("--tokenizer", default="wordpiece")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--only", choices=("sslcli", "hand-written", "transformers"))
    args = parser.parse_args()
    setup = make_setup(args)
    torch.set_num_threads(args.threads)
    if args.only:
        make(args.only, setup, args).turn(WARMUP + 2)
        print(json.dumps({"memory": peak_memory()}))
        return
    names = ("sslcli", "hand-written", "transformers")
    loops = {name: make(name, setup, args) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name, loop in loops.items():
            tokens, seconds = loop.turn(args.steps)
            rates[name].append(tokens / seconds)
    for name, loop in loops.items():
        ratio = statistics.median(a / b for a, b in zip(rates["sslcli"], rates[name], strict=True))
        print(
            f"{name:14}{statistics.median(rates[name]):8,.0f} tokens/s ({min(rates[name]):,.0f} to {max(rates[name]):,.0f}), "
            f"sslcli / it {ratio:.2f}, padding {loop.padding:.1%}, memory {memory(name):,.0f} MB"
        )


if __name__ == "__main__":
    main()
