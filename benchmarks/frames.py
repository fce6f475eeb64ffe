"""Prediction of the next ten frames of moving Fashion-MNIST from ten given ones, beside simple predictions and published errors.

    python benchmarks/frames.py DATA RUNS [--budget 30m] [--seed 0] [WORD ...]

DATA holds the files of Fashion-MNIST below it, RUNS is a folder for runs; further words go to the pretraining. Two articles move on
64 x 64 pixels (`dataset=moving`); 10,000 training clips, 1,000 test clips of test articles. Writes docs/results/frames.json,
frames.md and frames.png, a strip of test clips: the clip, what was given, what was predicted, and the error.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import report  # noqa: E402

OUT = ROOT / "docs" / "results" / "frames.json"
DATA = ["dataset=moving", "dataset.of=fashion_mnist", "dataset.samples=10000", "dataset.test_samples=1000"]
RECIPE = ["method=next_frame", "train.batch_size=16", "train.epochs=null"]
SIMPLE = {"black": "a black frame", "average": "the mean of the given frames", "last": "the last given frame"}
PUBLISHED = {
    "ConvLSTM": 28.9,
    "PredRNN": 22.0,
    "SimVP": 30.8,
    "SimVP with gSTA": 25.9,
    "TAU": 24.2,
}  # 200 epochs, OpenSTL


def measure(data: Path, folder: Path, budget: str, seed: int, words: list[str]) -> dict[str, Any]:
    import sslcli

    typed = [*RECIPE, *DATA, f"dataset.path={data.resolve()}", f"train.budget={budget}", f"seed={seed}", *words]
    if not (folder / "status.json").exists():
        sslcli.pretrain(*typed, f"hydra.run.dir={folder}")
    status = json.loads((folder / "status.json").read_text())
    result = sslcli.evaluate(folder, "reconstruct")
    found = {key: value for key, value in result.items() if key.endswith("frame_error") or key == "psnr"}
    return {
        "numbers": found,
        "steps": status["step"],
        "seconds": round(status["seconds"]),
        "command": " ".join(RECIPE + words),
    }


def page(known: dict[str, Any]) -> str:
    about, found = known["about"], known["result"]
    numbers = found["numbers"]
    epochs = found["steps"] * 16 / 10_000
    lines = [
        "# Moving Fashion-MNIST",
        "",
        f"Made by `{about['command']}` on {about['machine']}, {about['date']}; torch {about['versions'].get('torch')}.",
        "",
        "Ten frames of 64 x 64 pixels are predicted from the ten before them, in which two articles move and bounce off the edges. "
        "The squared error of pixels in 0 to 1, summed over a frame, the mean over frames and 1,000 test clips with articles of "
        "the test split. "
        f"`{found['command']}` with `{' '.join(DATA)}`; {found['steps']:,} steps of 16 clips ({epochs:.1f} epochs) in "
        f"{found['seconds'] / 60:.0f} minutes, one seed, the last step.",
        "",
        "| prediction | error of a frame |",
        "|---|--:|",
        *(f"| {title} | {numbers[f'{name}.frame_error']:.1f} |" for name, title in SIMPLE.items()),
        f"| **`next_frame`** | **{numbers['frame_error']:.1f}** |",
        *(f"| published: {name}, 200 epochs | {error} |" for name, error in PUBLISHED.items()),
        "",
        "Published errors (OpenSTL) are those of 10,000 clips of their own generator.",
        "",
        "![Test clips, given and predicted frames, and errors](frames.png)",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--budget", default="30m")
    parser.add_argument("--seed", type=int, default=0)
    options, words = parser.parse_known_args()
    folder = options.runs.resolve() / f"next_frame_{options.budget}_{options.seed}"
    result = measure(options.data, folder, options.budget, options.seed, words)
    known = {
        "about": report.about(["DATA", "RUNS", f"--budget {options.budget}", *words], "frames.py"),
        "result": result,
    }
    OUT.write_text(json.dumps(known, indent=1) + "\n")
    OUT.with_suffix(".md").write_text(page(known))
    shutil.copy(folder / "eval" / "reconstruct_samples.png", OUT.with_suffix(".png"))


if __name__ == "__main__":
    main()
