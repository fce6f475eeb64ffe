"""Images with captions: zero-shot accuracy and retrieval on generated shapes after a minute of training.

    python benchmarks/pairs.py RUNS [--seeds 3] [--budget 60s] [--threads 2] [--minilm FOLDER]

RUNS is a folder for runs, FOLDER an unpacked all-MiniLM-L6-v2, whose text encoder is then measured too, frozen. Writes
docs/results/pairs.json after each measurement, and pairs.md; what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import report  # noqa: E402

OUT = ROOT / "docs" / "results" / "pairs.json"
ROWS = {
    "clip": ["method=clip"],
    "siglip": ["method=siglip"],
    "clip, captions by MiniLM, frozen": ["method=clip"],
}
SHOWN = {
    "top1": "top-1",
    "text_recall@1": "text R@1",
    "text_recall@5": "text R@5",
    "image_recall@1": "image R@1",
    "image_recall@5": "image R@5",
}

HEAD = """# Images with captions

`dataset=shapes`: 4,000 training and 1,000 test pictures of 32 x 32, six shapes in six colors. Made by
`{command}` on {machine}, {date}; torch {torch}. `backbone.width=16`, all else by
default; trained for `train.budget={budget}` on {threads} threads. Mean ± standard deviation over training seeds (n - 1), last step.

The class is color and shape, of 36; its name in the templates `{{}}` and `a {{}}`. text R@K: the share of images with one of
their captions among the K most similar of all captions of the test split; image R@K: of captions, one of their images.
Captions name more than color and shape, such as size, background and place, and several can be true of a picture: R@1
cannot reach 1."""


def measure(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    threads = ["device=cpu", f"device.threads={options.threads}"]
    folder = options.runs.resolve() / f"{name.replace(', ', '_').replace(' ', '_')}_{seed}"
    words = [*ROWS[name], "dataset=shapes", "backbone.width=16", f"seed={seed}", f"train.budget={options.budget}"]
    if "MiniLM" in name:
        words += [f"method.tower=hf:{options.minilm.resolve()}"]
    if not (folder / "encoder.json").exists():
        report.command(
            "pretrain", *words, *threads, "train.eval_every=0", f"hydra.run.dir={folder}", threads=options.threads
        )
    found: dict[str, Any] = {"step": json.loads((folder / "encoder.json").read_text())["step"]}
    for part in ("seen", "unseen"):
        data = ["dataset=shapes", "dataset.combinations=unseen"] if part == "unseen" else []
        out = report.command("eval", "zeroshot", f"run={folder}", *data, *threads, "--json", threads=options.threads)
        found[part] = json.loads(out)["numbers"]
    out = report.command("eval", "probe", f"run={folder}", *threads, "--json", threads=options.threads)
    return {**found, "probe": json.loads(out)["numbers"]}


def page(known: dict[str, Any]) -> str:
    about, results = known["about"], known["results"]

    def cell(name: str, part: str, metric: str) -> str:
        values = [one[part][metric] for key, one in results.items() if key.rpartition("/")[0] == name]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.3f}{spread}"

    names = [name for name in ROWS if any(key.rpartition("/")[0] == name for key in results)]
    lines = HEAD.format(
        **about, budget=known["budget"], threads=known["threads"], torch=about["versions"]["torch"]
    ).splitlines()
    for part, title in (("seen", "Combinations that training has"), ("unseen", "The seven other combinations")):
        lines += [
            "",
            f"## {title}",
            "",
            f"| | {' | '.join(SHOWN.values())} | steps | seeds |",
            f"|---|{'--:|' * (len(SHOWN) + 2)}",
        ]
        for name in names:
            own = [one for key, one in results.items() if key.rpartition("/")[0] == name]
            steps = round(statistics.mean(one["step"] for one in own))
            cells = [cell(name, part, metric) for metric in SHOWN]
            lines.append(f"| `{name}` | {' | '.join(cells)} | {steps:,} | {len(own)} |")
        for base in ("untrained", "chance"):
            cells = [cell(names[0], part, f"{base}.{metric}") for metric in SHOWN]
            lines.append(f"| {base} | {' | '.join(cells)} | – | – |")
    lines += [
        "",
        "## With all labels",
        "",
        "Linear probe on the features of the images, 1,000 test pictures of seen combinations.",
        "",
    ]
    lines += ["| | top-1 |", "|---|--:|"]
    lines += [f"| `{name}` | {cell(name, 'probe', 'top1')} |" for name in names]
    lines += [f"| {base} | {cell(names[0], 'probe', f'{base}.top1')} |" for base in ("untrained", "raw")]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minilm", type=Path)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    known = (
        json.loads(OUT.read_text()) if OUT.exists() else {"about": report.about(["RUNS"], "pairs.py"), "results": {}}
    )
    known |= {"budget": options.budget, "threads": options.threads}
    for seed in range(options.seeds):
        for name in ROWS:
            key = f"{name}/{seed}"
            if key in known["results"] or ("MiniLM" in name and options.minilm is None):
                continue
            known["results"][key] = measure(name, seed, options)
            OUT.write_text(json.dumps(known, indent=1) + "\n")
            OUT.with_suffix(".md").write_text(page(known))
            print(key, known["results"][key]["seen"]["top1"], known["results"][key]["unseen"]["top1"], flush=True)


if __name__ == "__main__":
    main()
