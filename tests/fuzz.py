"""Overrides, YAML files and run folders that are damaged at random, made from good ones: for tests/test_fuzz.py."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sslcli.config import registry

REAL = [
    "method=simsiam",
    "method=byol",
    "backbone=resnet18",
    "dataset=arrays",
    "dataset.path=photos/a b",
    "dataset.image_size=32",
    "dataset.holdout=0.25",
    "dataset.name=mine",
    "train.epochs=3",
    "train.steps=10",
    "train.batch_size=64",
    "train.accumulate=2",
    "train.budget=20m",
    "train.save_every=1h30m",
    "train.clip=1.5",
    "train.eval_every=auto",
    "train.on_collapse=stop",
    "optimizer=adamw",
    "optimizer.lr=3e-4",
    "optimizer.weight_decay=0.05",
    "+optimizer.betas=[0.9,0.95]",
    "schedule=linear",
    "device.precision=bf16",
    "device.workers=4",
    "device.threads=2",
    "augmentation=none",
    "augmentation.global.random_resized_crop.scale=[0.2,1.0]",
    "~augmentation.global.horizontal_flip",
    "method.plan={global: 2}",
    "method.proj_dim=128",
    "backbone.width=32",
    "evaluator.k=20",
    "logger=jsonl",
    "seed=0,1,2",
    "init=latest",
    "hydra.run.dir=runs/here",
    "hydra.verbose=true",
    "hydra/launcher=basic",
    "experiment=smoke",
    "+new.key=5",
]
VALUES = [
    "",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "nan",
    "-inf",
    "0x10",
    "1_000",
    "'",
    '"',
    "[]",
    "{}",
    "[[1],[2,{a:b}]]",
]
VALUES += [
    "{a:1,a:2}",
    "${seed}",
    "${nope}",
    "${train}",
    "${oc.env:HOME}",
    "${oc.env:NO_SUCH_THING}",
    "${oc.decode:'['}",
]
VALUES += [
    "${train.epochs}${",
    "${hydra:job.num}",
    "${now:%Y}",
    "???",
    "glob(*)",
    "range(1,5)",
    "choice(a,b)",
    "sort(3,1)",
]
VALUES += [
    "interval(0,1)",
    "shuffle(1,2)",
    "tag(a,1)",
    "cast(1)",
    "str(1)",
    "int(x)",
    "json_str({a:1})",
    "!!python/name:os",
]
VALUES += [
    "../../etc/passwd",
    "/dev/zero",
    "a" * 5000,
    "é" * 50,
    "\u202egnp.exe",
    "\x1b[31m",
    "\udcff",
    "日本語",
    "\\",
    "a=b=c",
]
GRAMMAR = [*"=,:[]{}()'\"\\$~+@/.!?#%^&*<>|; \t\n-", "${", "}}", "=[", "]=", "\0", "é", "\ud800", "\U0001f600"]


def overrides(n: int, seed: int = 0) -> list[list[str]]:
    """`n` lists of one to three overrides."""
    rng = random.Random(seed)
    return [[_override(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))] for _ in range(n)]


def _override(rng: random.Random) -> str:
    word = rng.choice(REAL)
    key, _, value = word.partition("=")
    match rng.randrange(8):
        case 0:
            return f"{key}={rng.choice(VALUES)}"
        case 1:
            return f"{rng.choice(REAL).partition('=')[0]}={value}"
        case 2:
            return _typed_wrong(word, rng)
        case 3:
            return f"{rng.choice(('+', '++', '~', '', '@', '-'))}{key}{rng.choice(('', '=', '.x', '@', '/'))}={value}"
        case 4:
            return "".join(rng.choice(GRAMMAR + list("abc.=019")) for _ in range(rng.randrange(1, 40)))
        case 5:
            return f"{key}={value}{rng.choice(GRAMMAR)}{rng.choice(VALUES)}"
        case 6:
            return f"{key}.{rng.choice(('x', '_target_', '0', '', '*', 'a.b.c', '__class__', '_args_'))}={rng.choice(VALUES)}"
        case _:
            return f"{key}={rng.choice('[{(')}" * rng.choice((1, 3, 60)) + value


def _typed_wrong(text: str, rng: random.Random) -> str:
    chars = list(text)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(chars) + 1)
        match rng.randrange(4):
            case 0:
                chars.insert(at, rng.choice(GRAMMAR))
            case 1 if at < len(chars):
                del chars[at]
            case 2 if at < len(chars):
                chars[at] = rng.choice(GRAMMAR)
            case _:
                chars[at:at] = chars[: rng.randrange(1, 6)]
    return "".join(chars)


WRONG = [-1, 0, 1, 3, 0.5, 1e-3, True, None, "abc", "auto", [], [1, 2], {"a": 1}]


def values(base: dict[str, Any], n: int, seed: int = 0) -> list[tuple[str, Any, dict[str, Any]]]:
    """(key, value, configuration) of `n` configurations in which one value is replaced by one of another kind or size."""
    rng = random.Random(seed)
    keys = [path for path in _paths(base) if path[0] not in ("seed", "init", "logger")]
    made = []
    for path, value in rng.sample([(p, v) for p in keys for v in WRONG], n):
        cfg = copy.deepcopy(base)
        node = cfg
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        made.append((".".join(path), value, cfg))
    return made


def _paths(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if path:
        yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _paths(value, (*path, key))


# -------------------------------------------------------------------------------------------------------------------- YAML

LINES = [
    "  lr: ${oops",
    "\tkey: 1",
    "<<: *nobody",
    "a: &a [*a]",
    "x: !!python/object/apply:os.system ['touch owned']",
    "_target_: os.system",
    "  _target_: torch.load",
    "  _args_: [1]",
    "  _partial_: true",
    "? {a: b}",
    "- 1",
    "---",
    "...",
    "defaults: [../../../etc/passwd]",
    "defaults:\n  - override /method: byol",
    "defaults: 5",
    "%YAML 9.9",
    "b: !!binary aGVsbG8=",
    "d: 2026-02-30",
    "n: 0o99",
    "f: .nan",
    "f: .inf",
    "k: 1\nk: 2",
    "1: one",
    "null: null",
    "true: {false: 1}",
    "t: =",
    "s: !!set {a, b}",
    "_self_: 1",
    "# @package foo.bar",
    "# @package ../x",
    "deep: " + "[" * 200 + "]" * 200,
    "deep: " + "{a: " * 60 + "1" + "}" * 60,
    "long: " + "x" * 3000,
    "u: \U0001f600 \u202e",
    "i: ${${a}}",
    "i: ${i}",
    "e: ${oc.env:HOME}",
    "m: ???",
]


def yaml_files(n: int, folder: Path, seed: int = 0) -> list[tuple[list[str], Path]]:
    """(overrides, folder for --config-dir) of `n` files, each a mutation of one that we ship, each in its own folder."""
    rng = random.Random(seed)
    groups = [g for g in registry.GROUPS if g not in ("logger", "evaluator")]
    made = []
    for i in range(n):
        group = rng.choice(groups)
        source = rng.choice(sorted(registry.choices(group).values()))
        data = source.read_bytes()
        for _ in range(rng.randrange(1, 4)):
            data = _mutate(data, rng)
        home = folder / str(i)
        (home / group).mkdir(parents=True)
        (home / group / "odd.yaml").write_bytes(data)
        made.append(([f"{group}=odd", *(["dataset.path=x"] if b"path: ???" in source.read_bytes() else [])], home))
    return made


def _mutate(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    match rng.randrange(10):
        case 0:
            lines[at:at] = rng.choice(LINES).encode("utf-8", "surrogatepass").split(b"\n")
        case 1:
            del lines[at]
        case 2:
            lines[at] = b" " * rng.randrange(5) + lines[at].lstrip()
        case 3:
            lines[at] = lines[at].partition(b":")[0] + b": " + rng.choice(VALUES).encode("utf-8", "surrogatepass")
        case 4:
            lines[at:at] = lines[at : at + 3]
        case 5:
            text = _typed_wrong(lines[at].decode("utf-8", "surrogateescape") or "x", rng)
            lines[at] = text.encode("utf-8", "surrogatepass")
        case 6:
            raw = bytearray(b"\n".join(lines) or b"x")
            for _ in range(rng.randrange(1, 6)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            return bytes(raw)
        case 7:
            return b"\n".join(lines)[: rng.randrange(1, len(data) + 2)]
        case 8:
            return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\r\n", b"%TAG ! !\n")) + data
        case _:
            lines[at:at] = [b"  " + lines[at], b"\t" + lines[at]]
    return b"\n".join(lines)


# ------------------------------------------------------------------------------------------------------- files of a run

CHECKPOINT = "checkpoints/step-0000000004"
RUN_FILES = [
    *("status.json", "config.yaml", "metrics.jsonl", "events.jsonl", "log.txt", ".lock", ".hydra/overrides.yaml"),
    *(
        "encoder.json",
        "encoder.safetensors",
        "preprocessor",
        "preprocessor/preprocessor.json",
        "eval/knn.json",
        "eval/knn_predictions.safetensors",
        "checkpoints",
        "eval",
    ),
    *(f"{CHECKPOINT}/{name}" for name in ("manifest.json", "state.json", "model.safetensors", "optimizer.safetensors")),
]
RUN_COMMANDS = {
    "runs": ["runs"],
    "json": ["runs", "--json"],
    "show": ["runs", "show", "a"],
    "best": ["runs", "best", "knn.top1"],
    "compare": ["runs", "compare", "b", "a", "device.threads=1"],
    "report": ["runs", "report", "a"],
    "eval": ["eval", "knn", "run=a", "evaluator.baselines=false", "device=cpu", "device.threads=1"],
    "resume": ["resume", "a"],
    "select": ["select", "a", "device=cpu", "device.threads=1", "evaluator.groups=20", "evaluator.views=2"],
    "export": ["export", "a", "out=exported"],
    "export checkpoint": ["export", "a", "checkpoint=4", "out=exported"],
}
DAMAGES = ["fifo", "link", "folder", "empty", "random", "truncated", "huge", "deep", "types", "lie", "gone"]


def damage(run: Path, name: str, how: str, outside: Path, rng: random.Random) -> None:
    """Does this to one file (or folder) of a run. `outside`: what links lead to."""
    path = run / name
    content = path.read_bytes() if path.is_file() else b"{}"
    if path.is_dir() and how not in ("fifo", "link", "gone"):
        return
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    match how:
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(outside / (f"{path.name}" if not path.suffix else f"target{path.suffix}"))
        case "folder":
            path.mkdir()
        case "empty":
            path.touch()
        case "random":
            path.write_bytes(rng.randbytes(rng.choice((1, 8, 300, 5000))))
        case "truncated":
            path.write_bytes(content[: rng.randrange(len(content) + 1)])
        case "huge":
            path.touch()
            os.truncate(path, 1 << 40)
        case "deep":
            path.write_bytes(rng.choice((b"[", b'{"a":', b"- ", b"{a: ")) * 100_000)
        case "types" | "lie":
            path.write_bytes(_of_other_types(content, path.suffix, rng))
    if how == "lie":
        sign(run)


def _of_other_types(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """A few values of a JSON or YAML file (of a line of it) replaced by ones of another type, or left out."""
    if suffix == ".safetensors":
        size = int.from_bytes(content[:8], "little")
        header = _of_other_types(content[8 : 8 + size], ".json", rng)
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    first = content.partition(b"\n")[0] if suffix == ".jsonl" else content
    try:
        value = yaml.safe_load(first) if suffix == ".yaml" else json.loads(first)
    except ValueError:
        return content
    for _ in range(rng.randrange(1, 4)):
        paths = list(_paths(value))
        if not paths:
            break
        *way, last = rng.choice(paths)
        node = value
        for key in way:
            node = node[key]
        odd = rng.choice(
            [*WRONG, 10**30, -1, float("nan"), "x" * 3000, "\ud800\n\x1b[31m", [[]], {"_target_": "os.system"}]
        )
        if rng.randrange(4):
            node[last] = odd
        else:
            del node[last]
    text = yaml.safe_dump(value) if suffix == ".yaml" else json.dumps(value) + "\n"
    return text.encode("utf-8", "backslashreplace")


def sign(run: Path) -> None:
    """Makes every SHA-256 in a run right again: whoever can write a file can write its sum."""

    def sha(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    with contextlib.suppress(ValueError, OSError, TypeError, AttributeError):
        info = json.loads((run / "encoder.json").read_text())
        (run / "encoder.json").write_text(json.dumps({**info, "sha256": sha(run / "encoder.safetensors")}))
    with contextlib.suppress(ValueError, OSError, TypeError, AttributeError, KeyError):
        folder = run / CHECKPOINT
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest.pop("sha256", None)
        for name in manifest["files"]:
            manifest["files"][name] |= {"bytes": (folder / name).stat().st_size, "sha256": sha(folder / name)}
        own = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": own}))


READS = {  # the files that a command reads, by the beginnings of their names
    **dict.fromkeys(("runs", "json", "best"), ("status", "eval", ".lock")),
    "show": ("status", "eval", ".lock", "events", "config"),
    "compare": ("status", "config", "metrics", "eval", "encoder"),
    "report": ("status", "config", "metrics", "events", "log", ".hydra", "eval", "encoder"),
    "eval": ("status", "config", "encoder", "preprocessor", "eval", "log"),
    "resume": ("status", "config", "metrics", "events", "log", ".lock", "encoder", "preprocessor", "checkpoints"),
    "select": ("config", "encoder.json", "preprocessor", "checkpoints", "eval"),
    "export": ("status", "encoder", "preprocessor"),
    "export checkpoint": ("config", "encoder.json", "preprocessor", "checkpoints"),
}


def run_damages(n: int | None, seed: int = 0) -> list[tuple[str, str, str]]:
    """`n` of all (command, file, damage), evenly over the commands; None: all."""
    rng = random.Random(seed)
    every = {c: [(c, f, d) for f in RUN_FILES if f.startswith(READS[c]) for d in DAMAGES] for c in RUN_COMMANDS}
    if n is None:
        return [case for cases in every.values() for case in cases]
    return [rng.choice(every[command]) for command, _ in zip(itertools.cycle(every), range(n), strict=False)]
