"""The page of `gpu_queue.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def published(row: dict[str, Any]) -> str:
    """What the experiment of a row says is published, up to the first comma; empty where nothing is."""
    name = next((w.partition("=")[2] for w in row["words"] if w.startswith("experiment=")), "")
    path = ROOT / "configs" / "experiment" / f"{name}.yaml"
    found = re.search(r"^# Published: (.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found.group(1).partition(",")[0] if found else ""


def page(known: dict[str, Any]) -> str:
    """The page in Markdown."""
    about, rows = known["about"], known["rows"]
    lines = [
        "# Published recipes and speed on a GPU",
        "",
        f"Made by `{about['command']}` on {about.get('gpu') or about['machine']}, {about['date']}; torch "
        f"{about['versions'].get('torch')}. [gpu.json](gpu.json) has the words of each row.",
    ]
    accuracy = {name: row for name, row in rows.items() if row["kind"] == "accuracy"}
    if accuracy:
        lines += [
            "",
            "## Accuracy",
            "",
            "Last epoch. Held out: a tenth of the training images, which the classifiers do not see. Published figures are often",
            "those of the best epoch on the test images; the YAML file of the experiment has the source.",
            "",
        ]
        body = [["recipe / seed", "kNN 200", "kNN 20", "probe", "held out: kNN 200", "probe", "published", "minutes"]]
        body.append(["---", *["--:"] * 5, "---", "--:"])
        for name, row in accuracy.items():
            if "failed" in row:
                body.append([name, row["failed"], *[""] * 4, published(row) or "–", ""])
                continue
            figures = [f"{row[f'test.{k}']:.4f}" for k in ("knn200", "knn20", "probe")]
            figures += [f"{row[f'held_out.{k}']:.4f}" for k in ("knn200", "probe")]
            body.append([name, *figures, published(row) or "–", f"{row['pretraining_seconds'] / 60:.1f}"])
        lines += ["| " + " | ".join(cells) + " |" for cells in body]
    speed = {n: row for n, row in rows.items() if row["kind"] == "speed" and not n.startswith("method/")}
    if speed:
        lines += ["", "## Speed", "", "Samples/s of `sslcli bench`, medians of three rounds.", ""]
        lines += ["| | views alone | model alone | end to end | lost | memory, MB |", "|---|--:|--:|--:|--:|--:|"]
        for name, row in speed.items():
            if "failed" in row:
                lines.append(f"| {name} | {row['failed']} | | | | |")
                continue
            rates = [f"{row[part]:,.0f}" if part in row else "–" for part in ("views", "model", "end_to_end")]
            lost = "–" if row.get("lost") is None else f"{100 * row['lost']:.0f} %"
            lines.append(f"| {name} | {' | '.join(rates)} | {lost} | {row.get('peak_memory_mb') or 0:,.0f} |")
    methods = [
        name.removeprefix("method/").removesuffix(" as written") for name in rows if name.endswith(" as written")
    ]
    if methods:
        lines += [
            "",
            "## Every method at 32 pixels",
            "",
            "Samples/s end to end, batches of 256, ResNet-18, or ViT-Tiny for a method on tokens.",
            "",
            "| method | as written | compiled | ratio | memory, MB | lost, compiled |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for name in methods:
            plain, fast = rows[f"method/{name} as written"], rows.get(f"method/{name} compiled", {})
            rates = [row.get("end_to_end") for row in (plain, fast)]
            cells = [
                f"{rate:,.0f}" if rate else row.get("failed", "–")
                for rate, row in zip(rates, (plain, fast), strict=True)
            ]
            ratio = f"{rates[1] / rates[0]:.2f}" if rates[0] and rates[1] else "–"
            lost = "–" if fast.get("lost") is None else f"{100 * fast['lost']:.0f} %"
            lines.append(
                f"| `{name}` | {' | '.join(cells)} | {ratio} | {plain.get('peak_memory_mb') or 0:,.0f} | {lost} |"
            )
    if "tests" in rows:
        lines += ["", f"`pytest -m gpu`: {rows['tests']['outcome']}."]
    return "\n".join(lines) + "\n"
