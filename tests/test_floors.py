"""Imports go down only, and the mathematics knows nothing of the house."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "sslcli"
FLOORS = {  # the first that fits, by longest prefix
    "sslcli.__main__": 4,
    "sslcli.cli.main": 4,
    "sslcli.cli": 3,
    "sslcli.report": 3,
    "sslcli.evals.base.candidates": 3,
    "sslcli.training": 2,
    "sslcli.builders": 2,
    "sslcli.backbones.weights_file": 2,
    "sslcli.runs.encoder": 1,
    "sslcli.evals": 2,
    "sslcli.methods": 1,
    "sslcli.backbones": 1,
    "sslcli.data": 1,
    "sslcli.views": 1,
    "sslcli.optim": 1,
    "sslcli.config.instantiate": 1,
    "sslcli.runtime.device": 1,
    "sslcli.runtime.threads": 1,
    "sslcli.nn": 0,
    "sslcli": 0,  # config, runs, runtime, console, errors, rng
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(name: str) -> int:
    while name not in FLOORS:
        name = name.rpartition(".")[0]
    return FLOORS[name]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(f.relative_to(ROOT)) for f in FILES])
def test_imports_go_down(path):
    name = module_name(path)
    for other in imports(path):
        if other.startswith("sslcli."):
            assert floor(other) <= floor(name), f"{name} (floor {floor(name)}) imports {other} (floor {floor(other)})"


@pytest.mark.parametrize("path", sorted((ROOT / "methods").glob("*.py")), ids=lambda p: p.stem)
def test_methods_know_only_torch_nn_and_their_base(path):
    allowed = (
        "torch",
        "sslcli.nn",
        "sslcli.methods.base",
        "sslcli.batch",
        "math",
        "typing",
        "__future__",
        "collections",
        "dataclasses",
        "itertools",
    )
    for other in imports(path):
        assert other.startswith(allowed), f"{path.name} imports {other}"


@pytest.mark.parametrize("path", sorted((ROOT / "nn").glob("*.py")), ids=lambda p: p.stem)
def test_nn_imports_nothing_of_ours(path):
    for other in imports(path):
        assert not other.startswith("sslcli.") or other.startswith("sslcli.nn"), f"{path.name} imports {other}"


def test_no_modality_is_asked_for_outside_data_views_and_backbones():
    for path in FILES:
        room = path.relative_to(ROOT).parts[0]
        if room in ("data", "views", "backbones"):
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            line = line.replace("dataset.modality not in target.modalities", "")  # what a method declares is heeded
            assert not ("modality" in line and line.lstrip().startswith(("if ", "elif "))), (
                f"{path.name}: {line.strip()}"
            )


def test_nothing_instantiates_or_unpickles():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert "hydra.utils" not in text, path
        assert "weights_only=False" not in text, path
        assert "torchvision.io" not in text.replace("never torchvision.io", ""), path
