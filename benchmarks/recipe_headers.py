"""What was seen with each recipe, in the head of its YAML: the lines `# Seen` of configs/method, from docs/results/methods.json.

python benchmarks/recipe_headers.py
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks.methods_table import OUT, SIZES, needs, sized  # noqa: E402

MARK, WIDTH = "# Seen", 128
NARROW = "\u00a0±\u00a0"  # no line ends within a number
NAMES = {"digits": "digits", "cifar10": "CIFAR-10"}


def seen(known: dict[str, Any], method: str) -> list[str]:
    """A paragraph a data set: command, length, seeds, the numbers with what stands beside them."""
    lines = []
    for data in SIZES:
        runs = [r for r in known.get(data, {}).get(method, {}).values() if "failed" not in r]
        if runs:
            whole = f"{MARK} on {NAMES[data]}: {told(runs, data, method)}".replace(" ± ", NARROW)
            wrapped = textwrap.wrap(
                whole, WIDTH, subsequent_indent="#   ", break_long_words=False, break_on_hyphens=False
            )
            lines += [line.replace(NARROW, " ± ") for line in wrapped]
    return lines


def told(runs: list[dict[str, Any]], data: str, method: str) -> str:
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
    seconds = sorted(r["seconds"] for r in runs)[len(runs) // 2]
    took = f"{round(seconds, -1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    length = f"{runs[0]['steps']:,} steps, some {took} on one core, {seeds}"
    knn, probe = figures(runs, "knn"), figures(runs, "probe")
    before = f"untrained {figures(runs, 'untrained.knn')} and {figures(runs, 'untrained.probe')}"
    return f"`{command(data, method)}` ({length}): kNN {knn}, probe at 10 labels a class {probe}; {before}."


def command(data: str, method: str) -> str:
    teacher = ["method.teacher=RUN"] if needs(method, "a trained run") else []
    typed = [f"'{word}'" if "{" in word else word for word in sized(data, method)]
    return " ".join(["sslcli pretrain", f"method={method}", *teacher, *typed])


def figures(runs: list[dict[str, Any]], name: str) -> str:
    values = [r[name] for r in runs]
    text = f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
    return text.replace("0.", ".")


def rewritten(text: str, lines: list[str]) -> str:
    """A YAML's text, with these lines as the last of its head."""
    old = text.splitlines()
    first = next(i for i, line in enumerate(old) if not line.startswith("#"))
    head: list[str] = []
    inside = False
    for line in old[:first]:
        inside = line.startswith(MARK) or (inside and line.startswith("#   "))
        if not inside:
            head.append(line)
    return "\n".join([*head, *lines, *old[first:]]) + "\n"


def main() -> None:
    known = json.loads((OUT / "methods.json").read_text())
    for path in sorted((ROOT / "configs" / "method").glob("*.yaml")):
        path.write_text(rewritten(path.read_text(), seen(known, path.stem)))


if __name__ == "__main__":
    main()
