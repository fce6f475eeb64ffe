"""Forecasts of ETTh1: simple forecasts, untrained backbones and methods, beside published errors.

    python benchmarks/forecast.py ETTh1.csv RUNS [--methods patchtst,ts2vec] [--seeds 3] [--window 336] [WORD ...]

ETTh1.csv is that of https://github.com/zhouhaoyi/ETDataset, RUNS a folder for runs; further words go to each pretraining. Writes
docs/results/series_forecast.json after each run, and series_forecast.md; what is there is not measured again. The split is the
customary one: 12 months for training, 4 for validation, 4 for the test. Backbones are frozen, and a ridge regression predicts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results" / "series_forecast.json"
HORIZONS = (24, 48, 168, 336, 720)
SPLIT = [8640, 2880, 2880]
PUBLISHED: dict[str, list[tuple[float, float]]] = {  # MSE and MAE at each horizon
    "TS2Vec (Yue et al., 2022)": [(0.599, 0.534), (0.629, 0.555), (0.755, 0.636), (0.907, 0.717), (1.048, 0.790)],
    "PatchTST, linear probe (Nie et al., 2023)": [
        (0.322, 0.369),
        (0.354, 0.385),
        (0.419, 0.424),
        (0.445, 0.446),
        (0.487, 0.478),
    ],
}
TITLES = {"linear": "linear map of the window", "seasonal": "last period", "last": "last value"}
METHODS: dict[str, list[str]] = {  # words of a pretraining
    "ts2vec": ["method=ts2vec"],
    "patchtst": [
        "method=mae",
        "method.mask_ratio=0.4",
        "method.norm_pix=false",
        "backbone=patchtst",
        "backbone.width=64",
        "backbone.heads=8",
        "dataset.scale=sample",
        "dataset.stride=12",
        "train.batch_size=32",
        "train.epochs=60",
        "optimizer.lr=1e-3",
        "optimizer.lr_batch=null",
    ],
}
NAMES = {"patchtst": "`backbone=patchtst method=mae`", "ts2vec": "`method=ts2vec`"}


def sslcli(*words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "sslcli", *words], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def measure(data: list[str], method: str | None, seed: int, runs: Path, words: list[str]) -> dict[str, Any]:
    """The numbers of `eval forecast` after a pretraining, or of an untrained backbone without a method."""
    where = [f"hydra.run.dir={runs / f'{method}_{seed}'}"] if method else []
    run = "none"
    if method:
        keys = {word.split("=")[0] for word in METHODS[method]}
        data = [word for word in data if word.split("=")[0] not in keys]
        run = sslcli("pretrain", *METHODS[method], *data, f"seed={seed}", *where, *words).split()[-1]
    given = [
        f"run={run}",
        *(data if run == "none" else []),
        "evaluator.baselines=" + ("true" if run == "none" or seed == 0 else "false"),
    ]
    return dict(json.loads(sslcli("eval", "forecast", "--json", *given))["numbers"])


def cells(numbers: dict[str, float], prefix: str) -> list[tuple[float, float]]:
    return [(numbers[f"{prefix}mse@{h}"], numbers[f"{prefix}mae@{h}"]) for h in HORIZONS]


def line(name: str, errors: list[tuple[float, float]]) -> str:
    return f"| {name} | " + " | ".join(f"{mse:.3f} / {mae:.3f}" for mse, mae in errors) + " |"


def page(known: dict[str, Any]) -> str:
    out = [
        "# Forecasts of ETTh1",
        "",
        f"Made by `{known['command']}` on {known['machine']}.",
        "",
        "Electricity transformer, hourly, 7 channels; all windows of the last 4 of 20 months, values scaled by the first 12.",
        f"Mean squared / mean absolute error by horizon, windows of {known['window']} hours, protocol of `sslcli eval forecast`.",
        "",
        "| forecast | " + " | ".join(map(str, HORIZONS)) + " |",
        "|---|" + "--:|" * len(HORIZONS),
    ]
    simple = known["rows"].get("none@0", {})
    for name, title in TITLES.items():
        if f"{name}.mse@{HORIZONS[0]}" in simple:
            out.append(line(title, cells(simple, f"{name}.")))
    if simple:
        out.append(line(f"untrained `{known['backbone']}`", cells(simple, "")))
    for method in dict.fromkeys(key.partition("@")[0] for key in known["rows"] if not key.startswith("none@")):
        seeds = [cells(row, "") for key, row in known["rows"].items() if key.partition("@")[0] == method]
        average = [(mean(s[i][0] for s in seeds), mean(s[i][1] for s in seeds)) for i in range(len(HORIZONS))]
        count = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
        out.append(line(f"{NAMES[method]}, {count}", average))
        untrained = [cells(row, "untrained.") for key, row in known["rows"].items() if key == f"{method}@0"]
        if f"untrained.mse@{HORIZONS[0]}" in known["rows"].get(f"{method}@0", {}):
            out.append(line("the same with random weights", untrained[0]))
    out += [line(f"published: {name}", errors) for name, errors in PUBLISHED.items()]
    linear = [mse for mse, _ in cells(simple, "linear.")] if simple else []
    if linear:
        probe = [mse for mse, _ in PUBLISHED["PatchTST, linear probe (Nie et al., 2023)"]]
        ahead = sum(a < b for a, b in zip(linear, probe, strict=True))
        out += [
            "",
            "The linear map, which needs no pretraining, has a smaller squared error than the published linear probe of",
            f"PatchTST at {ahead} of {len(HORIZONS)} horizons: what a method is worth here is its distance to the linear map.",
        ]
        if ours := known["rows"].get("patchtst@0"):
            mine, untrained = ([mse for mse, _ in cells(ours, prefix)] for prefix in ("", "untrained."))
            far = max(a / b for a, b in zip(mine, probe, strict=True)) - 1
            better = sum(a < b for a, b in zip(mine, untrained, strict=True))
            out += [
                f"Ours is at most {max(far, 0):.1%} above the published probe, and below random weights at {better} of "
                f"{len(HORIZONS)} horizons:",
                "a regression on the tokens of random patches can already express a linear map of the window.",
            ]
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--methods", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--window", type=int, default=336)
    parser.add_argument("--backbone", default="tcn")
    parser.add_argument("--machine", default="2 cores (AMD EPYC)")
    given, words = parser.parse_known_args()
    known = json.loads(OUT.read_text()) if OUT.is_file() else {"rows": {}}
    known |= {"window": given.window, "backbone": given.backbone, "machine": given.machine}
    known["command"] = "python benchmarks/forecast.py " + " ".join(["ETTh1.csv", "RUNS", *sys.argv[3:]])
    data = [
        "dataset=series",
        f"dataset.path={given.data.resolve()}",
        f"dataset.window={given.window}",
        "dataset.stride=1",
    ]
    data += ["dataset.time_split=" + json.dumps(SPLIT).replace(" ", ""), "device=cpu"]
    jobs: list[tuple[str | None, int]] = [(None, 0)]
    jobs += [(method, seed) for method in given.methods.split(",") if method for seed in range(given.seeds)]
    for method, seed in jobs:
        key = f"{method or 'none'}@{seed}"
        if key not in known["rows"]:
            backbone = [f"backbone={given.backbone}"] if method is None else []
            known["rows"][key] = measure([*data, *backbone], method, seed, given.runs.resolve(), words)
            OUT.write_text(json.dumps(known, indent=2) + "\n")
    OUT.with_suffix(".md").write_text(page(known))


if __name__ == "__main__":
    main()
