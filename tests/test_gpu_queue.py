"""The queue of measurements on a GPU: its rows are those of existing recipes, and the page shows what was measured."""

from __future__ import annotations

from benchmarks import gpu_queue
from benchmarks.gpu_page import page, published
from sslcli.config import registry


def test_rows_have_one_name_each_and_existing_choices():
    rows = gpu_queue.rows()
    assert len({row.name for row in rows}) == len(rows)
    groups = ("experiment", "method", "backbone", "dataset", "augmentation", "optimizer")
    for row in rows:
        for key, _, value in (word.partition("=") for word in row.words):
            if key in groups:
                assert value in registry.choices(key), (row.name, value)
    assert {"method/vicreg compiled", "method/mae as written"} <= {row.name for row in rows}
    assert not any(row.name.startswith(("method/clip", "method/mlm", "method/distill")) for row in rows)
    measured = {word for row in rows for word in row.words if word.startswith("experiment=")}
    recipes = {f"experiment={name}" for name in registry.choices("experiment") if name.startswith("cifar10_")}
    assert recipes - measured == {"experiment=cifar10_cpu"}


def test_identity_changes_with_what_is_computed_alone():
    first, other = gpu_queue.recipe("cifar10_gpu", 10), gpu_queue.recipe("cifar10_gpu", 99)
    assert gpu_queue.identity(first) == gpu_queue.identity(other)
    assert gpu_queue.identity(first) != gpu_queue.identity(gpu_queue.recipe("cifar10_gpu", 10, seed=1))
    assert gpu_queue.identity(first) != gpu_queue.identity(gpu_queue.recipe("cifar10_gpu", 10, "method.norm=false"))


def test_page_shows_what_was_measured():
    numbers = {"knn200": 0.8512, "knn20": 0.8634, "probe": 0.8871}
    accuracy = {f"{part}.{name}": value for part in ("test", "held_out") for name, value in numbers.items()}
    rows = {
        "cifar10_gpu/1": {
            "kind": "accuracy",
            "words": ["experiment=cifar10_gpu", "seed=1"],
            "pretraining_seconds": 330.0,
            **accuracy,
        },
        "cifar10_byol/0": {"kind": "accuracy", "words": ["experiment=cifar10_byol"], "failed": "exit code 1"},
        "speed/a": {
            "kind": "speed",
            "words": [],
            "views": 1e5,
            "model": 5e4,
            "end_to_end": 4.9e4,
            "lost": 0.02,
            "peak_memory_mb": 3e3,
        },
        "speed/b": {"kind": "speed", "words": [], "failed": "error: out of memory"},
        "method/x as written": {"kind": "speed", "words": [], "end_to_end": 1000.0, "peak_memory_mb": 900.0},
        "method/x compiled": {"kind": "speed", "words": [], "end_to_end": 1500.0, "lost": 0.1},
        "method/y as written": {"kind": "speed", "words": [], "failed": "error: not finite"},
        "tests": {"kind": "tests", "words": [], "outcome": "31 passed in 100 s"},
    }
    about = {
        "command": "python benchmarks/gpu_queue.py",
        "gpu": "a card",
        "machine": "",
        "date": "2026-01-01",
        "versions": {"torch": "2"},
    }
    lines = page({"about": about, "rows": rows}).splitlines()
    assert "| cifar10_gpu/1 | 0.8512 | 0.8634 | 0.8871 | 0.8512 | 0.8871 | kNN .848 | 5.5 |" in lines
    assert "| cifar10_byol/0 | exit code 1 |  |  |  |  | kNN .869 |  |" in lines
    assert "| speed/a | 100,000 | 50,000 | 49,000 | 2 % | 3,000 |" in lines
    assert "| speed/b | error: out of memory | | | | |" in lines
    assert "`pytest -m gpu`: 31 passed in 100 s." in lines
    assert "| `x` | 1,000 | 1,500 | 1.50 | 900 | 10 % |" in lines
    assert "| `y` | error: not finite | – | – | 0 | – |" in lines
    assert published({"words": ["experiment=smoke"]}) == ""
