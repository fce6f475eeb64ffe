"""Makes the tables of docs/results/ (and the one in README.md) by running sslcli, as anyone can.

    python scripts/results.py digits                 SimSiam on the embedded digits, 1 and 10 labels a class
    python scripts/results.py photos FOLDER          class folders, one flat folder, a list file (FOLDER/CLASS/*.JPEG)
    python scripts/results.py series FILE.npz [key=value ...]   every method on one data set of series
    python scripts/results.py cifar10 [key=value ...]   experiment=cifar10_cpu ($SSLCLI_DATA holds CIFAR-10)
    python scripts/results.py views FOLDER           one hash of the views for 0, 1, 4 workers and batch 64, 256
    python scripts/results.py native [CHECKOUT]      CIFAR-10, three seeds: views by tensor code, compiled code, another checkout

Each table says its command, protocol, machine and versions.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sslcli.runs.results import result_name

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from benchmarks.report import about  # noqa: E402

OUT = ROOT / "docs" / "results"


def sslcli(*words: str, cwd: str | None = None) -> tuple[str, float]:
    """stdout and wall seconds of one command; stderr is shown."""
    print("$ sslcli", *words, file=sys.stderr, flush=True)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sslcli", *words], stdout=subprocess.PIPE, text=True, check=True, cwd=cwd
    )
    return done.stdout.strip(), time.monotonic() - began


def pretrain(*words: str) -> tuple[str, float]:
    out, seconds = sslcli("pretrain", *words)
    return out.splitlines()[-1], seconds


def evaluate(name: str, run: str, *words: str) -> dict[str, float]:
    out, _ = sslcli("eval", name, f"run={run}", "--json", *words)
    return json.loads(out)["numbers"]


def metrics(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def machine() -> str:
    found = about([])
    return f"{found['machine']}, torch {found['versions']['torch']}, {found['date']}"


def pm(numbers: dict[str, float], key: str) -> str:
    std = numbers.get(f"{key}_std")
    return f"{numbers[key]:.3f}" + (f" ± {std:.3f}" if std else "")


def markdown(head: list[str], body: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] + ["--:"] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body])


def write(name: str, title: str, command: str, text: str) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.md"
    path.write_text(f"# {title}\n\nMade by `{command}` on {machine()}.\n\n{text}\n")
    print(path)
    print(text)


# ----------------------------------------------------------------------------------------------------------------- tables


def digits() -> None:
    run, seconds = pretrain("method=simsiam")
    rows = []
    for labels in ("1/class", "10/class", "all"):
        n = evaluate("probe", run, f"labels={labels}", *(["seeds=5"] if labels != "all" else []))
        rows.append([labels, pm(n, "top1"), pm(n, "untrained.top1"), pm(n, "raw.top1")])
    steps = json.loads((Path(run) / "status.json").read_text())["step"]
    table = markdown(["labels", "SimSiam, frozen", "untrained backbone", "raw pixels"], rows)
    note = (
        "Accuracy of a linear probe on 360 held-out images, last epoch, training seed 0; mean and standard deviation\n"
        f"over 5 draws of the labels. SimSiam with default settings: {steps} steps, {seconds:.0f} s on 2 cores."
    )
    write("digits", "Few labels on digits", "python scripts/results.py digits", f"{table}\n\n{note}")
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition("<!-- digits -->\n")
    _, _, after = rest.partition("<!-- /digits -->")
    if rest:
        readme.write_text(f"{before}<!-- digits -->\n{table}\n\n{note}\n<!-- /digits -->{after}")


def compare(dataset: list[str], words: list[str], labels: str) -> str:
    """A row a method: its loss at the start and the end, its spread, and the probe beside the baselines."""
    choices = json.loads(sslcli("list", "methods", "--json")[0])["choices"]
    plain = [c for c in choices if not {"labels", "a trained run"} & set(c["needs"] or [])]
    names = [c["name"] for c in plain if "series" in (c["modality"] or ["series"])]  # a table of series
    rows = []
    for name in names:
        out, _ = sslcli(
            "pipeline", f"method={name}", *dataset, *words, "stages=[probe,quality]", f"labels={labels}", "seeds=5"
        )
        run = out.splitlines()[-1]
        seconds = json.loads((Path(run) / "status.json").read_text())["seconds"]
        lines = [m for m in metrics(run) if "train/loss" in m]
        spread = [m["train/spread"] for m in lines if "train/spread" in m]
        kept = (Path(run) / "eval" / f"{e}.json" for e in (result_name("probe", labels), "quality"))
        n, q = (json.loads(path.read_text())["numbers"] for path in kept)
        rows.append(
            [
                name,
                f"{lines[-1]['step']:,}",
                f"{seconds:.0f}",
                f"{lines[0]['train/loss']:.3f} → {lines[-1]['train/loss']:.3f}",
                f"{spread[0]:.2f} → {spread[-1]:.2f}" if spread else "–",
                f"{q['rankme']:.1f}",
                pm(n, "top1"),
                pm(n, "untrained.top1"),
                pm(n, "raw.top1"),
            ]
        )
    head = ["method", "steps", "s", "loss", "spread", "RankMe", f"probe, {labels}", "untrained", "raw"]
    return markdown(head, rows) + (
        f"\n\nProbe on the held-out split, last epoch, training seed 0, mean and standard deviation of 5 draws of {labels} labels."
        " `untrained` is the same backbone with random weights, `raw` the inputs themselves."
    )


def photos(folder: str) -> None:
    source = Path(folder).resolve()
    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        flat, listed = Path(scratch) / "flat", Path(scratch) / "list.txt"
        flat.mkdir()
        for i, file in enumerate(files):
            (flat / f"{i:05d}_{file.name}").symlink_to(file)
        listed.write_text("".join(f"{f}\n" for f in files))
        for name, path in (("class folders", source), ("one flat folder", flat), ("a list file", listed)):
            words = [
                "dataset=image_folder",
                f"dataset.path={path}",
                "dataset.image_size=64",
                "backbone=convnet",
                "backbone.blocks=1",
            ]
            run, seconds = pretrain(
                "method=simclr",
                *words,
                "train.epochs=1",
                "train.batch_size=128",
                "train.eval_every=0",
                "logger.log_every=5",
            )
            lines = [m for m in metrics(run) if "train/loss" in m]
            rate = sorted(m["train/samples_per_s"] for m in lines)[len(lines) // 2]
            top1 = f"{evaluate('knn', run)['top1']:.3f}" if name == "class folders" else "–"
            loss = f"{lines[0]['train/loss']:.3f} → {lines[-1]['train/loss']:.3f}"
            rows.append([name, f"{len(files):,}", f"{seconds:.0f}", loss, f"{rate:,.0f}", top1])
    table = markdown(["layout", "files", "s", "loss, one epoch", "samples/s", "kNN top-1 (held out)"], rows)
    write("photos", "Image folders", "python scripts/results.py photos FOLDER", table)


def series(path: str, *words: str) -> None:
    name = Path(path).stem
    length = [w for w in words if w.startswith("train.")] or ["train.budget=15s", "train.batch_size=32"]
    data = ["dataset=series", f"dataset.path={Path(path).resolve()}", *(w for w in words if not w.startswith("train."))]
    text = compare(data, length, "5/class")
    command = " ".join(["python scripts/results.py series", Path(path).name, *words])
    write(f"series_{name.lower()}", f"Series: {name}", command, text)


def cifar10(*words: str) -> None:
    run, seconds = pretrain("experiment=cifar10_cpu", *words)
    found = {
        "kNN (k = 20, T = .1)": evaluate("knn", run),
        "linear probe, all labels": evaluate("probe", run),
        "linear probe, 10 labels a class, mean of 5 draws": evaluate("probe", run, "labels=10/class", "seeds=5"),
    }
    names = ("top1", "untrained.top1", "raw.top1")
    rows = [[title, *(f"{numbers[x]:.4f}" for x in names)] for title, numbers in found.items()]
    last = [m for m in metrics(run) if "train/samples_per_s" in m]
    rate = sorted(m["train/samples_per_s"] for m in last)[len(last) // 2]
    text = markdown(["10,000 test images, top-1", "SimCLR", "untrained", "raw pixels"], rows)
    command = " ".join(["sslcli pretrain experiment=cifar10_cpu", *words])
    text += f"\n\n`{command}`: {seconds / 60:.1f} minutes in all, {rate:,.0f} samples/s (median), "
    text += f"{last[-1]['epoch']:.1f} epochs, last epoch, seed 0. The test images were used for these results only."
    write("cifar10_cpu", "CIFAR-10 on a processor", " ".join(["python scripts/results.py cifar10", *words]), text)


def views(folder: str) -> None:
    code = """
import hashlib, sys
from pathlib import Path
from sslcli import compose
from sslcli.training.configuration import resolve
from sslcli.data.loading.loader import Loader
from sslcli.builders import load_dataset
from sslcli.views import Views

def digest(dataset, cfg, workers, batch, start, count=256):
    views = Views({"global": 2}, cfg["augmentation"], dataset)
    loader = Loader(dataset.pretrain, views, batch_size=batch, seed=0, workers=workers)
    stream, found = loader.stream(start), {}
    for _ in range(count // batch):
        b = next(stream)
        for i, row in enumerate(b.ids.tolist()):
            found[row] = hashlib.sha256(b"".join(v[i].contiguous().numpy().tobytes() for v in b.views)).digest()
    stream.close()
    return found

if __name__ == "__main__":
    words = ["dataset=image_folder", "dataset.path=" + sys.argv[1], "dataset.image_size=64", "dataset.resident=false"]
    cfg = resolve(compose.compose("pretrain", words))
    dataset = load_dataset(cfg)
    whole = digest(dataset, cfg, 0, 256, 0)
    for workers in (0, 1, 4):
        for batch in (64, 256):
            found = digest(dataset, cfg, workers, batch, 0)
            one = hashlib.sha256(b"".join(found[k] for k in sorted(found))).hexdigest()[:16]
            print(f"| {workers} | {batch} | 0 | {one} | {found == whole} |")
    late = digest(dataset, cfg, 1, 64, 2, 128)
    same = all(whole[k] == v for k, v in late.items())
    print(f"| 1 | 64 | 2 (in the middle of an epoch) | {len(late)} of the samples above | {same} |")
"""
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "digest.py"
        script.write_text(code)
        done = subprocess.run([sys.executable, str(script), folder], stdout=subprocess.PIPE, text=True, check=True)
    table = (
        "| workers | batch | from step | SHA-256 of the views of 256 samples | identical |\n|--:|--:|--:|---|---|\n"
        + done.stdout.strip()
    )
    write(
        "views",
        "Invariance of views",
        "python scripts/results.py views FOLDER",
        table,
    )


def native(checkout: str = "") -> None:
    from safetensors.torch import load_file

    words = [
        "method=simclr",
        "dataset=cifar10",
        "backbone=convnet",
        "backbone.width=8",
        "train.epochs=null",
        "train.batch_size=128",
        "train.steps=150",
        "train.eval_every=0",
    ]
    makers = [("tensor code", str(ROOT), ["device.native=false"]), ("compiled code", str(ROOT), ["device.native=true"])]
    if checkout:
        makers.insert(0, ("tensor code, before", str(Path(checkout).resolve()), []))
    rows: list[list[str]] = []
    untrained = ""
    for seed in range(3):
        for name, root, own in makers:
            out, _ = sslcli("pretrain", *words, f"seed={seed}", *own, cwd=root)
            run = str(Path(root, out.splitlines()[-1]))
            weights = load_file(Path(run) / "encoder.safetensors")
            bits = hashlib.sha256(b"".join(weights[k].contiguous().numpy().tobytes() for k in sorted(weights)))
            knn = evaluate("knn", run, *(["evaluator.baselines=false"] if rows else []))
            untrained = untrained or pm(knn, "untrained.top1")
            loss = metrics(run)[-1]["train/loss"]
            numbers = [f"{loss:.6f}", pm(knn, "top1")]
            rows.append([name, str(seed), *numbers, f"`{bits.hexdigest()[:16]}`"])
    head = ["views by", "seed", "last loss", "kNN", "SHA-256 of the backbone"]
    note = f"`sslcli pretrain {' '.join(words)} device.native=...`, then `sslcli eval knn` (untrained {untrained})."
    if checkout:
        note += "\nBefore: without rounding the filter coefficients to 2^-30, which makes both divide by the same sum."
    command = "python scripts/results.py native" + (" CHECKOUT" if checkout else "")
    write("native", "Compiled views", command, markdown(head, rows) + "\n\n" + note)


if __name__ == "__main__":
    known = {
        "digits": digits,
        "photos": photos,
        "series": series,
        "cifar10": cifar10,
        "views": views,
        "native": native,
    }
    if len(sys.argv) < 2 or sys.argv[1] not in known:
        sys.exit(__doc__)
    known[sys.argv[1]](*sys.argv[2:])
