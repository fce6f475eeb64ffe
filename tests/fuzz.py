"""Words and YAML files that nobody would type, made from ones that somebody would: for tests/test_fuzz.py."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sslcli import config

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
    groups = [g for g in config.GROUPS if g not in ("logger", "evaluator")]
    made = []
    for i in range(n):
        group = rng.choice(groups)
        source = rng.choice(sorted(config.choices(group).values()))
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
