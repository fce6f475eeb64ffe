"""Every method for 120 steps: is it finite, does its loss move, do its embeddings collapse? docs/results/short_runs.json and .md.

    python benchmarks/short_runs.py [--only vicreg,mae] [--backbones small,own] [--draw] [WORDS]

`small` is a ResNet-18, or vit_tiny for a method on tokens; `own` is what the recipe and the data set choose. WORDS replace the
data and the size (`WORDS` below; SSLCLI_DATA holds CIFAR-10). The table in docs/results is of 3,000 photographs of Imagenette at
16 pixels: sslcli data pack dataset=image_folder dataset.path=PHOTOS out=photos16.pack size=16 format=raw.

A row that is there is kept as long as its command is the same, so the table may be made in portions; `--again` makes the chosen
rows anew.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import report  # noqa: E402
from sslcli.config import modalities, registry  # noqa: E402

OUT = ROOT / "docs" / "results" / "short_runs.json"
WORDS = ["dataset=cifar10", "train.batch_size=64"]
ALWAYS = ["train.steps=120", "train.eval_every=0", "logger.log_every=5", "device=cpu", "device.threads=1"]
COLLAPSED = 0.1  # spread of the embeddings at the end, as the trainer warns
BY_DESIGN = ("deep_svdd",)  # its objective draws all samples to one point; it is meant for use with another method
TEACHER = "simsiam"  # of the methods that learn from a trained run


def facts(method: str, key: str) -> list[str]:
    """The words of a method's YAML under `needs` or `requires`."""
    return list(registry.describe(registry.choices("method")[method], "method").get(key, []))


def command(method: str, backbone: str, words: list[str]) -> list[str]:
    small = "vit_tiny" if "positions" in facts(method, "requires") else "resnet18"
    chosen = [f"backbone={small}"] if backbone == "small" else []
    return [f"method={method}", *chosen, *words, *ALWAYS]


def train(words: list[str], runs: str) -> tuple[Path | None, str]:
    """The run folder, if there is one, and the error, if there was one."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SSLCLI_RUNS": runs}
    done = subprocess.run(
        [sys.executable, "-m", "sslcli", "pretrain", *words],
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    said = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
    folder = next((line.split()[1] for line in done.stderr.splitlines() if line.startswith("run ")), None)
    return (Path(folder) if folder else None), (said[0] if said else "" if done.returncode == 0 else done.stderr[-200:])


def measure(method: str, backbone: str, words: list[str], runs: str) -> dict[str, Any]:
    typed = command(method, backbone, words)
    if "a trained run" in facts(method, "needs"):
        teacher, _ = train(command(TEACHER, backbone, words), runs)
        typed.append(f"method.teacher={teacher}")
    run, error = train(typed, runs)
    if run is None:
        return {"error": error}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    events = run / "events.jsonl"
    kinds = [json.loads(line)["event"] for line in events.read_text().splitlines()] if events.exists() else []
    first, last = (lines[0], lines[-1]) if lines else ({}, {})
    return {
        "error": error,
        "backbone": json.loads((run / "status.json").read_text()).get("backbone") or shown(run),
        "steps": last.get("step", 0),
        "skipped": kinds.count("non-finite"),
        "loss": [first.get("train/loss"), last.get("train/loss")],
        "spread": [first.get("train/spread"), last.get("train/spread")],
    }


def shown(run: Path) -> str:
    """The backbone in the name of a run folder."""
    import yaml

    node = yaml.safe_load((run / "config.yaml").read_text())["backbone"]
    return str(node["_target_"].rpartition(".")[2]) + (f"-{node['depth']}" if "depth" in node else "")


def page(known: dict[str, Any]) -> list[str]:
    about = known["about"]
    rows = known["rows"]
    bad = [key for key, row in rows.items() if not verdict(row, key.split()[0]).startswith("yes")]
    every = set(modalities.methods_for("image"))
    left = {kind: sorted(every - {k.split()[0] for k in rows if k.endswith(kind)}) for kind in ("small", "own")}
    lines = [
        "# Short runs",
        "",
        f"Made by `{about['command']}` ([short_runs.json](short_runs.json) has each command) on {about['machine']},",
        f"torch {about['versions'].get('torch')}. Loss and spread are means of the first and of the last 5 steps (spread: 1 is",
        "ideal, below 0.1 the embeddings have collapsed; no value: the method has no joint embedding). Skipped: steps whose",
        "loss or gradient was not finite. `small` is a ResNet-18, or vit_tiny for a method on tokens. Before LARS had its clipped",
        "rate inside the velocity, VICReg with a ResNet-18 on these photographs at 32 pixels in batches of 128 was not finite at",
        "step 8; at 16 pixels in batches of 64 its loss rose to 331 at step 9.",
        "",
        f"{len(rows)} rows; not in order: {', '.join(bad) or 'none'}.",
        *(f"Not run yet, `{kind}`: {', '.join(methods)}." for kind, methods in left.items() if methods),
        "",
        "| method | backbone | in order | skipped | loss at the start | at the end | spread at the start | at the end |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for key, row in sorted(rows.items()):
        method, kind = key.split()
        numbers = [*row.get("loss", [None] * 2), *row.get("spread", [None] * 2)]
        cells = [method, f"{kind}: {row.get('backbone', '–')}", verdict(row, method), str(row.get("skipped", "–"))]
        cells += ["–" if n is None else f"{n:.4g}" for n in numbers]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def verdict(row: dict[str, Any], method: str) -> str:
    if row["error"]:
        return f"**no**: {row['error']}"
    if row["skipped"]:
        return "**no**: not finite"
    spread = row["spread"][1]
    if spread is None:
        return "yes (no spread)"
    if spread >= COLLAPSED:
        return "yes"
    return "yes (collapses by design)" if method in BY_DESIGN else "**no**: collapsed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", default=WORDS)
    parser.add_argument("--only", default="", help="methods, by commas")
    parser.add_argument("--backbones", default="small,own")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--draw", action="store_true", help="draw the page of what is there")
    options = parser.parse_args()
    known = json.loads(OUT.read_text()) if OUT.exists() else {"rows": {}}
    methods = options.only.split(",") if options.only else sorted(registry.choices("method"))
    with tempfile.TemporaryDirectory() as runs:
        for backbone in [] if options.draw else options.backbones.split(","):
            for method in methods:
                key, typed = f"{method} {backbone}", command(method, backbone, options.words)
                if not options.again and known["rows"].get(key, {}).get("command") == typed:
                    continue
                found = {"command": typed, **measure(method, backbone, options.words, runs)}
                known["rows"][key] = found
                known["about"] = report.about(options.words, "short_runs.py")
                OUT.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
                print(key, verdict(found, method), found.get("loss"), found.get("spread"), flush=True)
    OUT.with_suffix(".md").write_text("\n".join(page(known)) + "\n")


if __name__ == "__main__":
    main()
